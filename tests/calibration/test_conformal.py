"""Sets and intervals hold as often as they say, and are what the papers define."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta

from calibration_tools import THREE, calibrated, classes
from polyfuse.calibration import (
    measure_coverage,
    prediction_intervals,
    prediction_sets,
)
from polyfuse.calibration.conformal import expected_coverage
from polyfuse.core.errors import InputError
from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array


def quantile(scores: Array, level: float) -> float:
    """The ⌈(n + 1) level⌉-th smallest."""
    return float(np.sort(scores)[math.ceil((len(scores) + 1) * level - 1e-9) - 1])


@pytest.mark.parametrize("level", [0.5, 0.85, 0.95])
def test_sets_are_the_labels_that_are_no_stranger_than_the_quantile(level: float) -> None:
    true, scores = classes(150)
    new = classes(40, seed=1)[1]
    limit = quantile(1 - scores.astype(np.float64)[np.arange(150), true], level)
    np.testing.assert_array_equal(prediction_sets((true, scores), new, level=level), 1 - new <= limit + 1e-6)


def test_adaptive_sets_take_labels_in_order_until_the_quantile() -> None:
    true, scores = classes(300)
    new = classes(100, seed=1)[1]
    sets = prediction_sets((true, scores), new, level=0.9, method="aps", seed=4)
    np.testing.assert_array_equal(sets, prediction_sets((true, scores), new, level=0.9, method="aps", seed=4))
    # With the mass before the label, and a drawn share of its own.
    p = scores.astype(np.float64) / scores.sum(1, keepdims=True, dtype=np.float64)
    own = p[np.arange(300), true]
    before = (p * (p > own[:, None])).sum(1)
    drawn = np.random.RandomState(4).uniform(size=300)
    limit = quantile(before + own - drawn * own, 0.9)
    order = np.argsort(-new, axis=1)
    mass = np.take_along_axis(new, order, 1).cumsum(1)
    taken = np.column_stack([np.ones(100, dtype=bool), mass[:, :-1] < limit])
    expected = np.zeros_like(taken)
    np.put_along_axis(expected, order, taken, 1)
    np.testing.assert_array_equal(sets, expected)
    assert sets.any(1).all()


def test_intervals_are_a_quantile_of_the_residuals() -> None:
    random = np.random.default_rng(0)
    said = random.normal(0, 3, 100)
    true = said + random.normal(size=100)
    width = quantile(abs(true - said), 0.8)
    ends = prediction_intervals((true, said), np.array([0.0, 5.0]), level=0.8)
    np.testing.assert_allclose(ends, [[-width, width], [5 - width, 5 + width]])


@pytest.mark.parametrize("method", ["lac", "aps", "interval"])
def test_the_truth_is_inside_as_often_as_it_is_to_be(method: str) -> None:
    level, held = 0.9, []
    for seed in range(60):
        true, said = classes(2100, seed=seed)
        if method == "interval":
            random = np.random.default_rng(seed)
            said = random.normal(size=2100)
            true = said + random.standard_t(3, 2100)
            ends = prediction_intervals((true[:100], said[:100]), said[100:], level=level)
            inside = (ends[:, 0] <= true[100:]) & (true[100:] <= ends[:, 1])
        else:
            sets = prediction_sets((true[:100], said[:100]), said[100:], level=level, method=method, seed=seed)
            inside = sets[np.arange(2000), true[100:]]
        held.append(inside.mean())
    # Coverage given the rows kept is Beta(k, n + 1 - k); its mean over 60 draws, with the noise of 2,000 rows.
    spread = math.sqrt((beta.std(91, 10) ** 2 + 0.09 / 2000) / 60)
    assert np.mean(held) > 91 / 101 - 4 * spread
    if method != "aps":  # its sets include the label at which the quantile is passed, and are a little too large
        assert np.mean(held) < 91 / 101 + 4 * spread
        assert np.std(held) == pytest.approx(beta.std(91, 10), rel=0.4)


def test_what_is_to_be_expected_is_the_beta_distribution() -> None:
    found = expected_coverage(100, 0.9)
    assert found.value == pytest.approx(91 / 101)
    drawn = np.sort(np.random.default_rng(0).random((20_000, 100)), axis=1)[:, 90]
    np.testing.assert_allclose([found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.004)


def test_coverage_by_group_is_that_of_the_group_alone() -> None:
    true, scores = classes(3000, sharp=2.0)
    hard = np.random.default_rng(0).random(3000) < 0.3
    true = np.where(hard, np.random.default_rng(1).integers(0, 3, 3000), true)
    calibration = calibrated(true[:1000], scores[:1000])
    new, answered = scores[1000:], np.ones(2000, dtype=bool)
    answered[:7] = False
    groups = {"hard": hard[1000:].tolist(), "rare": ["few"] * 20 + ["many"] * 1980}
    report = measure_coverage(
        calibration, true[1000:], new, answered, THREE, levels=(0.9, 0.5), groups=groups, least=30
    )["y"]
    assert (report.rows, report.fitted_on, [at.level for at in report.levels]) == (1993, 1000, [0.9, 0.5])
    at = report.levels[0]
    sets = prediction_sets(calibration.kept("y"), calibration.apply(new, answered), level=0.9)[answered]
    inside, mine = sets[np.arange(1993), true[1007:]], hard[1007:]
    assert at.coverage.value == pytest.approx(inside.mean())
    assert at.size.value == pytest.approx(sets.sum(1).mean())
    assert at.single == pytest.approx((sets.sum(1) == 1).mean())
    for name, mask in (("True", mine), ("False", ~mine)):
        found = at.groups["hard"][name]
        assert (found.rows, found.coverage.value) == (mask.sum(), pytest.approx(inside[mask].mean()))
        assert found.coverage.low < found.coverage.value < found.coverage.high
    # The level holds on average: hard rows pay for it.
    assert at.groups["hard"]["True"].coverage.high < 0.9 < at.groups["hard"]["False"].coverage.low
    assert set(at.groups["label"]) == {"a", "b", "c"}
    assert set(at.groups["rare"]) == {"many"}
    assert at.small == {"label": 0, "hard": 0, "rare": 1}
    assert "hard True" in str(report)
    assert report.data()["levels"][0]["groups"]["hard"]["True"]["rows"] == int(mine.sum())


def test_what_cannot_hold_is_refused() -> None:
    true, scores = classes(15)
    for level, said in ((1.0, "between 0 and 1"), (0.95, "needs 20 rows")):
        with pytest.raises(InputError, match=said):
            prediction_sets((true, scores), scores, level=level)
    with pytest.raises(InputError, match="lac or aps"):
        prediction_sets((true, scores), scores, method="raps")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="three labels"):
        prediction_sets((true % 2, scores[:, :2]), scores[:, :2], level=0.5, method="aps")
    calibration = calibrated(*classes(100))
    with pytest.raises(InputError, match="'shop' has 3 entries for 15 rows"):
        measure_coverage(calibration, true, scores, np.ones(15, bool), THREE, groups={"shop": [1, 2, 3]})
    with pytest.raises(InputError, match="no row with anything present"):
        measure_coverage(calibration, true, scores, np.zeros(15, bool), THREE)
    tags = Target(name="y", task="multilabel", levels=["p", "q"], frequencies=[0.5, 0.5])
    flags = np.array([[0.0, 1.0], [1.0, 0.0]] * 30)
    several = calibrated(flags, flags * 0.5 + 0.2, tags)
    with pytest.raises(InputError, match="may be there or not"):
        measure_coverage(several, flags, flags, np.ones(60, bool), tags)


@pytest.mark.parametrize("rows", [3, 10, 49, 50, 93])
def test_the_first_and_the_last_level_that_rows_reach(rows: int) -> None:
    true, scores = classes(rows)
    numbers = np.arange(rows, dtype=np.float64)
    for level in (1 / rows, 1 - 1 / rows):
        assert prediction_sets((true, scores), scores, level=level).shape == scores.shape
        assert prediction_intervals((numbers, np.zeros(rows)), np.zeros(2), level=level).shape == (2, 2)


def test_no_rows_and_one_label() -> None:
    true, scores = classes(30)
    assert prediction_sets((true, scores), scores[:0]).shape == (0, 3)
    assert prediction_intervals((scores[:, 0], scores[:, 1]), scores[:0, 0]).shape == (0, 2)
    assert prediction_sets((true * 0, scores[:, :1]), scores[:, :1]).all()
