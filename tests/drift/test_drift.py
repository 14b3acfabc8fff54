"""What drift sees of tables whose shift was planted, and of tables without one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.core.errors import InputError
from polyfuse.drift import DriftReport

QUICK: dict[str, Any] = {"epochs": 2, "trackers": []}


def table(rows: int, seed: int, **plant: float) -> pd.DataFrame:
    """Return numbers, a category, a text and their label; what is planted moves one of them."""
    drawn = np.random.default_rng(seed)
    y = drawn.integers(0, 2, rows)
    size = drawn.normal(size=rows) + 2 * y + plant.get("size", 0.0)
    weight = np.where(drawn.random(rows) < plant.get("missing", 0.1), np.nan, drawn.normal(size=rows))
    share = plant.get("colour", 0.3)
    colour = drawn.choice(["red", "green", "blue"], rows, p=[share, 0.6 - share / 2, 0.4 - share / 2])
    if "unknown" in plant:
        colour = np.where(drawn.random(rows) < plant["unknown"], "pink", colour)
    words = [" ".join(drawn.choice(["one", "two", "cat", "dog"], n)) for n in drawn.integers(3, 9, rows)]
    text = [word * 3 if drawn.random() < plant.get("long", 0.0) else word for word in words]
    label = np.where(drawn.random(rows) < plant.get("wrong", 0.0), 1 - y, y)
    found = {"size": size, "weight": weight, "colour": colour, "text": text, "y": np.array(["no", "yes"])[label]}
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def predictor(tiny_model: Any) -> pf.Predictor:
    modalities = {
        "text": {"columns": ["text"], "encoder": {"name": "transformer", "checkpoint": tiny_model("bert")}},
        "table": {"columns": ["size", "weight", "colour"]},
    }
    columns = {"text": "text"}
    settings: dict[str, Any] = {"fusion": "concat", "training": QUICK, "data": {"validation_share": 0.5}}
    made = pf.Predictor("y", modalities=modalities, columns=columns, **settings)
    return made.fit(table(800, 0), progress=False)


def looked(predictor: pf.Predictor, new: pd.DataFrame, **options: Any) -> DriftReport:
    return predictor.drift(new, progress=False, **options)


def test_nothing_is_found_where_nothing_moved(predictor: pf.Predictor) -> None:
    report = looked(predictor, table(400, 1))
    assert not report.found
    assert (report.rows, report.reference) == (400, 400)
    assert "No drift was found" in str(report)
    names = {"size: values", "weight: missing", "colour: levels", "text: length", "text: features", "table: told apart"}
    assert names | {"y: answers", "y: confidence", "y: truth", "y: error"} <= set(report)


@pytest.mark.parametrize(
    ("plant", "title"),
    [
        ({"size": 0.6}, "size: values"),
        ({"missing": 0.3}, "weight: missing"),
        ({"colour": 0.6}, "colour: levels"),
        ({"unknown": 0.2}, "colour: levels"),
        ({"long": 0.5}, "text: length"),
        ({"long": 0.5}, "text: features"),
        ({"wrong": 0.4}, "y: error"),
    ],
)
def test_a_planted_shift_is_found_where_it_was_planted(
    predictor: pf.Predictor, plant: dict[str, float], title: str
) -> None:
    report = looked(predictor, table(400, 2, **plant))
    assert report.found
    assert report[title] <= 0.05
    untouched = {"size: values", "weight: values", "text: length"} - {title}
    assert all(report[name] > 0.05 for name in untouched if not (name == "text: length" and "long" in plant))
    assert report.drifted[0].name in str(report)


def test_effects_are_in_their_units(predictor: pf.Predictor) -> None:
    report = looked(predictor, table(2000, 3, missing=0.4, unknown=0.3))
    shifts = {shift.title: shift for shift in report.shifts}
    assert shifts["weight: missing"].effect == pytest.approx(0.3, abs=0.06)
    assert shifts["colour: levels"].effect == pytest.approx(0.3, abs=0.08)
    assert "not known from training" in shifts["colour: levels"].note
    bars = shifts["colour: levels"].bars
    assert bars is not None
    assert sum(bars.after) == pytest.approx(1)


def test_a_column_that_is_gone_has_drifted(predictor: pf.Predictor) -> None:
    with pytest.warns(UserWarning, match="lacks the columns"):
        report = looked(predictor, table(100, 4).drop(columns=["text", "y"]))
    assert report["text: missing"] <= 0.05
    assert "text" in report.left_out
    assert "y: error" not in report
    assert report.performance[0].measured is None


def test_what_is_ignored_is_not_compared(predictor: pf.Predictor) -> None:
    new = table(400, 5, long=0.7)
    assert looked(predictor, new).found
    report = looked(predictor, new, ignore=["text"])
    assert not any(name.startswith("text") for name in report)
    moved = table(400, 5, missing=0.9)
    assert looked(predictor, moved)["table: features"] <= 0.05
    assert looked(predictor, moved, ignore=["weight"])["table: features"] > 0.05
    with pytest.raises(InputError, match="reads no column 'txt'; did you mean 'text'"):
        looked(predictor, new, ignore=["txt"])


def test_another_reference_takes_the_place_of_the_kept_one(predictor: pf.Predictor) -> None:
    moved = table(300, 6, size=1.0)
    assert looked(predictor, moved).found
    assert not looked(predictor, moved, reference=table(300, 7, size=1.0)).found


def test_alpha_is_what_is_compared_with(predictor: pf.Predictor) -> None:
    new = table(400, 8)
    strict, lax = (looked(predictor, new, alpha=alpha) for alpha in (0.001, 0.999))
    assert not strict.found
    assert lax.found
    assert strict.to_json() != lax.to_json()
    with pytest.raises(InputError, match="a rate of false alarms"):
        looked(predictor, new, alpha=0)


def test_the_same_seed_gives_the_same_report(predictor: pf.Predictor) -> None:
    new = table(2200, 9)
    first, second = (looked(predictor, new, seed=4, rows=500) for _ in range(2))
    assert dict(first) == dict(second)
    assert (first.rows, first.given) == (500, 2200)
    assert dict(looked(predictor, new, seed=5, rows=500)) != dict(first)


def test_too_few_rows_are_refused(predictor: pf.Predictor) -> None:
    with pytest.raises(InputError, match="the new table has 29 rows, and it takes 30"):
        looked(predictor, table(29, 0))
    with pytest.raises(InputError, match="give 30 or more"):
        looked(predictor, table(100, 0), rows=10)


def test_labels_that_cannot_be_read_do_not_stand_in_the_way(predictor: pf.Predictor) -> None:
    new = table(100, 10)
    new.loc[3, "y"] = "perhaps"
    report = looked(predictor, new)
    assert "y: truth" not in report
    assert report.performance[0].measured is None


def test_json_and_the_page_say_what_the_report_says(predictor: pf.Predictor) -> None:
    report = looked(predictor, table(400, 11, size=1.0))
    document = json.loads(report.to_json())
    assert document["found"] is True
    assert {shift["name"] for shift in document["shifts"] if shift["found"]} >= {"size"}
    page = report.to_html()
    assert page.index("Drift was found") < page.index("size: values")
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page


def test_names_from_the_data_cannot_write_into_the_page() -> None:
    drawn = np.random.default_rng(0)

    def wild(rows: int, shift: float) -> pd.DataFrame:
        level = np.where(drawn.random(rows) < 0.5 + shift, "<script>x</script>", "plain")
        return pd.DataFrame({"<b>a": level, "c": drawn.normal(size=rows), "y": drawn.integers(0, 2, rows)})

    made = pf.Predictor("y", fusion="linear", columns={"<b>a": "category"}).fit(wild(200, 0.0), progress=False)
    page = made.drift(wild(200, 0.4), progress=False).to_html()
    assert "<script>" not in page
    assert "<b>a" not in page


@pytest.mark.parametrize("task", ["regression", "several", "multilabel"])
def test_other_tasks(task: str) -> None:
    drawn = np.random.default_rng(0)

    def other(rows: int, shift: float = 0.0) -> pd.DataFrame:
        x = drawn.normal(size=rows) + shift
        price = 3 * x + drawn.normal(size=rows)
        kinds = [["up"] * int(a > 0) + ["far"] * int(abs(a) > 1) for a in x]
        return pd.DataFrame({"x": x, "z": drawn.normal(size=rows), "price": price, "high": x > 0, "kinds": kinds})

    target: Any = {"regression": "price", "several": ["price", "high"], "multilabel": "kinds"}[task]
    data = {
        name: other(rows, shift) for name, rows, shift in (("train", 600, 0.0), ("same", 300, 0.0), ("moved", 300, 1.0))
    }
    left = [name for name in ("price", "high", "kinds") if name not in target]
    made = pf.Predictor(target, fusion="linear", columns=dict.fromkeys(left, "ignore"))
    made.fit(data["train"], progress=False)
    same, moved = (made.drift(data[name], progress=False) for name in ("same", "moved"))
    assert not same.found
    names = {"regression": ["price"], "several": ["price", "high"], "multilabel": ["kinds"]}[task]
    for name in names:
        assert moved[f"{name}: answers"] <= 0.05
        assert moved[f"{name}: truth"] <= 0.05
    assert [each.target for each in moved.performance] == names
    assert all(each.expected is not None and each.measured is not None for each in moved.performance)
