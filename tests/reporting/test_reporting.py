"""The report: every figure of the page is in the document, nothing is loaded, and what is missing is said."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core.errors import InputError
from polyfuse.evaluation.report import number_text
from polyfuse.reporting import ModelReport

BAD = '<script>alert("x")</script>'


def table(rows: int, seed: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    y = drawn.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "size": y + drawn.normal(0, 0.7, rows),
            "noise": drawn.normal(0, 1, rows),
            BAD: drawn.choice(["a", "b"], rows),
            "y": np.array(["no", BAD])[y],
        }
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    table(400, 0).to_csv(folder / "train.csv", index=False)
    table(300, 1).to_csv(folder / "test.csv", index=False)
    modalities = {
        "main": {"columns": ["size", BAD], "encoder": "mlp"},
        "other": {"columns": ["noise"], "encoder": "mlp"},
    }
    settings: dict[str, Any] = {"modalities": modalities, "fusion": "concat", "training": {"epochs": 4}}
    predictor = pf.Predictor("y", **settings, augmentation="none").fit(folder / "train.csv", progress=False)
    predictor.save(folder / "run")
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> ModelReport:
    return pf.load(place / "run").report(place / "test.csv", fast=True, progress=False)


class _Cells(HTMLParser):
    """Collects the texts of cells, and what elements would load."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag == "td"
        if self._inside:
            self.cells.append("")
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside or (self.cells and self.tags[-1] in ("b", "strong")):
            self.cells[-1] += data


def numbers(value: Any) -> set[str]:
    """Return every number of a document as the page writes it."""
    if isinstance(value, dict):
        return {text for inner in value.values() for text in numbers(inner)}
    if isinstance(value, list):
        return {text for inner in value for text in numbers(inner)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {number_text(float(value)), f"{value:.2g}", f"{value:,}", f"{value:.0%}", f"{value:.1%}"}
    return set()


def test_every_figure_of_the_page_is_in_the_document(report: ModelReport) -> None:
    document = json.loads(report.to_json())
    known = numbers(document)
    parser = _Cells()
    parser.feed(report.to_html())
    found = {text for cell in parser.cells for text in re.findall(r"-?\d[\d,.]*(?:e[+-]\d+)?%?", cell)}
    assert len(found) > 30
    assert found <= known, found - known


def test_nothing_is_loaded_and_nothing_is_run(report: ModelReport) -> None:
    html = report.to_html()
    parser = _Cells()
    parser.feed(html)
    assert all(address.startswith(("#", "data:")) for address in parser.loaded)
    assert not {"script", "iframe", "object", "embed", "link"} & set(parser.tags)
    assert BAD not in html
    assert "url(" not in html
    assert len(html.encode()) < 5 << 20


def test_the_document_is_strict_and_says_what_it_is_about(report: ModelReport) -> None:
    document = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["format"] == 1
    assert document["about"]["rows"] == 300
    assert document["about"]["modalities"] == {"main": ["size", BAD], "other": ["noise"]}
    assert set(document["sections"]) | set(document["left_out"]) >= {"accuracy", "slices", "modalities", "robustness"}


def test_accuracy_is_that_of_evaluate(place: Path, report: ModelReport) -> None:
    found = json.loads(report.to_json())["sections"]["accuracy"]["report"]["metrics"]["accuracy"]["value"]
    assert found == pf.load(place / "run").evaluate(place / "test.csv", progress=False)["accuracy"]


def test_what_is_missing_follows_from_the_subsets(report: ModelReport) -> None:
    sections = json.loads(report.to_json())["sections"]
    assert sections["robustness"]["without"]["main"] == sections["modalities"]["subsets"]["other"]
    assert sections["robustness"]["whole"] == sections["modalities"]["subsets"]["main + other"]


def test_the_command_writes_both_files_with_what_was_found_elsewhere(place: Path) -> None:
    stress, _ = polyfuse("stress", "run", "test.csv", "--fast", "--rows", "60", "--json", cwd=place)
    (place / "stress.json").write_text(stress)
    options = ["--fast", "--stress", "stress.json", "-o", "out", "--train", "train.csv"]
    polyfuse("report", "run", "test.csv", *options, cwd=place)
    document = json.loads((place / "out" / "report.json").read_text())
    assert document["sections"]["robustness"]["stress"] == json.loads(stress)
    assert set(document["sections"]["accuracy"]["baselines"]) >= {"late fusion", "main alone", "other alone"}
    behind = document["sections"]["accuracy"]["baselines"]["other alone"]["behind"]
    assert behind["low"] > 0
    html = (place / "out" / "report.html").read_text()
    assert "polyfuse attack run test.csv" in html
    assert "polyfuse stress run" not in html


def test_a_file_of_something_else_is_refused_before_any_work(place: Path) -> None:
    with pytest.raises(InputError, match="is not what  polyfuse attack"):
        pf.load(place / "run").report(place / "test.csv", attack=place / "test.csv", progress=False)


def test_a_time_limit_leaves_sections_out_and_says_so(place: Path) -> None:
    found = pf.load(place / "run").report(place / "test.csv", time_limit=1e-6, progress=False)
    assert not found.parts
    assert all("--time-limit" in why for why in found.left_out.values())
    assert "--time-limit" in found.to_html()


def test_a_single_modality_and_a_regression(tmp_path: Path) -> None:
    frame = table(300, 2)[["size", "noise"]].assign(y=lambda some: 2 * some["size"] + 1)
    predictor = pf.Predictor("y", fusion="concat", training={"epochs": 3}, augmentation="none")
    found = predictor.fit(frame, progress=False).report(frame, fast=True, progress=False)
    assert "gives all there is" in found.left_out["modalities"]
    document = json.loads(found.to_json())
    assert len(document["sections"]["accuracy"]["curves"]["residuals"]) == 300
    assert math.isfinite(document["sections"]["interventions"]["effects"][0]["contrast"]["caused"]["value"])
    assert "Residuals" in found.to_html(tmp_path / "report.html")


def test_an_interruption_keeps_what_was_measured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("polyfuse.reporting.gathering.contributions", interrupted)
    found = pf.load(place / "run").report(place / "test.csv", fast=True, progress=False)
    assert "accuracy" in found.parts
    assert found.left_out["modalities"] == "it was interrupted"
    assert "data" in found.left_out


@pytest.mark.parametrize("kind", ["several", "multilabel"])
def test_other_targets(kind: str) -> None:
    frame = table(260, 3)[["size", "noise", "y"]]
    frame["z"] = frame["size"] + 1 if kind == "several" else [["a", "b"][: 1 + (x > 0)] for x in frame["size"]]
    target = ["y", "z"] if kind == "several" else "z"
    frame = frame if kind == "several" else frame.drop(columns="y")
    modalities = {name: {"columns": [name], "encoder": "mlp"} for name in ("size", "noise")}
    settings: dict[str, Any] = {"modalities": modalities, "fusion": "concat", "training": {"epochs": 2}}
    predictor = pf.Predictor(target, **settings, augmentation="none").fit(frame, progress=False)
    found = predictor.report(frame, fast=True, progress=False)
    assert {"accuracy", "robustness", "data"} <= set(found.parts)
    json.loads(found.to_json())
    assert "<h1>" in found.to_html()
    assert all("several targets" in why for name, why in found.left_out.items() if name in ("slices", "modalities"))


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(place: Path) -> None:
    _, said = polyfuse("report", "run", "test.csv", "-o", "test.csv", cwd=place, code=2)
    assert "is a file" in said


def test_a_model_that_was_found_tells_how() -> None:
    frame = table(200, 4)[["size", "noise", "y"]]
    modalities = {name: {"columns": [name], "encoder": "mlp"} for name in ("size", "noise")}
    fusion = {"name": "auto", "candidates": ["linear"], "folds": 2}
    predictor = pf.Predictor("y", modalities=modalities, fusion=fusion, augmentation="none")
    found = predictor.fit(frame, progress=False).report(frame, fast=True, time_limit=3600, progress=False)
    document = json.loads(found.to_json())
    assert document["sections"]["accuracy"]["comparison"] == predictor.metrics["comparison"]
    html = found.to_html()
    assert "How it was found" in html
    assert "linear (taken)" in html
