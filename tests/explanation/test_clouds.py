"""Explanations of point clouds: what decides has the weights, and all of it can be looked at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
import shapes
from polyfuse.data.geometry import parts_of
from polyfuse.data.media import MediaFolder, load
from polyfuse.data.points import decode_points
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.explanation import FAST, CloudPart, Method, explain_model
from polyfuse.reporting.sections.explanations import _part

CPU = torch.device("cpu")


def knobs(rows: int, seed: int) -> pd.DataFrame:
    """Return spheres, of which those with a knob on one side are another kind."""
    random = np.random.default_rng(seed)
    made = []
    for row in range(rows):
        cloud = shapes.sphere(60, random)
        if row % 2:
            cloud[:8] = [1.6, 0, 0] + 0.05 * random.normal(size=(8, 3))
        made.append(cloud.astype(np.float32))
    return pd.DataFrame({"cloud": pd.Series(made, dtype=object), "knob": ["no", "yes"] * (rows // 2)})


@pytest.fixture(scope="module")
def predictor() -> pf.Predictor:
    encoder = {"name": "pointnet", "width": 16}
    modalities = {"points": {"columns": ["cloud"], "encoder": encoder}}
    training = {"epochs": 12, "trackers": [], "compute": "float32"}
    return pf.Predictor("knob", modalities=modalities, fusion="concat", training=training, augmentation="none").fit(
        knobs(80, 0), progress=False
    )


def test_parts_lie_together_and_all_points_are_in_one() -> None:
    cloud = np.random.default_rng(0).normal(size=(200, 3))
    parts = parts_of(cloud, cloud, 12)
    assert set(parts) == set(range(12))
    middles = np.stack([cloud[parts == part].mean(0) for part in range(12)])
    own = np.linalg.norm(cloud - middles[parts], axis=1).mean()
    assert own < 0.6 * np.linalg.norm(cloud - cloud.mean(0), axis=1).mean()
    assert parts_of(np.zeros((5, 2)), np.zeros((5, 2)), 3).tolist() == [0] * 5
    assert set(parts_of(cloud[:3], cloud[:3], 8)) == {0, 1, 2}


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_what_decides_has_the_weights(predictor: pf.Predictor, method: Method) -> None:
    table = read_table(knobs(8, 1))
    rows = read_rows(table, predictor.schema, training=False, answers=True).subset([1, 3, 5])
    found = explain_model(predictor.model, rows, CPU, method, effort=replace(FAST, most=512))
    means = []
    for row in found.rows:
        part = row.parts["points"]
        assert isinstance(part, CloudPart)
        assert row.answer == "yes"
        knob = part.places[:, 0] > 1.3
        means.append((part.weights[knob].mean(), part.weights[~knob].mean()))
        assert sum(weight for _, weight in part.ranked()) == pytest.approx(part.weights.sum())
    mine, others = np.mean(means, axis=0)
    assert mine > 2 * abs(others)


def test_it_can_be_looked_at(predictor: pf.Predictor, tmp_path: Path) -> None:
    table = knobs(6, 1)
    predictor.explain(table, fast=True, out=tmp_path / "out", progress=False)
    kept = json.loads((tmp_path / "out" / "explanations.json").read_text())
    parts = [row["parts"]["points"] for row in kept["rows"]]
    assert {part["kind"] for part in parts} == {"points"}
    assert np.allclose(parts[1]["places"], table["cloud"][1], atol=1e-4)
    baselines = {one["baseline"] for one in parts[1]["faithfulness"]}
    assert baselines == {"scattered in its sphere", "gathered in the middle"}
    files = sorted(path.name for path in (tmp_path / "out").glob("*.ply"))
    assert len(files) == 6
    data = (tmp_path / "out" / files[1]).read_bytes()
    coloured = decode_points(load(data, "points", MediaFolder(Path())))
    assert np.allclose(coloured[:, :3], table["cloud"][1], atol=1e-5)
    assert (coloured[:, 3:].max(), coloured[:, 3:].min() < 0.9) == (1, True)


def test_the_report_draws_it() -> None:
    cloud = shapes.cube(500, np.random.default_rng(0))
    common = {"method": "occlusion", "class_specific": True, "baseline": "x", "convergence": None, "faithfulness": []}
    for axes, views in ((3, 3), (2, 1)):
        drawn = _part(CloudPart(**common, places=cloud[:, :axes], weights=cloud[:, 0]))  # type: ignore[arg-type]
        assert drawn.count("<circle") == 400 * views
        assert "y over x" in drawn
