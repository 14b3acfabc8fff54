"""Curves go where they are asked to: TensorBoard, and Weights & Biases and MLflow in their offline forms."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import polyfuse as pf
from polyfuse.core.errors import MissingExtra

EPOCHS = 3


def fit(out: Path, *trackers: str) -> pf.Predictor:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=60), "y": rng.integers(0, 2, 60)})
    settings = {"epochs": EPOCHS, "trackers": list(trackers)}
    return pf.Predictor("y", fusion="concat", training=settings).fit(table, out=out, progress=False)


def test_tensorboard(tmp_path: Path) -> None:
    predictor = fit(tmp_path / "run", "tensorboard")
    (events,) = (tmp_path / "run" / "logs").rglob("events.out.tfevents*")
    found = EventAccumulator(str(events))
    found.Reload()
    history = predictor.metrics["training"]["history"]
    assert len(history) == EPOCHS
    for name in ("loss", "validation_loss", "validation_accuracy"):
        values = [event.value for event in found.Scalars(name)]
        np.testing.assert_allclose(values, [figures[name] for figures in history], rtol=1e-5)
    again = pf.load(tmp_path / "run").save(tmp_path / "copy")
    assert list((again / "logs").rglob("events.out.tfevents*"))


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(tmp_path / "run", "wandb")
    (log,) = (tmp_path / "run" / "logs").rglob("*.wandb")
    raw = log.read_bytes()
    assert b"validation_accuracy" in raw
    assert b"fusion" in raw


def test_mlflow_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(tmp_path / "run", "mlflow")
    (store,) = (tmp_path / "run" / "logs").rglob("mlflow.db")
    with sqlite3.connect(store) as database:
        (count,) = database.execute("select count(*) from metrics where key = 'validation_accuracy'").fetchone()
        params = dict(database.execute("select key, value from params"))
    assert count == EPOCHS
    assert params["training.epochs"] == str(EPOCHS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_tracker_that_is_not_installed_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"polyfuse\[wandb\]"):
        fit(tmp_path / "run", "wandb")
    assert not list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=60), "y": rng.integers(0, 2, 60)})
    pf.Predictor("y", training={"epochs": 1}).fit(table, progress=False)
    assert not list(tmp_path.iterdir())
