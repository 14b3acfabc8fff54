from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny

# Tiny tensors: a second thread costs more than it brings.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that writes the tiny model of a name once and returns its folder."""
    root = tmp_path_factory.mktemp("models")

    def find(name: str) -> str:
        folder: Path = root / name
        return str(folder if folder.exists() else tiny.write(name, folder))

    return find
