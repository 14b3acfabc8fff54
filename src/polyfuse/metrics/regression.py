"""Metrics of a number. y_true, y_score: (rows,), in the target's unit."""

from __future__ import annotations

import math

import numpy as np

from polyfuse.metrics.metric import Array, Floats, Metric, OfCounts, defined, mean_of, ratio, tie_ends


@defined
def rmse(y_true: Array, y_score: Array) -> float:
    """Root of the mean squared error, in the target's unit.

    >>> rmse(np.array([0.0, 0.0]), np.array([3.0, -3.0]))
    3.0
    """
    return float(np.sqrt(np.mean((y_true - y_score) ** 2)))


@defined
def mae(y_true: Array, y_score: Array) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.mean(np.abs(y_true - y_score)))


@defined
def r2(y_true: Array, y_score: Array) -> float:
    """Coefficient of determination 1 - Σ(y - ŷ)² / Σ(y - ȳ)², from scikit-learn; nan where y_true does not vary."""
    from sklearn.metrics import r2_score

    return math.nan if np.ptp(y_true) == 0 else float(r2_score(y_true, y_score))


@defined
def spearman(y_true: Array, y_score: Array) -> float:
    """Spearman's rank correlation, ties at their mean rank, from SciPy; nan where either does not vary."""
    from scipy.stats import spearmanr

    if np.ptp(y_true) == 0 or np.ptp(y_score) == 0:
        return math.nan
    return float(spearmanr(y_true, y_score).statistic)


def _rmse(y_true: Array, y_score: Array) -> OfCounts:
    mean = mean_of((y_true - y_score) ** 2)
    return lambda counts: np.sqrt(mean(counts))


def _mae(y_true: Array, y_score: Array) -> OfCounts:
    return mean_of(np.abs(y_true - y_score))


def _r2(y_true: Array, y_score: Array) -> OfCounts:
    wrong = (y_true - y_score) ** 2
    # Centred first: the difference of two great sums would lose all digits of a target far from 0.
    centred = y_true - np.mean(y_true)

    def of_counts(counts: Floats) -> Floats:
        total = counts @ centred**2 - (counts @ centred) ** 2 / counts.sum(axis=1)
        return 1 - ratio(counts @ wrong, np.where(_varies(y_true, counts), total, 0.0))

    return of_counts


def _spearman(y_true: Array, y_score: Array) -> OfCounts:
    def of_counts(counts: Floats) -> Floats:
        rows = counts.sum(axis=1, keepdims=True)
        a, b = (_ranks(values, counts) - (rows + 1) / 2 for values in (y_true, y_score))
        product = np.sqrt((counts * a**2).sum(axis=1) * (counts * b**2).sum(axis=1))
        return ratio((counts * a * b).sum(axis=1), product)

    return of_counts


def _ranks(values: Array, counts: Floats) -> Floats:
    """Return the mean rank of each value among the rows drawn (resamples, rows)."""
    order = np.argsort(values, kind="stable")
    ends = tie_ends(values[order])
    upto = np.cumsum(counts[:, order], axis=1)[:, ends]
    runs = np.diff(upto, axis=1, prepend=0.0)
    group = np.empty(len(values), dtype=np.intp)
    group[order] = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    ranks: Floats = (upto - (runs - 1) / 2)[:, group]
    return ranks


def _varies(values: Array, counts: Floats) -> Array:
    """Tell which resamples hold more than one distinct value (resamples,)."""
    drawn = counts > 0
    least = np.where(drawn, values, np.inf).min(axis=1)
    varies: Array = np.where(drawn, values, -np.inf).max(axis=1) > least
    return varies


_TASK = frozenset({"regression"})

METRICS = (
    Metric("rmse", "Root mean squared error", _TASK, rmse, False, _rmse),
    Metric("mae", "Mean absolute error", _TASK, mae, False, _mae),
    Metric("r2", "R²", _TASK, r2, True, _r2),
    Metric("spearman", "Spearman's ρ", _TASK, spearman, True, _spearman),
)
