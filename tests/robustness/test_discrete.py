"""Attacks on a text and a table together: real tokens, real cells, learners that have no gradient."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
from polyfuse.attacks import build_threat
from polyfuse.core.errors import InputError
from polyfuse.data.schema import Target
from polyfuse.ensemble import Ensemble
from polyfuse.heads import HEADS
from polyfuse.robustness.scene import is_differentiable

BUDGETS: dict[str, Any] = {
    "text": "characters:0.2",
    "table": {"name": "ranges", "radius": 0.5, "relations": ["low <= high"]},
}


def table(rows: int) -> pd.DataFrame:
    """Return notes and numbers that each tell the answer, not for sure."""
    drawn = np.random.default_rng(0)
    label = np.arange(rows) % 2
    words = [["awful broken thing", "lovely shiny thing"][y if drawn.random() < 0.95 else 1 - y] for y in label]
    low = np.round(10 * label + drawn.normal(0, 4, rows)).astype(int)
    made = {
        "note": [f"a {some} of {drawn.integers(9)} parts" for some in words],
        "low": low,
        "high": low + drawn.integers(0, 5, rows),
        "colour": np.where(drawn.random(rows) < 0.8, np.array(["red", "blue"])[label], "green"),
        "y": np.array(["no", "yes"])[label],
    }
    frame = pd.DataFrame(made)
    frame.loc[::9, "note"] = None
    return frame


@pytest.fixture(scope="module", params=["concat", "linear", "boosting", "ensemble"])
def predictor(request: pytest.FixtureRequest, tiny_model: Callable[[str], str]) -> pf.Predictor:
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    modalities = {"text": {"columns": ["note"], "encoder": encoder}, "table": {"columns": ["low", "high", "colour"]}}
    fusion: Any = request.param
    if fusion == "ensemble":
        fusion = {"name": "ensemble", "members": [{"combine": "concat"}, {"combine": "linear"}]}
    training = {"epochs": 15, "trackers": []}
    return pf.Predictor("y", modalities=modalities, fusion=fusion, training=training).fit(table(160), progress=False)


def test_text_and_table_are_attacked_together(predictor: pf.Predictor, tmp_path: Path) -> None:
    test = table(200)[160:]
    options = {"steps": 5, "queries": 10}
    report = predictor.attack(
        test, budgets=BUDGETS, options=options, rows=16, examples=tmp_path / "seen", progress=False
    )
    assert set(report.subsets) == {"text", "table", "text + table"}
    assert report.worst.value <= report.subsets["text + table"].value <= report.clean.value
    assert report.subsets["text + table"].value <= min(report.subsets["text"].value, report.subsets["table"].value)
    assert report.worst.value < report.clean.value - 0.1
    assert all(budget.used <= 1 for budget in report.budgets.values())
    told = any("has no gradient" in said for said in report.warnings)
    assert told is not is_differentiable(predictor.model)
    for example in json.loads((tmp_path / "seen" / "examples.json").read_text()):
        row = test.loc[int(example["row"])].to_dict()
        row |= {column: change["after"] for column, change in example["changed"].items()}
        assert row["low"] <= row["high"]
        assert float(row["low"]).is_integer()
        assert predictor.predict(row).tolist() == [example["after"]]


def test_outputs_of_an_ensemble_have_its_scores(predictor: pf.Predictor) -> None:
    model = predictor.model
    if not isinstance(model, Ensemble):
        pytest.skip("one model")
    from polyfuse.data.reading import read_table
    from polyfuse.data.rows import read_rows

    rows = read_rows(read_table(table(20), media_root=None), predictor.schema, training=False, answers=True)
    inputs = {
        name: model.encoder(name).prepare([rows.value(name, row) for row in range(20)]) for name in model.modalities
    }
    texts = {name: [rows.text(name, row) for row in range(20)] for name in model.reads_text}
    with torch.no_grad():
        scores = model.scores(inputs, rows.present, texts)
        again = model.head.scores(model.outputs(inputs, rows.present, texts))
    torch.testing.assert_close(again.double(), scores.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_the_mean_of_scores_is_that_of_mixed_outputs(task: Any) -> None:
    target = Target(name="y", task=task, levels=["a", "b", "c"], frequencies=[0.3, 0.3, 0.4], mean=2.0, std=3.0)
    head = HEADS.build(task, {}, 4, target)
    shape = (7,) if task == "regression" else (7, 3)
    parts = [torch.randn(shape, generator=torch.manual_seed(seed)) * 4 for seed in range(3)]
    weights = [0.5, 0.3, 0.2]
    expected = sum(weight * head.scores(part).double() for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(head.scores(head.mixed(parts, weights)).double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head.scores(head.unscored(expected)).double(), expected, rtol=1e-3, atol=1e-5)


def test_words_need_a_vocabulary(predictor: pf.Predictor) -> None:
    with pytest.raises(InputError, match="changes text"):
        build_threat("words", "table", predictor.schema.of("table"))
    threat = build_threat("words:0.2", "text", predictor.schema.of("text")).bound(predictor.model.encoder("text"))
    assert threat.options()["share"] == 0.2


@pytest.mark.parametrize("fusion", ["concat", "boosting"])
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_tasks_are_attacked_too(task: str, fusion: str) -> None:
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(160, 2))
    answers: Any = (x @ [2.0, 1.0]).tolist()
    if task == "multilabel":
        answers = [[name for name, on in zip("ab", row > 0, strict=True) if on] for row in x]
    frame = pd.DataFrame({"one": x[:, 0], "two": x[:, 1], "y": answers})
    settings: dict[str, Any] = {"task": task, "fusion": fusion, "training": {"epochs": 10, "trackers": []}}
    predictor = pf.Predictor("y", **settings).fit(frame[:120], progress=False)
    call: dict[str, Any] = {"budgets": {"table": "ranges:0.2"}, "options": {"steps": 8, "queries": 10}}
    report = predictor.attack(frame[120:], **call, factors=[0.5], progress=False)
    assert report.metric == {"regression": "mae", "multilabel": "subset_accuracy"}[task]
    harm = [value if task == "regression" else -value for value in report.curve.values()]
    assert harm == sorted(harm)
    assert harm[-1] > harm[0] + 0.05
    assert not any("masked" in said for said in report.warnings), (report.warnings, report.checks)
