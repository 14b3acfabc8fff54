from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.serving.engine import Engine
from polyfuse.serving.settings import Settings
from serving.models import mixed, recipe


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    return mixed()


@pytest.fixture(scope="session")
def predictor(tiny_model: Callable[[str], str], table: pd.DataFrame) -> pf.Predictor:
    """A classification with a screen."""
    chosen = recipe(tiny_model("bert"), "label")
    fitted = pf.Predictor(recipe=chosen).fit(table.drop(columns="price"), progress=False)
    return fitted.fit_screen(mixed(120, seed=1).drop(columns="price"), rate=0.2, progress=False)


@pytest.fixture(scope="session")
def several(tiny_model: Callable[[str], str], table: pd.DataFrame) -> pf.Predictor:
    """Two targets, a label and a number."""
    return pf.Predictor(recipe=recipe(tiny_model("bert"), ["label", "price"])).fit(table, progress=False)


@pytest.fixture(scope="session")
def run(predictor: pf.Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predictor.save(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture
def engine(predictor: pf.Predictor) -> Iterator[Engine]:
    made = Engine(predictor, Settings(threads=1))
    yield made
    made.close()
