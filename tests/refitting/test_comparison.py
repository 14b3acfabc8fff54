"""The verdict: better on new rows and not worse on old ones, both beyond chance, and better than knowing nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from polyfuse.data.measures import measure
from polyfuse.data.schema import Target
from polyfuse.metrics.bootstrap import Interval
from polyfuse.refitting import Side, compare, verdict

YES_NO = Target(name="y", task="classification", levels=["no", "yes"], frequencies=[0.5, 0.5])
NUMBER = Target(name="y", task="regression", mean=0.0, std=1.0)


def side(gain: tuple[float, float], known: tuple[float, float] = (0.1, 0.2)) -> Side:
    low, high = gain
    return Side(
        100, "held out", "log_loss", False, 0.5, 0.4, Interval((low + high) / 2, low, high), Interval(0.15, *known), {}
    )


@pytest.mark.parametrize(
    ("new", "old", "promoted", "told"),
    [
        (side((0.01, 0.2)), side((-0.1, 0.05)), True, r"old rows worse by .* may be chance"),
        (side((0.01, 0.2)), side((0.1, 0.2)), True, "old rows better by"),
        (side((-0.01, 0.2)), side((-0.1, 0.05)), False, "may be chance"),
        (side((0.01, 0.2)), side((-0.3, -0.1)), False, "worse by 0.2000 \\(0.1000 to 0.3000\\)"),
        (side((0.01, 0.2), known=(-0.1, 0.2)), side((0.1, 0.2)), False, "look at their answers"),
        (side((np.nan, np.nan)), side((0.1, 0.2)), False, "no interval"),
        (side((0.01, 0.2)), side((np.nan, np.nan)), False, "no interval"),
    ],
)
def test_the_verdict(new: Side, old: Side, promoted: bool, told: str) -> None:
    found, reason = verdict(new, old)
    assert found is promoted
    assert re.search(told, reason), reason


def compared(target: Target, metric: str, truth: Any, old: Any, new: Any, prior: Any) -> Side:
    arrays = [np.asarray(some) for some in (truth, old, new, prior)]
    return compare(*arrays, target, measure(target, metric), ["accuracy"], about="held out", seed=0)


def test_a_gain_is_above_0_whether_more_of_the_metric_is_better_or_less() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=200)
    found = compared(NUMBER, "rmse", truth, truth + random.normal(size=200), truth + 0.1 * random.normal(size=200), 0.0)
    assert found.gain.low > 0.5
    assert found.gain.value == pytest.approx(found.old - found.new)
    assert found.old == pytest.approx(1.0, abs=0.15)
    assert found.known.low > 0.5
    labels = random.integers(0, 2, 200)
    sure = np.eye(2)[labels] * 0.9 + 0.05
    for metric in ("log_loss", "accuracy"):
        found = compared(YES_NO, metric, labels, np.roll(sure, 1, axis=0), sure, [0.5, 0.5])
        assert found.gain.low > 0, metric
        assert found.known.low > 0, metric
    assert compared(YES_NO, "log_loss", labels, sure, sure, [0.5, 0.5]).gain == Interval(0.0, 0.0, 0.0)


def test_the_interval_is_that_of_paired_rows() -> None:
    """Of log losses a difference is a mean over rows: its interval is near that of a normal mean."""
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 400)
    right = random.uniform(0.3, 0.9, 400)
    better = np.clip(right + random.normal(0.02, 0.05, 400), 0.05, 0.95)
    old, new = (np.where(truth[:, None] == [0, 1], some[:, None], 1 - some[:, None]) for some in (right, better))
    found = compared(YES_NO, "log_loss", truth, old, new, [0.5, 0.5]).gain
    each = np.log(better) - np.log(right)
    assert found.value == pytest.approx(each.mean())
    width = 1.96 * each.std() / np.sqrt(400)
    assert found.low == pytest.approx(each.mean() - width, abs=0.15 * width)
    assert found.high == pytest.approx(each.mean() + width, abs=0.15 * width)
