"""Scalings do what their papers say, and find what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from calibration_tools import THREE, classes, labels
from polyfuse.calibration import Calibration, Scaling, calibrate, choose_scaling, fit_scaling
from polyfuse.calibration.scaling import LEAST, _simplest
from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array


def test_a_temperature_is_a_power_that_is_normalised() -> None:
    scores = classes(20)[1]
    scaled = Scaling("classification", "temperature", np.full(3, 1 / 2.5), np.zeros(3)).apply(scores)
    powers = scores.astype(np.float64) ** (1 / 2.5)
    np.testing.assert_allclose(scaled, powers / powers.sum(1, keepdims=True), rtol=1e-6)
    p = labels(20)[1].astype(np.float64)
    scaled = Scaling("multilabel", "temperature", np.full(3, 1 / 2.5), np.zeros(3)).apply(p)
    np.testing.assert_allclose(scaled, p**0.4 / (p**0.4 + (1 - p) ** 0.4), rtol=1e-6)


def test_a_vector_is_a_weight_and_a_bias_for_each_logit() -> None:
    weights, biases = np.array([0.5, 1.0, 2.0]), np.array([0.3, 0.0, -1.0])
    scores = classes(20)[1].astype(np.float64)
    scaled = Scaling("classification", "vector", weights, biases).apply(scores)
    np.testing.assert_allclose(scaled, softmax(weights * np.log(scores) + biases, axis=1), rtol=1e-6)
    p = labels(20)[1].astype(np.float64)
    scaled = Scaling("multilabel", "vector", weights, biases).apply(p)
    np.testing.assert_allclose(scaled, expit(weights * np.log(p / (1 - p)) + biases), rtol=1e-6)


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(planted: float) -> None:
    for task, drawn in (("classification", classes), ("multilabel", labels)):
        found = fit_scaling(task, *drawn(4000, sharp=planted), "temperature").temperature
        assert found == pytest.approx(planted, rel=0.08), task


def test_planted_biases_are_found() -> None:
    found = fit_scaling("classification", *classes(4000, sharp=2.0, bias=(1.0, 0.0, -1.0)), "vector")
    np.testing.assert_allclose(found.weights, 0.5, atol=0.06)
    np.testing.assert_allclose(found.biases, [-0.5, 0, 0.5], atol=0.12)
    found = fit_scaling("multilabel", *labels(4000, sharp=2.0, bias=1.0), "vector")
    np.testing.assert_allclose(found.weights, 0.5, atol=0.06)
    np.testing.assert_allclose(found.biases, -0.5, atol=0.12)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_what_is_fitted_is_the_least_loss_and_a_row_of_ridge(task: str) -> None:
    true, scores = {"classification": classes, "multilabel": labels}[task](200, sharp=2.0)
    p = scores.astype(np.float64)

    def loss(weights: Array, biases: Array) -> float:
        if task == "classification":
            return float(-log_softmax(weights * np.log(p) + biases, axis=1)[np.arange(200), true].mean())
        q = expit(weights * np.log(p / (1 - p)) + biases)
        return float(-np.where(true > 0, np.log(q), np.log(1 - q)).mean())

    grid = np.geomspace(0.05, 20, 4001)
    values = [loss(np.full(3, b), np.zeros(3)) + np.log(b) ** 2 / 2 / 200 for b in grid]
    found = fit_scaling(task, true, scores, "temperature")
    assert found.weights[0] == pytest.approx(grid[int(np.argmin(values))], rel=2e-3)
    other = minimize(
        lambda of: loss(of[:3], of[3:]) + (((of[:3] - 1) ** 2).sum() + (of[3:] ** 2).sum()) / 2 / 200, np.ones(6)
    ).x
    vector = fit_scaling(task, true, scores, "vector")
    np.testing.assert_allclose(np.r_[vector.weights, vector.biases], other, atol=2e-3)


probabilities = arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32))


@settings(max_examples=200)
@given(probabilities, st.floats(0.05, 20))
def test_no_temperature_turns_an_answer(given: Array, temperature: float) -> None:
    weights = np.full(3, 1 / temperature)
    scores = given / np.maximum(given.sum(1, keepdims=True), 1e-6) + np.float32(0)
    scores[given.sum(1) < 1e-6] = 1 / 3
    scaled = Scaling("classification", "temperature", weights, np.zeros(3)).apply(scores)
    np.testing.assert_array_equal(scaled.argmax(1), scores.argmax(1))
    np.testing.assert_allclose(scaled.sum(1), 1, atol=1e-5)
    assert scaled.dtype == np.float32
    scaled = Scaling("multilabel", "temperature", weights, np.zeros(3)).apply(given)
    np.testing.assert_array_equal(scaled >= 0.5, given >= 0.5)


def test_probabilities_that_rounding_would_make_equal_stay_apart() -> None:
    half = np.float32(0.5)
    scores = np.array([[np.nextafter(half, np.float32(0)), half]], dtype=np.float32)
    for temperature in (1.5, 20.0):
        weights = np.full(2, 1 / temperature)
        assert Scaling("classification", "temperature", weights, np.zeros(2)).apply(scores).argmax() == 1
        assert Scaling("multilabel", "temperature", weights, np.zeros(2)).apply(scores).tolist()[0][0] < 0.5


def test_auto_takes_what_is_needed_and_no_more() -> None:
    for task, drawn in (("classification", classes), ("multilabel", labels)):
        assert choose_scaling(task, *drawn(1000), "auto")[0].method == "none", task
        assert choose_scaling(task, *drawn(1000, sharp=3.0), "auto")[0].method == "temperature", task
    found = choose_scaling("classification", *classes(1000, bias=(1.5, 0, -1.5)), "auto")[0]
    assert found.method == "vector"
    assert "vector 0." in found.why
    assert choose_scaling("multilabel", *labels(1000, bias=1.5), "auto")[0].method == "vector"
    # A label of few rows: nothing is said of it alone.
    true, scores = classes(1000, bias=(1.5, 0, -1.5))
    rows = np.r_[np.flatnonzero(true != 2), np.flatnonzero(true == 2)[:5]]
    assert "vector" not in choose_scaling("classification", true[rows], scores[rows], "auto")[0].why


def test_a_vector_that_lowers_the_accuracy_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from polyfuse.calibration import scaling

    true, scores = classes(1000, bias=(1.5, 0, -1.5))
    right = scaling._right
    monkeypatch.setattr(scaling, "_right", lambda task, y, p: 2.0 if p is scores else right(task, y, p))
    assert choose_scaling("classification", true, scores, "auto")[0].method != "vector"
    assert choose_scaling("classification", true, scores, "vector")[0].method == "vector"


def test_the_simplest_within_a_standard_error() -> None:
    random = np.random.default_rng(0)
    least = random.normal(1, 1, 400)
    near, far = least + random.normal(0.04, 1, 400), least + random.normal(0.3, 1, 400)
    assert (near - least).mean() < (near - least).std(ddof=1) / 20 < (far - least).mean()
    assert _simplest({"none": near, "temperature": least}) == "none"
    assert _simplest({"none": far, "temperature": least}) == "temperature"
    assert _simplest({"none": least, "temperature": far}) == "none"


def test_too_little_to_fit_on_is_told() -> None:
    true, scores = classes(LEAST - 1, sharp=3.0)
    found, same = choose_scaling("classification", true, scores, "temperature")
    assert (found.method, same is scores) == ("none", True)
    assert f"{LEAST - 1} rows to fit on, and it needs {LEAST}" in found.why
    true, scores = classes(200, sharp=3.0)
    assert "same answer" in choose_scaling("classification", np.zeros_like(true), scores, "auto")[0].why
    assert choose_scaling("classification", true, scores, "none")[0].why == "none was asked for"


def test_rows_are_scaled_by_what_was_fitted_on_others() -> None:
    # Scores that know nothing: what is fitted on a row itself can only seem better.
    random = np.random.default_rng(0)
    true, scores = random.integers(0, 3, 120), softmax(random.normal(0, 2, (120, 3)), axis=1)
    found, by_others = choose_scaling("classification", true, scores, "vector", seed=1)
    itself = found.apply(scores)
    losses = [-np.log(some[np.arange(120), true]).mean() for some in (itself, by_others)]
    assert losses[0] < losses[1] - 0.005
    assert len(np.unique((np.log(by_others) - np.log(itself)).round(6), axis=0)) > 5


def test_each_target_has_its_own_and_rows_of_nothing_keep_the_prior() -> None:
    true, scores = classes(300, sharp=3.0)
    tags, said = labels(300, sharp=0.5)
    parts = [
        THREE,
        Target(name="price", task="regression", mean=5e9, std=2.0),
        Target(name="tags", task="multilabel", levels=["p", "q", "r"], frequencies=[0.5] * 3),
    ]
    numbers = 5e9 + np.arange(300.0)
    truth, every = np.column_stack([true, numbers, tags]), np.column_stack([scores, numbers + 0.25, said])
    truth[:50, 0] = np.nan
    answered = np.arange(300) % 10 > 0
    found, by_others = calibrate(truth, every, answered, Target.of(parts), "temperature", seed=3)
    rows = answered & (np.arange(300) >= 50)
    assert found.scalings["y"].rows == rows.sum()
    assert found.scalings["price"].method == "none"
    for part, drawn in (("y", (true[rows], scores[rows])), ("tags", (tags[answered], said[answered]))):
        alone = fit_scaling(found.scalings[part].task, *drawn, "temperature").temperature
        assert found.scalings[part].temperature == pytest.approx(alone, rel=1e-4)
    after = found.apply(every, answered)
    np.testing.assert_array_equal(after[~answered], every[~answered])
    np.testing.assert_array_equal(by_others[~answered], every[~answered])
    np.testing.assert_array_equal(after[:, 3], every[:, 3])
    np.testing.assert_allclose(after[answered, :3], found.scalings["y"].apply(every[answered, :3]))
    kept = found.kept("price")
    np.testing.assert_allclose(kept[1] - kept[0], 0.25)
    assert len(kept[0]) == answered.sum()
    assert len(found.kept("y")[0]) == rows.sum()


def test_many_rows_are_drawn_from() -> None:
    true, scores = classes(7000, sharp=2.0)
    answered = np.ones(7000, dtype=bool)
    found, by_others = calibrate(true, scores, answered, THREE, "temperature", seed=0)
    assert found.scalings["y"].rows == len(found.truth) == 5000
    whole = found.apply(scores, answered)
    # Rows that were not fitted on have the scaling itself.
    assert (whole == by_others).all(axis=1).sum() >= 2000
    again, _ = calibrate(true, scores, answered, THREE, "temperature", seed=0)
    np.testing.assert_array_equal(again.scores, found.scores)
    assert isinstance(again, Calibration)


def test_scores_that_are_no_numbers_are_not_learned_from() -> None:
    true, scores = classes(200, sharp=3.0)
    answered = np.ones(200, dtype=bool)
    expected = calibrate(true[100:], scores[100:], answered[100:], THREE, "temperature")[0].scalings["y"].temperature
    scores[:100] = np.nan
    found, by_others = calibrate(true, scores, answered, THREE, "temperature")
    assert found.scalings["y"].temperature == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(found.scores).all()
    assert len(found.scores) == 100
    assert np.isnan(by_others[:100]).all()
    assert calibrate(true, scores * np.nan, answered, THREE)[0].scalings["y"].method == "none"
