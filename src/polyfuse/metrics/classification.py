"""Metrics of one label out of several. y_true: codes (rows,), y_score: probabilities (rows, classes)."""

from __future__ import annotations

import math

import numpy as np

from polyfuse.metrics.metric import Array, Floats, Metric, OfCounts, defined, mean_defined, mean_of, ratio, tie_ends

#: Rows for each class below which comparing all pairs of rows is faster than sorting them for each class.
_PAIRS = 200
#: Pairs of rows that are compared at a time.
_BLOCK = 1 << 22


@defined
def accuracy(y_true: Array, y_score: Array) -> float:
    """Share of rows whose most probable class is the true one.

    >>> accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    0.5
    """
    return float(np.mean(y_score.argmax(axis=1) == y_true))


@defined
def balanced_accuracy(y_true: Array, y_score: Array) -> float:
    """Mean recall over the classes that occur in y_true (Brodersen et al. 2010)."""
    from sklearn.metrics import recall_score

    present = np.unique(y_true)
    return float(recall_score(y_true, y_score.argmax(axis=1), labels=present, average="macro"))


@defined
def f1_macro(y_true: Array, y_score: Array) -> float:
    """Mean F1 over the classes that occur in y_true or among the answers, from scikit-learn."""
    from sklearn.metrics import f1_score

    return float(f1_score(y_true, y_score.argmax(axis=1), average="macro", zero_division=np.nan))


@defined
def roc_auc(y_true: Array, y_score: Array) -> float:
    """Area under the ROC curve: of class 1 where there are two, else the mean of one class against the rest.

    The mean is over the classes that occur in y_true; nan where y_true has one class only. From scikit-learn
    (Fawcett 2006).
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(y_true)
    if len(present) < 2:
        return math.nan
    chosen = [1] if y_score.shape[1] == 2 else present
    return float(np.mean([roc_auc_score(y_true == code, y_score[:, code]) for code in chosen]))


@defined
def log_loss(y_true: Array, y_score: Array) -> float:
    """Mean of -ln p(true class) in nats; p is kept away from 0 by the float64 epsilon, as in scikit-learn."""
    return float(np.mean(row_losses(y_true, y_score)))


def row_losses(y_true: Array, y_score: Array) -> Floats:
    """Return -ln p(true class) of each row (rows,), in nats."""
    scores = y_score.astype(np.float64)
    chosen = scores[np.arange(len(scores)), y_true] / scores.sum(axis=1)
    losses: Floats = -np.log(chosen.clip(np.finfo(np.float64).eps, 1.0))
    return losses


def _accuracy(y_true: Array, y_score: Array) -> OfCounts:
    return mean_of(y_score.argmax(axis=1) == y_true)


def _balanced_accuracy(y_true: Array, y_score: Array) -> OfCounts:
    totals = _class_totals(y_true, y_score.shape[1])
    correct = y_score.argmax(axis=1) == y_true
    return lambda counts: mean_defined(ratio(totals(counts * correct), totals(counts)))


def _f1_macro(y_true: Array, y_score: Array) -> OfCounts:
    answers = y_score.argmax(axis=1)
    true, answered = (_class_totals(codes, y_score.shape[1]) for codes in (y_true, answers))
    correct = answers == y_true
    # 2 TP / (2 TP + FP + FN) = 2 TP / (true + answered)
    return lambda counts: mean_defined(ratio(2 * true(counts * correct), true(counts) + answered(counts)))


def _class_totals(codes: Array, classes: int) -> OfCounts:
    """Return a function from counts (resamples, rows) to the count of each class (resamples, classes)."""
    from scipy.sparse import csr_array

    # Sparse: with thousands of classes a dense one-hot matrix would not fit in memory.
    one_hot = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(classes, len(codes)))
    return lambda counts: (one_hot @ counts.T).T


def _roc_auc(y_true: Array, y_score: Array) -> OfCounts:
    present = np.unique(y_true)
    if y_score.shape[1] == 2:
        return lambda counts: _auc_sorted(y_true == 1, y_score[:, 1], counts)
    if len(y_true) < _PAIRS * len(present):
        return lambda counts: _auc_pairs(y_true, y_score, counts)
    return lambda counts: mean_defined(
        np.stack([_auc_sorted(y_true == code, y_score[:, code], counts) for code in present], axis=-1)
    )


def _auc_sorted(positive: Array, scores: Array, counts: Floats) -> Floats:
    """AUC = P(s+ > s-) + P(s+ = s-) / 2, from the cumulated counts of the rows in order of their scores."""
    order = np.argsort(scores, kind="stable")
    ends = tie_ends(scores[order])
    ordered, positive = counts[:, order], positive[order]
    below_positive = np.cumsum(ordered * positive, axis=1)[:, ends]
    below_negative = np.cumsum(ordered * ~positive, axis=1)[:, ends]
    positives = np.diff(below_positive, axis=1, prepend=0.0)
    negatives = np.diff(below_negative, axis=1, prepend=0.0)
    won = (positives * (below_negative - negatives / 2)).sum(axis=1)
    return ratio(won, below_positive[:, -1] * below_negative[:, -1])


def _auc_pairs(y_true: Array, y_score: Array, counts: Floats) -> Floats:
    """The same as `_auc_sorted` over all classes, from all pairs of rows at once: its cost does not grow with them."""
    weights = counts.astype(np.float32)  # exact: sums of halves below 2^23
    won = np.empty_like(counts)
    step = max(1, _BLOCK // len(y_true))
    for start in range(0, len(y_true), step):
        codes = y_true[start : start + step]
        rivals, own = y_score[:, codes], y_score[np.arange(start, start + len(codes)), codes]
        beaten = (rivals < own) + np.float32(0.5) * (rivals == own)
        beaten[y_true[:, None] == codes] = 0
        won[:, start : start + step] = weights @ beaten
    totals = _class_totals(y_true, y_score.shape[1])
    positives = totals(counts)
    return mean_defined(ratio(totals(counts * won), positives * (counts.sum(axis=1, keepdims=True) - positives)))


def _log_loss(y_true: Array, y_score: Array) -> OfCounts:
    return mean_of(row_losses(y_true, y_score))


_TASK = frozenset({"classification"})

METRICS = (
    Metric("accuracy", "Accuracy", _TASK, accuracy, True, _accuracy),
    Metric("balanced_accuracy", "Balanced accuracy", _TASK, balanced_accuracy, True, _balanced_accuracy),
    Metric("f1_macro", "F1, mean over classes", _TASK, f1_macro, True, _f1_macro),
    Metric("roc_auc", "ROC AUC", _TASK, roc_auc, True, _roc_auc),
    Metric("log_loss", "Log loss", _TASK, log_loss, False, _log_loss),
)
