from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import tiny

# Nothing is fetched, and nothing is left in the user's own cache; processes that the tests start inherit both.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["POLYFUSE_CACHE"] = tempfile.mkdtemp(prefix="polyfuse-tests-")

# Tiny tensors: a second thread costs more than it brings.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# What a test takes says nothing on a machine that others use.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _cache() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["POLYFUSE_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function that writes the tiny model of a name once and returns its folder."""
    root = tmp_path_factory.mktemp("models")

    def find(name: str) -> str:
        folder: Path = root / name
        return str(folder if folder.exists() else tiny.write(name, folder))

    return find
