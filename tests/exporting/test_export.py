"""A model that leaves the house answers as it did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core.errors import InputError
from polyfuse_runner import ExportError, RowError, Runner

LABELS = ["x", "y", "z"]


def table(rows: int) -> pd.DataFrame:
    """Return rows of text and columns with holes in them, and an answer that depends on both."""
    random = np.random.default_rng(0)
    words = ["one", "two", "cat", "dog", "good", "bad", "red", "blue"]
    frame = pd.DataFrame(
        {
            "note": [" ".join(random.choice(words, size=random.integers(1, 9))) for _ in range(rows)],
            "size": random.normal(size=rows).round(3),
            "kind": random.choice(LABELS, size=rows),
            "day": pd.date_range("2020-01-01", periods=rows, freq="11h").strftime("%Y-%m-%d %H:%M"),
        }
    )
    cat = frame["note"].str.contains("cat")
    frame["answer"] = np.where(cat & (frame["size"] > 0), "both", np.where(cat | (frame["kind"] == "x"), "one", "none"))
    frame.loc[::7, "size"] = None
    frame.loc[::5, "kind"] = None
    frame.loc[::9, "note"] = None
    frame.loc[3, ["note", "size", "kind", "day"]] = None
    return frame


@pytest.fixture(scope="module")
def predictor(tiny_model: Callable[[str], str]) -> pf.Predictor:
    members = [{"combine": "linear"}, {"combine": "boosting"}, {"combine": {"name": "concat", "dim": 8}}]
    recipe = {
        "target": "answer",
        "modalities": {
            "note": {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": tiny_model("bert")}},
            "table": {"columns": ["size", "kind", "day"], "encoder": {"name": "mlp", "dim": 8}},
        },
        "fusion": {"name": "ensemble", "members": members},
        "training": {"epochs": 1, "compute": "float32", "trackers": []},
    }
    return pf.Predictor(recipe=recipe).fit(table(240), progress=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    table(120).drop(columns="answer").to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def folder(predictor: pf.Predictor, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported") / "out"
    report = predictor.export(place, check=rows)
    assert report.difference is not None
    assert (report.difference.rows, report.difference.made) == (120, False)
    assert report.difference.largest < 1e-4
    assert json.loads((place / "preparation.json").read_text())["checked"] == report.difference.data()
    return place


def test_the_copy_in_the_folder_answers_as_the_model(predictor: pf.Predictor, folder: Path, rows: Path) -> None:
    command = [sys.executable, "-m", "polyfuse_runner", ".", str(rows), "--proba", "--json", "--verify"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found = pd.DataFrame(json.loads(done.stdout)["predictions"])
    with pytest.warns(UserWarning, match="no modality"):
        expected = predictor.answer(rows)
    assert found["answer"].tolist() == expected.labels.tolist()
    assert (
        np.abs(found[[f"p:{label}" for label in expected.scores]].to_numpy() - expected.scores.to_numpy()).max() < 1e-4
    )


def test_rows_one_or_many(predictor: pf.Predictor, folder: Path) -> None:
    runner = Runner(folder, threads=1)
    row = {"note": "a good cat", "size": "1,000.5", "kind": None, "day": "2020-03-01"}
    expected = predictor.predict_proba(row)
    assert runner.predict(row) == predictor.predict(row).tolist()
    (found,) = runner.predict_proba(row)
    assert list(found) == list(expected)
    assert np.abs(np.array(list(found.values())) - expected.to_numpy()[0]).max() < 1e-4
    assert runner.predict([row, row]) == 2 * runner.predict(row)
    assert runner.predict([]) == []


def test_rows_are_read_window_by_window(folder: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Runner(folder, threads=1).scores(rows)
    monkeypatch.setattr("polyfuse_runner.runner._WINDOW", 50)
    assert Runner(folder, threads=1).scores(rows) == pytest.approx(whole, abs=1e-6)
    bad = [{"note": "a", "size": 1, "kind": "x", "day": None}] * 60 + [{"note": b"a"}]
    with pytest.raises(RowError, match="row 60, column 'note'"):
        Runner(folder).predict(bad)


def test_rows_to_try_it_with_lie_beside(predictor: pf.Predictor, folder: Path) -> None:
    rows = folder / "example.jsonl"
    answers = Runner(folder).predict(rows)
    assert len(answers) == 3
    assert answers == predictor.predict(rows).tolist()


def test_a_row_with_nothing_in_it_has_the_prior(predictor: pf.Predictor, folder: Path) -> None:
    with pytest.warns(UserWarning, match="lack the columns note, size, kind, day"):
        (found,) = Runner(folder).predict_proba({"other": 3})
    assert list(found.values()) == pytest.approx(predictor.schema.target.frequencies)


def test_cells_that_cannot_be_read_are_all_told(folder: Path) -> None:
    row = {"note": "a", "kind": "x", "day": None}
    with pytest.raises(RowError, match="row 0, column 'size': a number must be finite") as told:
        Runner(folder).predict([{**row, "size": float("inf")}, {**row, "note": b"a"}])
    assert "row 1, column 'note': one word or number is expected" in str(told.value)


def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    words = tmp_path / "copy" / "words-0.json"
    whole = words.read_bytes()
    words.write_bytes(whole.replace(b"cat", b"dog"))
    Runner(tmp_path / "copy")  # of the same size: only a hash tells
    with pytest.raises(ExportError, match=r"words-0\.json is not the file that was written"):
        Runner(tmp_path / "copy", verify=True)
    words.write_bytes(whole[:-1])
    with pytest.raises(ExportError, match=r"words-0\.json is not the file that was written"):
        Runner(tmp_path / "copy")
    with pytest.raises(ExportError, match="is no exported model"):
        Runner(tmp_path)
    about = tmp_path / "copy" / "preparation.json"
    about.write_text(about.read_text().replace('"words": "words-0.json"', '"words": "../words-0.json"'))
    with pytest.raises(ExportError, match="leads out of it"):
        Runner(tmp_path / "copy")


def test_a_folder_that_is_taken_stays(predictor: pf.Predictor, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="holds something that is not a Polyfuse export"):
        predictor.export(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="holds an export"):
        predictor.export(folder)
    with pytest.raises(InputError, match="int8 weights are for ONNX"):
        predictor.export(tmp_path / "new", to="torch", int8=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_int8_weights_are_smaller_and_near(predictor: pf.Predictor, folder: Path, tmp_path: Path, rows: Path) -> None:
    report = predictor.export(tmp_path / "small", int8=True, check=rows)
    assert report.difference is not None
    assert 0 < report.difference.largest < 0.25
    graph = (tmp_path / "small" / "model.onnx").read_bytes()
    assert b"MatMulInteger" in graph
    assert b"MatMulInteger" not in (folder / "model.onnx").read_bytes()


def test_a_folder_for_the_hub_is_read_back_and_its_card_is_valid(
    predictor: pf.Predictor, rows: Path, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard, metadata_load

    report = predictor.export(tmp_path / "my model", to="hub", license="apache-2.0")
    assert {"README.md", "artifact.json", "config.json", "weights.safetensors"} <= set(report.files)
    again = pf.load(tmp_path / "my model")
    row = {"note": "a cat", "size": 1, "kind": "x", "day": None}
    assert again.predict_proba(row).to_numpy() == pytest.approx(predictor.predict_proba(row).to_numpy(), abs=1e-6)
    card = ModelCard.load(tmp_path / "my model" / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "apache-2.0",
        "polyfuse",
        "tabular-classification",
    )
    measured = predictor.metrics["validation"]["metrics"]
    found = {result.metric_name: result.metric_value for result in card.data.eval_results or []}
    assert found == {name: one["value"] for name, one in measured.items() if one["value"] is not None}
    (index,) = metadata_load(tmp_path / "my model" / "README.md")["model-index"]
    assert index["name"] == "my-model"
    config = json.loads((tmp_path / "my model" / "config.json").read_text())
    assert config["targets"] == {"answer": {"task": "classification", "labels": ["both", "none", "one"]}}
    assert config["modalities"]["table"]["columns"] == {"size": "number", "kind": "category", "day": "datetime"}
    with pytest.raises(InputError, match="int8=True is for graphs"):
        predictor.export(tmp_path / "other", to="hub", int8=True)
    with pytest.raises(InputError, match="license='mit' is for the hub"):
        predictor.export(tmp_path / "other", license="mit")


def test_the_command(predictor: pf.Predictor, rows: Path, tmp_path: Path) -> None:
    predictor.save(tmp_path / "run")
    said, _ = polyfuse("export", "run", "--check", rows, "--json", cwd=tmp_path)
    report: dict[str, Any] = json.loads(said)
    assert report["difference"]["largest"] < 1e-4
    assert report["files"]["model.onnx"] == (tmp_path / "run-onnx" / "model.onnx").stat().st_size
    _, told = polyfuse("export", "run", "--check", rows, cwd=tmp_path, code=2)
    assert "holds an export" in told
