"""Metrics of any number of labels at once. y_true: 0/1 (rows, labels), y_score: probabilities (rows, labels)."""

from __future__ import annotations

import math

import numpy as np

from polyfuse.metrics.metric import Array, Floats, Metric, OfCounts, defined, mean_defined, mean_of, ratio, tie_ends

THRESHOLD = 0.5


@defined
def multilabel_f1_micro(y_true: Array, y_score: Array) -> float:
    """F1 of all decisions together, from scikit-learn; nan where no label is true or answered.

    >>> multilabel_f1_micro(np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.2], [0.8, 0.3]]))
    0.8
    """
    from sklearn.metrics import f1_score

    return float(f1_score(y_true > 0, y_score >= THRESHOLD, average="micro", zero_division=np.nan))


@defined
def multilabel_f1_macro(y_true: Array, y_score: Array) -> float:
    """Mean F1 over the labels that are true or answered in some row, from scikit-learn."""
    from sklearn.metrics import f1_score

    f1 = f1_score(y_true > 0, y_score >= THRESHOLD, average=None, zero_division=np.nan)
    return float(mean_defined(np.asarray(f1)))


@defined
def mean_average_precision(y_true: Array, y_score: Array) -> float:
    """Mean, over the labels that occur in y_true, of the average precision Σ (R_n - R_(n-1)) P_n, from scikit-learn."""
    from sklearn.metrics import average_precision_score

    true = y_true > 0
    present = np.flatnonzero(true.any(axis=0))
    if len(present) == 0:
        return math.nan
    return float(np.mean([average_precision_score(true[:, label], y_score[:, label]) for label in present]))


@defined
def subset_accuracy(y_true: Array, y_score: Array) -> float:
    """Share of rows in which every label is decided rightly."""
    return float(_all_right(y_true, y_score).mean())


def _all_right(y_true: Array, y_score: Array) -> Array:
    right: Array = ((y_score >= THRESHOLD) == (y_true > 0)).all(axis=1)
    return right


def _micro(y_true: Array, y_score: Array) -> OfCounts:
    both, either = _matches(y_true, y_score)
    both, either = both.sum(axis=1), either.sum(axis=1)
    return lambda counts: ratio(2 * (counts @ both), counts @ either)


def _macro(y_true: Array, y_score: Array) -> OfCounts:
    both, either = _matches(y_true, y_score)
    return lambda counts: mean_defined(ratio(2 * (counts @ both), counts @ either))


def _matches(y_true: Array, y_score: Array) -> tuple[Floats, Floats]:
    """Return TP, and 2 TP + FP + FN, of each decision (rows, labels)."""
    true, answered = y_true > 0, y_score >= THRESHOLD
    return (true & answered).astype(np.float64), true.astype(np.float64) + answered


def _mean_average_precision(y_true: Array, y_score: Array) -> OfCounts:
    true = y_true > 0
    present = np.flatnonzero(true.any(axis=0))

    def of_counts(counts: Floats) -> Floats:
        values = [_average_precision(true[:, label], y_score[:, label], counts) for label in present]
        return mean_defined(np.stack(values, axis=-1)) if values else np.full(len(counts), np.nan)

    return of_counts


def _average_precision(true: Array, scores: Array, counts: Floats) -> Floats:
    order = np.argsort(-scores, kind="stable")
    ends = tie_ends(scores[order])
    ordered = counts[:, order]
    answered = np.cumsum(ordered, axis=1)[:, ends]
    right = np.cumsum(ordered * true[order], axis=1)[:, ends]
    precision = np.divide(right, answered, out=np.zeros_like(right), where=answered > 0)
    return ratio((np.diff(right, axis=1, prepend=0.0) * precision).sum(axis=1), right[:, -1])


def _subset_accuracy(y_true: Array, y_score: Array) -> OfCounts:
    return mean_of(_all_right(y_true, y_score))


_TASK = frozenset({"multilabel"})

METRICS = (
    Metric("multilabel_f1_micro", "F1, all decisions", _TASK, multilabel_f1_micro, True, _micro),
    Metric("multilabel_f1_macro", "F1, mean over labels", _TASK, multilabel_f1_macro, True, _macro),
    Metric(
        "mean_average_precision",
        "Mean average precision",
        _TASK,
        mean_average_precision,
        True,
        _mean_average_precision,
    ),
    Metric("subset_accuracy", "Whole rows right", _TASK, subset_accuracy, True, _subset_accuracy),
)
