from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from polyfuse.core.errors import InputError
from polyfuse.data.schema import Target
from polyfuse.evaluation import Report, evaluate
from polyfuse.metrics import METRICS

HOSTILE = "<script>alert(\"x\")</script> & 'co'"
FIVE = ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"]


def classification(rows: int = 60, labels: int = 3, name: str = "kind") -> Report:
    random = np.random.default_rng(0)
    y_true = random.integers(0, labels, size=rows)
    y_score = (random.random((rows, labels)) + np.eye(labels)[y_true]).astype(np.float32)
    y_score /= y_score.sum(axis=1, keepdims=True)
    levels = [f"{name}{code}" for code in range(labels)]
    target = Target(name=name, task="classification", levels=levels, frequencies=[1 / labels] * labels)
    prior = np.full(labels, 1 / labels)
    return evaluate(y_true, y_score, prior, target, FIVE, present={"image": 0.9, name: 1.0}, resamples=50)


def regression(rows: int = 60) -> Report:
    random = np.random.default_rng(0)
    y_true = random.normal(50, 10, size=rows)
    target = Target(name="price", task="regression", mean=50.0, std=10.0)
    score = y_true + random.normal(size=rows)
    return evaluate(y_true, score, np.array(50.0), target, ["rmse", "mae", "r2", "spearman"], resamples=50)


def multilabel() -> Report:
    random = np.random.default_rng(0)
    y_true = random.integers(0, 2, size=(40, 3))
    target = Target(name="tags", task="multilabel", levels=["a", "b", "c"], frequencies=[0.5, 0.5, 0.5])
    names = [name for name, metric in METRICS.items() if "multilabel" in metric.tasks]
    return evaluate(y_true, random.random((40, 3)), np.array([0.5, 0.4, 0.5]), target, names, resamples=50)


def several(rows: int = 60, name: str = "kind", **missing: int) -> Report:
    random = np.random.default_rng(0)
    kind, price = random.integers(0, 2, rows), random.normal(50, 10, size=rows)
    target = Target.of(
        [
            Target(name=name, task="classification", levels=["a", "b"], frequencies=[0.5, 0.5]),
            Target(name="price", task="regression", mean=50.0, std=10.0),
        ]
    )
    y_true = np.column_stack([kind, price])
    y_score = np.column_stack([0.8 * (1 - kind) + 0.1, 0.8 * kind + 0.1, price + random.normal(size=rows)])
    y_true[: missing.get("kinds", 20), 0] = np.nan
    y_true[-missing.get("prices", 10) :, 1] = np.nan
    metrics = ["relative_loss", *(f"{name}:{metric}" for metric in FIVE), "price:rmse", "price:r2"]
    return evaluate(y_true, y_score, np.array([0.5, 0.5, 50.0]), target, metrics, present={"image": 0.5}, resamples=50)


REPORTS = {"several": several, "classification": classification, "regression": regression, "multilabel": multilabel}


def test_report_is_a_mapping_of_values() -> None:
    report = classification()
    assert list(report) == FIVE
    assert len(report) == 5
    assert dict(report)["accuracy"] == report["accuracy"] == report.intervals["accuracy"].value
    with pytest.raises(KeyError):
        report["rmse"]


def test_several_targets_are_measured_each_on_the_rows_that_have_it() -> None:
    report = several()
    assert list(report) == ["relative_loss", *(f"kind:{name}" for name in FIVE), "price:rmse", "price:r2"]
    kind, price = report.of("kind"), report.of("price")
    assert (report.rows, kind.rows, price.rows) == (60, 40, 50)
    assert report["kind:accuracy"] == kind["accuracy"] == 1.0
    assert report.intervals["price:rmse"] == price.intervals["rmse"]
    assert report.baseline["price:rmse"] == price.baseline["rmse"]
    # -ln 0.9 of ln 2 nats, and an error of about 1 of a deviation of 10.
    assert report["relative_loss"] == pytest.approx((-math.log(0.9) / math.log(2) + price["rmse"] / 10) / 2)
    assert report.baseline["relative_loss"] == pytest.approx(1, abs=0.15)
    assert kind.confusion is not None
    assert np.array(kind.confusion.counts).sum() == 40
    assert len(price.points) == 50
    assert report.confusion is None
    assert classification().of("kind")["accuracy"] == classification()["accuracy"]
    with pytest.raises(InputError, match="did you mean 'price'"):
        report.of("prise")
    two = Target.of([Target(name=name, task="regression") for name in "ab"])
    with pytest.raises(InputError, match=r"'accuracy' measures none of the targets; write  <target>:<metric>"):
        evaluate(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2), two, ["accuracy"])


def test_several_targets_are_told_one_after_the_other() -> None:
    report = several(name=HOSTILE)
    told = str(report).split("\n\n")
    assert len(told) == 3
    assert "on 60 rows (present: image 50%)" in told[0]
    assert "relative_loss" in told[0]
    assert "classification of" in told[1]
    assert told[2].startswith("regression of 'price' on 50 rows")
    assert "relative_loss" not in told[1]
    html = report.to_html()
    assert html.count("<section>") == 2
    assert "50 of 60 rows have it" in html
    assert "<em>&lt;script&gt;" in html
    assert "Root mean squared error" in html
    assert html.index("Loss as a share of the prior") < html.index("<section>")


def test_a_target_that_no_row_has_is_undefined() -> None:
    report = several(kinds=60)
    assert report.of("kind").rows == 0
    assert math.isnan(report["kind:accuracy"])
    assert report["relative_loss"] == pytest.approx(report["price:rmse"] / 10)
    assert Report.from_json(report.to_json()).to_json() == report.to_json()
    assert "nan" not in report.to_html()


def test_baseline_is_the_prior_on_the_same_rows() -> None:
    report = classification()
    assert report.baseline["roc_auc"] == 0.5
    assert report.baseline["log_loss"] == pytest.approx(math.log(3), rel=1e-6)
    assert regression().baseline["r2"] <= 0
    assert math.isnan(regression().baseline["spearman"])


def test_confusion_counts_every_row() -> None:
    report = classification()
    assert report.confusion is not None
    counts = np.array(report.confusion.counts)
    assert counts.sum() == report.rows == 60
    assert np.trace(counts) / 60 == pytest.approx(report["accuracy"])
    assert report.confusion.labels == ["kind0", "kind1", "kind2"]
    assert regression().confusion is None


def test_confusion_lumps_the_rarest_labels() -> None:
    y_true = np.repeat(np.arange(50), np.where(np.arange(50) < 20, 1, 3))
    target = Target(name="y", task="classification", levels=list(range(50)), frequencies=[0.02] * 50)
    report = evaluate(y_true, np.eye(50)[y_true], np.full(50, 0.02), target, ["accuracy"], resamples=5)
    assert report.confusion is not None
    assert report.confusion.labels == list(range(20, 50))
    assert report.confusion.counts[-1][-1] == 20
    assert report.confusion.names[-1] == "20 others"
    assert np.array(report.confusion.counts).sum() == len(y_true)


def test_points_of_a_regression_are_limited() -> None:
    assert len(regression(60).points) == 60
    assert len(regression(900).points) == 500


@pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS)
def test_json_is_strict_and_round_trips(make: type[Report], tmp_path: Path) -> None:
    report = make()
    path = tmp_path / "deep" / "report.json"
    text = report.to_json(path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse)["format"] == 1
    assert path.read_text(encoding="utf-8") == text
    for again in (Report.from_json(text), Report.from_json(path)):
        assert again.to_json() == text
        assert str(again) == str(report)
        assert again.to_html() == report.to_html()


def test_undefined_numbers_are_null() -> None:
    target = Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5])
    report = evaluate(np.zeros(3, int), np.full((3, 2), 0.5), np.array([0.5, 0.5]), target, ["roc_auc"], resamples=5)
    assert json.loads(report.to_json())["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert math.isnan(Report.from_json(report.to_json())["roc_auc"])
    assert "–" in str(report)
    assert "nan" not in report.to_html()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "null", '{"format": 1, "metrics": 3}'])
def test_what_is_not_a_report_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a report"):
        Report.from_json(text)


def test_missing_file_and_newer_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json is not a report"):
        Report.from_json(tmp_path / "none.json")
    newer = classification().to_json().replace('"format": 1', '"format": 2')
    with pytest.raises(InputError, match="format 2 cannot be read"):
        Report.from_json(newer)


class Tags(HTMLParser):
    """Collects tags and their attributes, and checks that they close in order."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("make", [*REPORTS.values(), lambda: classification(name=HOSTILE)])
def test_page_is_well_formed_and_loads_nothing(make: type[Report], tmp_path: Path) -> None:
    report = make()
    html = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    names = {tag for tag, _ in tags.found}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "image", "use"})
    assert all("src" not in attributes and "href" not in attributes for _, attributes in tags.found)
    assert "url(" not in html
    assert not re.search(r"https?://", html)
    for tag, attributes in tags.found:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_page_says_what_was_measured() -> None:
    report = classification(name=HOSTILE)
    html = report.to_html()
    assert "&lt;script&gt;" in html
    for name in FIVE:
        assert METRICS[name].label in html
        assert f"{report[name]:.4f}" in html
        assert f"{report.baseline[name]:.4f}" in html
    assert "90.0%" in html
    assert report._repr_html_() in html


def test_constant_regression_can_be_drawn() -> None:
    target = Target(name="y", task="regression", mean=1.0)
    report = evaluate(np.ones(4), np.ones(4), np.array(1.0), target, ["rmse", "r2"], resamples=5)
    assert "<circle" in report.to_html()


def test_text_is_a_table() -> None:
    report = classification()
    lines = str(report).splitlines()
    assert lines[0] == "classification of 'kind' on 60 rows (present: image 90%, kind 100%)"
    assert len({len(line) for line in lines[1:]}) == 1
    assert len(lines) == 7
    assert "↓" in lines[-1]


def test_wrong_calls_are_refused() -> None:
    target = Target(name="y", task="regression")
    with pytest.raises(InputError, match="no rows"):
        evaluate(np.empty(0), np.empty(0), np.array(0.0), target, ["rmse"])
    with pytest.raises(InputError, match="'accuracy' measures classification, not regression"):
        evaluate(np.ones(2), np.ones(2), np.array(0.0), target, ["accuracy"])
    with pytest.raises(InputError, match="did you mean 'rmse'"):
        evaluate(np.ones(2), np.ones(2), np.array(0.0), target, ["rsme"])
