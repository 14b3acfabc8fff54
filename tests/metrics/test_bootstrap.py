from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from polyfuse.core.errors import InputError
from polyfuse.metrics import METRICS
from polyfuse.metrics.bootstrap import Interval, bootstrap, paired_difference, percentile_interval

FIVE = ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"]


def binary(rows: int, seed: int = 0, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y_true = random.integers(0, 2, size=rows)
    p = 1 / (1 + np.exp(-(skill * (2 * y_true - 1) + random.normal(size=rows))))
    return y_true, np.stack([1 - p, p], axis=1)


def test_value_is_the_metric_and_the_interval_holds_it() -> None:
    y_true, y_score = binary(200)
    for name, interval in bootstrap(FIVE, y_true, y_score).items():
        assert interval.value == METRICS[name].function(y_true, y_score)
        assert interval.low < interval.value < interval.high


def test_interval_of_accuracy_is_close_to_the_normal_one() -> None:
    y_true, y_score = binary(1000)
    interval = bootstrap(["accuracy"], y_true, y_score, resamples=4000, level=0.9)["accuracy"]
    half = norm.ppf(0.95) * math.sqrt(interval.value * (1 - interval.value) / 1000)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.08)


def test_same_seed_same_interval_and_more_level_is_wider() -> None:
    y_true, y_score = binary(100)
    one = bootstrap(["accuracy"], y_true, y_score)
    assert one == bootstrap(["accuracy"], y_true, y_score)
    assert bootstrap(["log_loss"], y_true, y_score) != bootstrap(["log_loss"], y_true, y_score, seed=1)
    narrow = bootstrap(["accuracy"], y_true, y_score, level=0.5)["accuracy"]
    assert one["accuracy"].low < narrow.low <= narrow.high < one["accuracy"].high


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    y_true, y_score = binary(50)
    whole = bootstrap(FIVE, y_true, y_score, resamples=101)
    monkeypatch.setattr("polyfuse.metrics.bootstrap._BLOCK", 400)
    parts = bootstrap(FIVE, y_true, y_score, resamples=101)
    for name in FIVE:
        assert parts[name].low == pytest.approx(whole[name].low)


def test_undefined_value_has_no_interval() -> None:
    y_true, y_score = binary(20)
    made = bootstrap(["accuracy", "roc_auc"], np.zeros_like(y_true), y_score)
    assert math.isnan(made["roc_auc"].value)
    assert math.isnan(made["roc_auc"].low)
    assert not math.isnan(made["accuracy"].low)
    y_score[3] = np.nan
    assert math.isnan(bootstrap(["accuracy"], y_true, y_score)["accuracy"].value)


def test_resamples_without_a_value_are_left_out() -> None:
    y_score = np.array([[0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    interval = bootstrap(["roc_auc"], np.array([0, 1, 1]), y_score)["roc_auc"]
    assert interval == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(("undefined", "known"), [(50, True), (51, False)])
def test_interval_needs_half_of_the_resamples(undefined: int, known: bool) -> None:
    drawn = np.where(np.arange(100) < undefined, np.nan, 1.0)
    assert math.isnan(percentile_interval(1.0, [drawn], 0.95).low) is not known


def test_no_rows() -> None:
    assert math.isnan(bootstrap(["rmse"], np.empty(0), np.empty(0))["rmse"].value)


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    y_true, y_score = binary(400)
    worse = y_score.copy()
    worse[:20] = worse[:20, ::-1]
    for name in FIVE:
        difference = paired_difference(name, y_true, y_score, worse)
        plain = METRICS[name].function(y_true, y_score) - METRICS[name].function(y_true, worse)
        assert difference.value == pytest.approx(plain)
        alone = bootstrap([name], y_true, y_score)[name]
        assert difference.high - difference.low < alone.high - alone.low
    assert paired_difference("accuracy", y_true, y_score, y_score) == Interval(0.0, 0.0, 0.0)
    assert paired_difference("accuracy", y_true, y_score, worse).low > 0


def test_errors_name_the_cure() -> None:
    y_true, y_score = binary(10)
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        bootstrap(["acuracy"], y_true, y_score)
    with pytest.raises(InputError, match="y_true has 9 rows, y_score 10"):
        bootstrap(["accuracy"], y_true[:9], y_score)
    with pytest.raises(InputError, match="y_true has 10 rows, y_score 9"):
        paired_difference("accuracy", y_true, y_score, y_score[:9])
