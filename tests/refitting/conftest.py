from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf

#: A table as the world was, or as it is now: in Bern, where hardly anybody came from, nearly all say yes since.
Make = Callable[..., pd.DataFrame]


def press(rows: int, seed: int, *, now: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2))
    share = 0.6 if now else 0.04
    city = random.choice(["Rome", "Oslo", "Bern"], rows, p=[(1 - share) / 2, (1 - share) / 2, share])
    said = 3 * x[:, 0] + random.logistic(size=rows) + (6.0 if now else 0.0) * (city == "Bern")
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "city": city, "said": np.where(said > 0, "yes", "no")})


@pytest.fixture(scope="session")
def table() -> Make:
    return press


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return two artifacts of the old world, and the file of their table: one trained as a whole, one found."""
    folder = tmp_path_factory.mktemp("refitting")
    press(500, 0).to_csv(folder / "train.csv", index=False)
    settings = {"training": {"epochs": 8, "trackers": []}, "data": {"validation_share": 0.3}}
    pf.Predictor("said", fusion="concat", **settings).fit(folder / "train.csv", out=folder / "whole", progress=False)
    way = {"name": "auto", "candidates": ["linear", "concat"], "folds": 2}
    pf.Predictor("said", fusion=way, **settings).fit(folder / "train.csv", out=folder / "found", progress=False)
    return {"whole": folder / "whole", "found": folder / "found", "train": folder / "train.csv"}
