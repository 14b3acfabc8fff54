"""A model of point clouds and a table that leaves the house."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import polyfuse as pf
import shapes
from polyfuse_runner import Runner


@pytest.fixture(scope="module")
def predictor() -> pf.Predictor:
    modalities = {
        "cloud": {"columns": ["cloud"], "encoder": {"name": "pointnet", "width": 8, "points": 60, "sized": True}},
        "table": {"columns": ["weight"]},
    }
    training = {"epochs": 2, "trackers": []}
    recipe = {"target": "solid", "modalities": modalities, "fusion": {"name": "attention", "dim": 8, "heads": 2}}
    return pf.Predictor(recipe={**recipe, "training": training}).fit(shapes.solids(60), progress=False)


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_it_answers_as_the_model(predictor: pf.Predictor, to: str, tmp_path: Path) -> None:
    test = shapes.solids(20, seed=1)
    test.loc[3, "cloud"] = None
    test.loc[5, "weight"] = None
    report = predictor.export(tmp_path / "out", to=to, check=test)
    assert report.difference is not None
    assert report.difference.largest < 1e-4
    runner = Runner(tmp_path / "out", threads=1)
    expected = predictor.predict_proba(test)
    cells = [None if cell is None else cell.tolist() for cell in test["cloud"]]
    rows = [{"cloud": cell, "weight": weight} for cell, weight in zip(cells, test["weight"], strict=True)]
    found = runner.predict_proba(rows)
    for row, scores in enumerate(found):
        assert list(scores.values()) == pytest.approx(expected.iloc[row].tolist(), abs=1e-4)
    # As files, and as lines of JSON.
    (tmp_path / "a.ply").write_bytes(shapes.ply(test["cloud"][0], "x y z"))
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps({"cloud": "a.ply", "weight": test["weight"][0]}) + "\n")
    [again] = runner.predict_proba(lines)
    assert list(again.values()) == pytest.approx(list(found[0].values()), abs=1e-5)


def test_without_rows_it_is_checked_on_made_ones(predictor: pf.Predictor, tmp_path: Path) -> None:
    report = predictor.export(tmp_path / "out")
    assert report.difference is not None
    assert (report.difference.made, bool(np.isfinite(report.difference.largest))) == (True, True)
