"""The old model and the new one on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.measures import measures
from polyfuse.data.schema import Target
from polyfuse.metrics.bootstrap import Interval, paired_difference
from polyfuse.metrics.metric import Metric


@dataclass(frozen=True)
class Side:
    """Two models on some rows.

    Attributes:
        rows: how many.
        about: what rows they are.
        metric: that decides.
        greater_is_better: whether more of it is better.
        old: its value of the old model.
        new: of the new one.
        gain: by how much the new one is better, with its 95 % interval over the rows; below 0 it is worse.
        known: by how much the new model is better than the training prior, which knows nothing of a row.
        others: further metrics, each with the old and the new value.
    """

    rows: int
    about: str
    metric: str
    greater_is_better: bool
    old: float
    new: float
    gain: Interval
    known: Interval
    others: dict[str, tuple[float, float]]

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "rows": self.rows,
            "about": self.about,
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "old": self.old,
            "new": self.new,
            "gain": _figures_of(self.gain),
            "better_than_the_prior": _figures_of(self.known),
            "metrics": {name: {"old": old, "new": new} for name, (old, new) in self.others.items()},
        }


def compare(
    truth: NDArray[Any],
    old: NDArray[Any],
    new: NDArray[Any],
    prior: NDArray[Any],
    target: Target,
    metric: Metric,
    names: Sequence[str],
    *,
    about: str,
    seed: int,
) -> Side:
    """Compare two models on the same rows of every resample (paired bootstrap, Efron & Tibshirani 1993).

    Args:
        truth: (rows, …) answers as metrics want them.
        old: (rows, …) calibrated scores of the old model.
        new: (rows, …) of the new one.
        prior: (…) what is said of a row of which nothing is known.
        target: what is asked for.
        metric: that decides.
        names: of further metrics.
        about: what rows they are.
        seed: of the resamples.
    """
    gain, beyond = (
        _gain(paired_difference(metric, truth, new, other, seed=seed), metric)
        for other in (old, np.broadcast_to(prior, new.shape))
    )
    known = measures(target)
    others = {name: known[name] for name in names if name in known and name != metric.name}
    return Side(
        rows=len(truth),
        about=about,
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        old=metric.function(truth, old),
        new=metric.function(truth, new),
        gain=gain,
        known=beyond,
        others={name: (some.function(truth, old), some.function(truth, new)) for name, some in others.items()},
    )


def _gain(difference: Interval, metric: Metric) -> Interval:
    return difference if metric.greater_is_better else Interval(-difference.value, -difference.high, -difference.low)


def verdict(new: Side, old: Side) -> tuple[bool, str]:
    """Tell whether the new model takes the place of the old one, and why: better on new rows, not worse on old ones.

    Nor is one promoted that knows of new rows no more than how often an answer is: where answers are damaged, a model
    that is less sure of them is better than one that is sure and wrong, and yet worth nothing.

    Args:
        new: the two on new rows.
        old: on old ones.
    """
    gained = f"{new.metric} on {new.rows:,} new rows better by {_figures(new.gain)}"
    if math.isnan(new.gain.low):
        return False, f"not promoted: on {new.rows:,} new rows {new.metric} has no interval"
    if not new.known.low > 0:
        return False, (
            f"not promoted: on {new.rows:,} new rows {new.metric} is no better than the training prior's beyond chance"
            f" ({_figures(new.known)}); look at their answers"
        )
    if not new.gain.low > 0:
        return False, f"not promoted: {gained}, which may be chance"
    if math.isnan(old.gain.low):
        return False, f"not promoted: on {old.rows:,} old rows {old.metric} has no interval"
    lost = Interval(-old.gain.value, -old.gain.high, -old.gain.low)
    if lost.low > 0:
        return False, f"not promoted: {gained}, and on {old.rows:,} old rows worse by {_figures(lost)}"
    if lost.value > 0:
        return True, f"promoted: {gained}; on {old.rows:,} old rows worse by {_figures(lost)}, which may be chance"
    return True, f"promoted: {gained}; on {old.rows:,} old rows better by {_figures(old.gain)}"


def _figures_of(gain: Interval) -> dict[str, float]:
    return {"value": gain.value, "low": gain.low, "high": gain.high}


def _figures(gain: Interval) -> str:
    return f"{gain.value:.4f} ({gain.low:.4f} to {gain.high:.4f})"
