"""Stress: what is missing and what is damaged, against the same measured by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core.errors import InputError
from polyfuse.data.corruption import corruptions_for
from polyfuse.data.corruption.applying import corrupted
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.inference import score
from polyfuse.robustness.stress import _dropped


def write(folder: Path, rows: int = 160) -> Path:
    """Write a table of a text and numbers that each tell the answer, the text better."""
    drawn = np.random.default_rng(0)
    label = np.arange(rows) % 2
    words = [["bad awful poor", "good lovely fine"][y] for y in label]
    notes = [f"{some} thing number {drawn.integers(99)}" for some in words]
    answers = np.array(["no", "yes"])[label]
    table = pd.DataFrame({"note": notes, "size": label + drawn.normal(0, 0.8, rows), "y": answers})
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], str]) -> tuple[pf.Predictor, Path]:
    path = write(tmp_path_factory.mktemp("stress"))
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    modalities = {"text": {"columns": ["note"], "encoder": encoder}, "table": {"columns": ["size"]}}
    settings: dict[str, Any] = {
        "modalities": modalities,
        "fusion": {"name": "auto", "folds": 2, "candidates": ["linear", "words"]},
    }
    fitted = pf.Predictor("y", **settings, augmentation="none").fit(path, progress=False)
    fitted.save(path.parent / "run")
    return fitted, path


def test_figures_are_those_of_the_same_rows_measured_by_hand(predictor: tuple[pf.Predictor, Path]) -> None:
    model, path = predictor
    report = model.stress(path, severities=[1, 5], seeds=2, progress=False)
    assert report.clean.value == model.evaluate(path, progress=False)["accuracy"]
    assert set(report.without) == {"text", "table"}
    for name, at in report.without.items():
        assert at.value == model.evaluate(path, without=[name], progress=False)["accuracy"]
    rows = read_rows(read_table(path, media_root=None), model.schema, training=False, answers=True)
    truth = np.array(rows.answers)
    for modality, found in report.corrupted.items():
        assert list(found) == corruptions_for(model.schema.of(modality))
        name = next(iter(found))
        values = []
        for seed in range(2):
            scores, _ = score(model.model, corrupted(rows, modality, name, 5, seed), model._device)
            values.append(np.mean(np.array(model.model.head.decode(scores)) == truth))
        assert found[name][1] == pytest.approx(np.mean(values))
    assert report.corrupted["text"]["no_spaces"][1] < report.clean.value
    assert report.corrupted["table"]["number_noise"][0] >= report.corrupted["table"]["number_noise"][1]
    every = [value for some in report.corrupted["table"].values() for value in some]
    assert report.mean("table") == pytest.approx(np.mean(every))
    rates = [mean for mean, _ in report.dropped.values()]
    assert list(report.dropped) == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert rates[-1] < rates[0] <= report.clean.value
    assert json.loads(report.to_json())["means"]["text"] == report.mean("text")


def test_references_stand_beside_it(predictor: tuple[pf.Predictor, Path]) -> None:
    model, path = predictor
    others = model.references(path, progress=False)
    assert list(others) == ["late fusion", "text alone", "table alone"]
    assert {name: list(other.schema.modalities) for name, other in others.items()} == {
        "late fusion": ["text", "table"],
        "text alone": ["text"],
        "table alone": ["table"],
    }
    assert others["late fusion"].recipe.fusion.name == "late"
    chosen: dict[str, Any] = {"severities": [5], "seeds": 2, "progress": False}
    report = model.stress(path, modalities=["table"], references={**others, "itself": model}, **chosen)
    for name, other in others.items():
        by_itself = other.stress(path, **chosen)
        beside = report.references[name]
        assert beside.clean == by_itself.clean.value == other.evaluate(path, progress=False)["accuracy"]
        if name == "late fusion":
            ahead = [report.dropped[rate][0] - mean for rate, (mean, _) in by_itself.dropped.items()]
            assert beside.relative["dropped"] == pytest.approx(np.mean(ahead))
        # Damage to a table is none to a model that does not read it.
        theirs = by_itself.mean("table") if name != "text alone" else beside.clean
        assert beside.relative["table"] == pytest.approx(report.mean("table") - theirs)
        fell = (report.clean.value - report.mean("table")) - (beside.clean - theirs)
        assert beside.effective["table"] == pytest.approx(-fell)
    assert set(report.references["itself"].relative.values()) == {0.0}
    assert "beside text alone" in str(report)
    assert (
        json.loads(report.to_json())["references"]["text alone"]["clean"]
        == others["text alone"].evaluate(path, progress=False)["accuracy"]
    )
    with pytest.raises(InputError, match="reads 'note', which the model does not know"):
        others["table alone"].stress(path, references={"other": others["text alone"]}, progress=False)
    table = pd.read_csv(path)
    table["y"] = table["y"].map({label: f"other {label}" for label in table["y"].unique()})
    strange = others["table alone"].fit(table, progress=False)
    with pytest.raises(InputError, match="fitted on the same labels"):
        model.stress(path, references={"other": strange}, progress=False)
    with pytest.raises(InputError, match="single modality"):
        others["text alone"].references(path)


def test_dropping_leaves_one_and_takes_the_share_that_it_says(predictor: tuple[pf.Predictor, Path]) -> None:
    model, path = predictor
    rows = read_rows(read_table(path, media_root=None), model.schema, training=False, answers=True)
    many = rows.subset(list(range(len(rows))) * 20)
    for rate in (0.1, 0.5, 0.9):
        left = _dropped(many.subset(range(len(rows))), rate, 0).present
        assert bool(left.any(1).all())
    drawn = [_dropped(rows, 0.5, seed).present.float().mean() for seed in range(40)]
    # Of two, each goes with 1/2, and of the quarter in which both would, one stays.
    assert float(np.mean(drawn)) == pytest.approx(0.5 + 0.125, abs=0.02)


def test_the_command(predictor: tuple[pf.Predictor, Path], tmp_path: Path) -> None:
    _, path = predictor
    call = ["stress", path.parent / "run", path, "--fast", "--rows", "30", "--modalities", "text", "--json"]
    report = json.loads(polyfuse(*call, "--train", path, cwd=tmp_path)[0])
    assert list(report["references"]) == ["late fusion", "text alone", "table alone"]
    assert report["rows"] == 30
    assert report["severities"] == [1, 3, 5]
    assert list(report["corrupted"]) == ["text"]


def test_a_wrong_call_is_told_what_is_wrong(predictor: tuple[pf.Predictor, Path]) -> None:
    with pytest.raises(InputError, match="severity"):
        predictor[0].stress(predictor[1], severities=[6], progress=False)
    with pytest.raises(InputError, match="no modality 'tex'"):
        predictor[0].stress(predictor[1], modalities=["tex"], progress=False)


def test_a_report_is_readable(predictor: tuple[pf.Predictor, Path]) -> None:
    report = predictor[0].stress(predictor[1], modalities=["table"], severities=[1], seeds=1, rows=20, progress=False)
    lines = str(report).splitlines()
    assert any(line.startswith("without text") for line in lines)
    assert any(line.startswith("number_noise") for line in lines)
    assert any(line.startswith("mean of all") for line in lines)
