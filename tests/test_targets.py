"""Several targets in one model, end to end: fitted, found, saved, told, with answers missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core.errors import DataError, InputError, RecipeError
from polyfuse.ensemble import Ensemble
from polyfuse.heads.several import SeveralHead
from polyfuse.learners.several import SeveralLearner

BOTH = ["kind", "price"]
QUICK = {"epochs": 60, "learning_rate": 3e-3, "patience": 60}
FAST = {"name": "auto", "candidates": ["linear", "boosting", "concat"], "folds": 3}


def sales(rows: int = 240, seed: int = 0, missing: float = 0.0) -> pd.DataFrame:
    """A table in which one number says the kind and another the price, a category a little of both."""
    random = np.random.default_rng(seed)
    size, age = random.normal(size=rows), random.normal(size=rows)
    shop = random.choice(["north", "south"], rows)
    kind = np.where(size + 0.5 * (shop == "north") + random.normal(0, 0.2, rows) > 0.2, "coat", "boot").astype(object)
    price = (100 + 20 * age + 5 * (shop == "north") + random.normal(0, 2, rows)).astype(object)
    without_kind, without_price = random.random((2, rows)) < missing
    kind[without_kind] = None
    price[without_price & ~without_kind] = None
    index = pd.Index([f"row {i}" for i in range(rows)])
    return pd.DataFrame({"size": size, "age": age, "shop": shop, "kind": kind, "price": price}, index=index)


@pytest.fixture(scope="module")
def fitted() -> pf.Predictor:
    return pf.Predictor(BOTH, fusion="concat", training=QUICK).fit(sales(), progress=False)


def good(report: pf.Report) -> None:
    assert report["kind:accuracy"] > 0.85
    assert report["price:r2"] > 0.7
    assert report["relative_loss"] < 0.6


def test_both_are_learned_and_answered(fitted: pf.Predictor) -> None:
    test = sales(100, seed=1)
    answers = fitted.predict(test)
    assert isinstance(answers, pd.DataFrame)
    assert answers.columns.tolist() == BOTH
    assert answers.index.equals(test.index)
    assert set(answers["kind"]) <= {"boot", "coat"}
    assert answers["price"].dtype == np.float64
    proba = fitted.predict_proba(test)
    assert proba.columns.tolist() == [("kind", "boot"), ("kind", "coat")]
    assert proba.index.equals(test.index)
    np.testing.assert_allclose(proba["kind"].sum(axis=1), 1, rtol=1e-6)
    assert (proba["kind"].idxmax(axis=1) == answers["kind"]).all()
    report = fitted.evaluate(test)
    good(report)
    assert report["kind:accuracy"] == pytest.approx((answers["kind"] == test["kind"]).mean())
    assert report.baseline["relative_loss"] == pytest.approx(1, abs=0.15)
    assert report.of("price").task == "regression"
    one = fitted.predict(test.iloc[3].drop(BOTH).to_dict())
    assert one["kind"].tolist() == [answers["kind"].iloc[3]]
    assert fitted.predict(test[:0]).shape == (0, 2)
    assert fitted.metrics["validation"]["parts"][0]["target"] == "kind"
    assert set(fitted.metrics["training"]["loss_weights"]) == set(BOTH)
    assert fitted.metrics["training"]["metric"] == "relative_loss"


def test_answers_do_not_depend_on_the_targets_that_stand_beside(fitted: pf.Predictor) -> None:
    test = sales(30, seed=2)
    expected = fitted.predict_proba(test)
    pd.testing.assert_frame_equal(fitted.predict_proba(test.drop(columns=BOTH)), expected)
    pd.testing.assert_frame_equal(fitted.predict_proba(test.assign(kind="?", price=-1.0)), expected)


def test_saved_and_loaded_it_answers_alike(fitted: pf.Predictor, tmp_path: Path) -> None:
    test = sales(20, seed=3)
    again = pf.load(fitted.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(again.predict(test), fitted.predict(test))
    assert again.recipe.as_data() == fitted.recipe.as_data()
    assert isinstance(again.model.head, SeveralHead)
    assert isinstance(fitted.model.head, SeveralHead)
    assert again.model.head.weighs() == pytest.approx(fitted.model.head.weighs())
    document = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8"))
    assert document["target"] == BOTH
    assert document["task"] == {"kind": "classification", "price": "regression"}
    assert document["head"] == {"name": "several", "heads": {"kind": "classification", "price": "regression"}}
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "Predicts `kind` and `price`" in card
    assert "kind, price: classification, regression" in card
    assert "| price:rmse |" in card
    repeated = pf.Predictor(recipe=tmp_path / "run" / "recipe.yaml").fit(sales(), progress=False)
    pd.testing.assert_frame_equal(repeated.predict(test), fitted.predict(test))


@pytest.mark.parametrize("fusion", ["concat", "late", "linear"])
def test_rows_with_some_of_the_targets_teach_those(fusion: str) -> None:
    table = sales(missing=0.3)
    assert table["kind"].isna().sum() > 40 < table["price"].isna().sum()
    assert not (table["kind"].isna() & table["price"].isna()).any()
    predictor = pf.Predictor(BOTH, fusion=fusion, training=QUICK).fit(table, progress=False)
    test = sales(100, seed=1)
    good(predictor.evaluate(test))
    # What a missing cell holds is nothing, however that is written.
    other = table.copy()
    other["kind"] = [" " if cell is None else cell for cell in table["kind"]]
    other["price"] = [float("nan") if cell is None else str(cell) for cell in table["price"]]
    again = pf.Predictor(BOTH, fusion=fusion, training=QUICK, task={"price": "regression"}).fit(other, progress=False)
    pd.testing.assert_frame_equal(again.predict(test), predictor.predict(test))
    partly = predictor.evaluate(sales(80, seed=4, missing=0.4))
    assert partly.of("kind").rows < 80 > partly.of("price").rows
    assert partly.rows == 80
    assert any("rows have it" in note for note in predictor.metrics["training"]["notes"])


def test_a_table_with_one_of_the_targets_is_measured_by_that(fitted: pf.Predictor) -> None:
    report = fitted.evaluate(sales(50, seed=5).drop(columns="kind"))
    assert report["price:r2"] > 0.8
    assert np.isnan(report["kind:accuracy"])
    with pytest.raises(InputError, match="nor another of the targets"):
        fitted.evaluate(sales(50).drop(columns=BOTH))


def test_the_best_way_is_found_for_all_of_them(tmp_path: Path) -> None:
    predictor = pf.Predictor(BOTH, preset="fast", fusion=FAST)
    predictor.fit(sales(missing=0.3), out=tmp_path / "run", progress=False)
    found = predictor.metrics["comparison"]
    assert found["metric"] == "relative_loss"
    assert {line["candidate"] for line in found["candidates"]} == {"linear", "boosting", "concat"}
    assert all(line["folds"] == 3 or line["note"] for line in found["candidates"])
    validation = predictor.metrics["validation"]
    assert [part["target"] for part in validation["parts"]] == BOTH
    assert validation["metrics"]["relative_loss"]["value"] < 0.6
    json.dumps(predictor.metrics, allow_nan=False)
    test = sales(100, seed=1)
    good(predictor.evaluate(test))
    pd.testing.assert_frame_equal(pf.load(tmp_path / "run").predict(test), predictor.predict(test))


def test_an_ensemble_is_the_mean_of_its_members_for_each_target(tmp_path: Path) -> None:
    members = [{"combine": "linear", "weight": 1}, {"combine": "boosting", "weight": 3}, {"combine": "concat"}]
    plain: dict[str, Any] = {"calibration": "none"}  # which is of each model its own
    fusion = {"name": "ensemble", "members": members[:2]}
    both = pf.Predictor(BOTH, fusion=fusion, **plain).fit(sales(120), progress=False)
    assert isinstance(both.model, Ensemble)
    assert all(isinstance(member.model, SeveralLearner) for member in both.model.members)
    single = [
        pf.Predictor(BOTH, fusion=name, **plain).fit(sales(120), progress=False) for name in ("linear", "boosting")
    ]
    test = sales(20, seed=3)
    one, other = (predictor.predict_proba(test) for predictor in single)
    pd.testing.assert_frame_equal(both.predict_proba(test), 0.25 * one + 0.75 * other, atol=1e-6)
    # A learner's answer for one target is what it answers where it is the only one.
    alone = pf.Predictor("price", fusion="linear", columns={"kind": "ignore"}).fit(sales(120), progress=False)
    # (Other folds chose its strengths.)
    np.testing.assert_allclose(single[0].predict(test)["price"], alone.predict(test), rtol=0.06)
    every = pf.Predictor(BOTH, fusion={"name": "ensemble", "members": members}, training={"epochs": 2})
    every.fit(sales(80), out=tmp_path / "run", progress=False)
    again = pf.load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.predict_proba(test), every.predict_proba(test), atol=1e-5)


def test_encoders_that_are_trained_take_part(tiny_model: Callable[[str], str], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = sales(80, missing=0.2)
    table["photo"] = [random.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(80)]
    table["note"] = [f"one {random.choice(['cat', 'dog'])} in the house number {i}" for i in range(80)]
    text = {"name": "transformer", "checkpoint": tiny_model("bert")}
    modalities = {
        "image": {"columns": ["photo"], "encoder": {"name": "convnet", "width": 4}},
        "text": {"columns": ["note"], "encoder": text},
        "table": {"columns": ["size", "age", "shop"]},
    }
    fusion = {"name": "auto", "candidates": ["linear", "concat"]}
    known = {name: modalities[name] for name in ("text", "table")}
    for given, settings in ((modalities, {}), (known, {"folds": 2})):
        predictor = pf.Predictor(
            BOTH, modalities=given, preset="best", fusion={**fusion, **settings}, training={"epochs": 2}
        )
        predictor.fit(table, out=tmp_path / str(len(given)), progress=False)
        assert "trained as a whole" in predictor.metrics["comparison"]["reason"]
        again = pf.load(tmp_path / str(len(given)))
        pd.testing.assert_frame_equal(again.predict_proba(table), predictor.predict_proba(table), atol=1e-5)


def test_a_target_of_weight_0_is_left_out_of_the_loss() -> None:
    head = {"name": "several", "weights": {"price": 0}}
    settings: dict[str, Any] = {"fusion": "concat", "training": {**QUICK, "metric": "kind:log_loss"}}
    predictor = pf.Predictor(BOTH, head=head, **settings).fit(sales(), progress=False)
    report = predictor.evaluate(sales(100, seed=1))
    assert report["kind:accuracy"] > 0.85
    assert report["price:r2"] < 0.3
    assert predictor.metrics["training"]["metric"] == "kind:log_loss"
    assert predictor.metrics["training"]["loss_weights"] == {"kind": 1.0, "price": 0.0}
    assert "validation_kind:log_loss" in predictor.metrics["training"]["history"][0]


def test_mixup_balanced_classes_and_a_metric_of_one_target() -> None:
    head = {"name": "several", "heads": {"kind": {"name": "classification", "class_weights": "balanced"}}}
    training = {**QUICK, "mixup": 0.4}
    mixed = pf.Predictor(BOTH, fusion="concat", head=head, training=training).fit(sales(missing=0.3), progress=False)
    assert mixed.evaluate(sales(100, seed=1))["kind:accuracy"] > 0.8
    found = pf.Predictor(BOTH, fusion=FAST, head=head, training={"metric": "price:rmse"})
    found.fit(sales(120, missing=0.3), progress=False)
    assert found.metrics["comparison"]["metric"] == "price:rmse"
    learned = pf.Predictor(BOTH, fusion="linear", head=head).fit(sales(120, missing=0.3), progress=False)
    plain = pf.Predictor(BOTH, fusion="linear").fit(sales(120, missing=0.3), progress=False)
    test = sales(50, seed=1)
    assert not np.allclose(learned.predict_proba(test), plain.predict_proba(test))
    np.testing.assert_allclose(learned.predict(test)["price"], plain.predict(test)["price"])


def test_three_targets_with_labels() -> None:
    table = sales(160)
    table["tags"] = [
        [shop, *(["old"] if age > 0 else [])] for shop, age in zip(table["shop"], table["age"], strict=True)
    ]
    predictor = pf.Predictor([*BOTH, "tags"], fusion="concat", training=QUICK).fit(table, progress=False)
    answers = predictor.predict(table)
    assert isinstance(answers["tags"].iloc[0], list)
    assert predictor.predict_proba(table)["tags"].columns.tolist() == ["north", "old", "south"]
    assert predictor.evaluate(table)["tags:multilabel_f1_micro"] > 0.8


def test_a_row_with_nothing_gets_the_priors(fitted: pf.Predictor) -> None:
    test = sales(3, seed=4).astype(object)
    test.iloc[1, :3] = None
    with pytest.warns(UserWarning, match="training prior"):
        answers = fitted.answer(test)
    parts = fitted.schema.target.parts
    np.testing.assert_allclose(answers.scores.iloc[1], parts[0].frequencies, rtol=1e-6)
    assert answers.labels["price"].iloc[1] == pytest.approx(parts[1].mean)


def test_regressions_have_no_probabilities() -> None:
    table = sales(60)
    predictor = pf.Predictor(["price", "age"], fusion="linear", columns={"kind": "ignore"})
    predictor.fit(table, progress=False)
    assert predictor.predict(table).columns.tolist() == ["price", "age"]
    with pytest.raises(InputError, match="no probabilities"):
        predictor.predict_proba(table)
    assert predictor.answer(table).scores.shape == (60, 0)


@pytest.mark.parametrize(
    ("target", "settings", "told"),
    [
        (["kind", "kind"], {}, "'kind' is named twice"),
        (["kind", "prise"], {}, "did you mean 'price'"),
        (BOTH, {"modalities": {"table": {"columns": ["size", "price"]}}}, "'price' is a target"),
        (BOTH, {"head": "regression"}, r"several \(kind, price\); say head: {name: several, heads: {kind: …}}"),
        ("kind", {"head": "several"}, "head: 'several' answers several, and the task is classification"),
        (BOTH, {"head": {"name": "several", "heads": {"kind": "regression"}}}, "and the task of 'kind' is classif"),
        (BOTH, {"head": {"name": "several", "heads": {"kin": "classification"}}}, "did you mean 'kind'"),
        (BOTH, {"head": {"name": "several", "weights": {"prise": 1}}}, "head.weights: 'prise' is not among"),
        (BOTH, {"training": {"metric": "rmse"}}, "training.metric: 'rmse' is no metric of several targets"),
        (BOTH, {"task": {"kin": "regression"}}, "task: 'kin' is not among the targets"),
    ],
)
def test_wrong_calls_are_told_before_any_work(target: Any, settings: Any, told: str) -> None:
    with pytest.raises((RecipeError, InputError), match=told):
        pf.Predictor(target, **settings).plan(sales(40))


def test_wrong_labels_are_told_by_their_column(fitted: pf.Predictor) -> None:
    with pytest.raises(DataError, match=r"column 'kind': the label is not among .* 'hat'"):
        fitted.evaluate(sales(20).assign(kind="hat"))


def test_on_the_command_line(tmp_path: Path) -> None:
    sales(missing=0.2).to_csv(tmp_path / "train.csv", index=False)
    sales(40, seed=1).to_csv(tmp_path / "test.csv", index=False)
    settings = ("--set", "fusion=concat", "--set", "training.epochs=20", "--set", "training.learning_rate=0.01")
    out, told = polyfuse("fit", "train.csv", "-t", "kind", "-t", "price", "--out", "run", *settings, cwd=tmp_path)
    assert "kind: classification (2 labels), 240 rows" in told
    assert "price: regression (mean" in told
    assert "regression of 'price' on" in out
    assert "Loss weights" in polyfuse("info", "run", cwd=tmp_path)[0]
    polyfuse("predict", "run", "test.csv", "--proba", "--out", "p.csv", cwd=tmp_path)
    found = pd.read_csv(tmp_path / "p.csv")
    assert found.columns.tolist() == ["kind", "price", "p:kind:boot", "p:kind:coat", "nothing_present"]
    expected = pf.load(tmp_path / "run").predict(tmp_path / "test.csv")
    assert found["kind"].tolist() == expected["kind"].tolist()
    np.testing.assert_allclose(found["price"], expected["price"])
    out, _ = polyfuse("evaluate", "run", "test.csv", "--json", "--html", "r.html", cwd=tmp_path)
    report = json.loads(out)
    assert report["metrics"]["kind:accuracy"]["value"] > 0.7
    assert [part["task"] for part in report["parts"]] == ["classification", "regression"]
    assert (tmp_path / "r.html").read_text(encoding="utf-8").count("<section>") == 2
