"""How far a metric could have come out otherwise, had other rows been drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from polyfuse.core.errors import InputError, nearest
from polyfuse.metrics import METRICS
from polyfuse.metrics.metric import Array, Floats, Metric

#: Counts held in memory at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A value with its interval; nan where it is undefined.

    >>> str(Interval(0.9123, 0.894, 0.93))
    '0.912 [0.894, 0.930]'
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    metrics: Sequence[str | Metric],
    y_true: Array,
    y_score: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return metrics with percentile intervals over resampled rows (Efron & Tibshirani 1993, chapter 13).

    A resample in which a metric is undefined (e.g. ROC AUC with one class) is left out; the interval is nan where
    the value is undefined, or more than half of the resamples are.

    Args:
        metrics: names in METRICS, or metrics.
        y_true: what the metrics compare with, (rows,) or (rows, labels).
        y_score: scores, (rows,) or (rows, classes).
        resamples: number of resamples of all rows, with replacement; the same ones for every metric.
        level: share of the resamples that the interval holds.
        seed: of the resamples.

    Raises:
        InputError: an unknown metric, or truth and scores of different length.
    """
    chosen = [known(name) for name in metrics]
    _check(y_true, y_score)
    values = {metric.name: metric.function(y_true, y_score) for metric in chosen}
    forms = {metric.name: metric.resampled(y_true, y_score) for metric in chosen if not math.isnan(values[metric.name])}
    drawn: dict[str, list[Floats]] = {name: [] for name in forms}
    if forms:
        for counts in counts_drawn(len(y_true), resamples, seed):
            for name, form in forms.items():
                drawn[name].append(form(counts))
    return {name: percentile_interval(value, drawn.get(name, []), level) for name, value in values.items()}


def paired_difference(
    metric: str | Metric,
    y_true: Array,
    score_a: Array,
    score_b: Array,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return metric(A) - metric(B) with its interval, both on the same rows of every resample.

    An interval without 0 says that the two differ on rows like these. Undefined values and further arguments are as
    in `bootstrap`.

    Raises:
        InputError: an unknown metric, or truth and scores of different length.
    """
    chosen = known(metric)
    _check(y_true, score_a)
    _check(y_true, score_b)
    value = chosen.function(y_true, score_a) - chosen.function(y_true, score_b)
    if math.isnan(value):
        return Interval(math.nan, math.nan, math.nan)
    a, b = chosen.resampled(y_true, score_a), chosen.resampled(y_true, score_b)
    differences = [a(counts) - b(counts) for counts in counts_drawn(len(y_true), resamples, seed)]
    return percentile_interval(value, differences, level)


def draws(
    metric: Metric, y_true: Array, scores: Sequence[Array], *, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return a metric of several scores of the same rows (scores,), and of each resample (scores, resamples).

    The resamples are the same for all, so that any sum of their values has an interval; see `percentile_interval`.
    """
    values = np.asarray([metric.function(y_true, some) for some in scores], dtype=np.float64)
    forms = [metric.resampled(y_true, some) for some in scores]
    blocks = [np.stack([form(counts) for form in forms]) for counts in counts_drawn(len(y_true), resamples, seed)]
    return values, np.concatenate(blocks, axis=1)


def known(name: str | Metric) -> Metric:
    """Return a metric by name; one that is given, itself.

    Raises:
        InputError: there is none of this name.
    """
    if isinstance(name, Metric):
        return name
    if name not in METRICS:
        raise InputError(f"metrics: there is no {name!r}; {nearest(name, METRICS)}")
    return METRICS[name]


def _check(y_true: Array, y_score: Array) -> None:
    if len(y_true) != len(y_score):
        raise InputError(f"y_true has {len(y_true)} rows, y_score {len(y_score)}; give scores of the same rows")


def counts_drawn(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield blocks (some resamples, rows) of how often each row was drawn."""
    random = np.random.default_rng(seed)
    step = max(1, _BLOCK // rows)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = random.integers(0, rows, size=(some, rows)) + rows * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)


def percentile_interval(value: float, drawn: Sequence[Floats], level: float) -> Interval:
    """Return a value with the interval that holds a share of its resamples; see `bootstrap`. drawn: blocks of them."""
    every = np.concatenate(drawn) if drawn else np.empty(0)
    defined = every[~np.isnan(every)]
    if math.isnan(value) or len(every) == 0 or 2 * len(defined) < len(every):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
