"""Curves of scores against the truth, with few enough points to be drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array

_POINTS = 100  # of a curve
_LABELS = 8  # whose curves are drawn: those of most rows
_ROWS = 400  # whose residuals are drawn

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """What a threshold costs and brings, or where a regression is wrong.

    Attributes:
        roc: by label, (false positive rate, true positive rate); of two labels the second alone.
        pr: by label, (recall, precision).
        shares: by label, its share of the rows: the precision of answering it always.
        residuals: of a regression, (predicted, true - predicted) of some rows.
    """

    roc: dict[str, Points]
    pr: dict[str, Points]
    shares: dict[str, float]
    residuals: Points

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def curves(y_true: Array, y_score: Array, target: Target, *, seed: int = 0) -> Curves:
    """Return the curves of one target.

    Args:
        y_true: codes (rows,), 0/1 (rows, labels), or numbers (rows,).
        y_score: probabilities (rows, labels), or numbers (rows,).
        target: what was asked.
        seed: of the rows that are drawn.
    """
    if target.task == "regression":
        some = np.random.default_rng(seed).permutation(len(y_true))[:_ROWS]
        pairs = [(float(y_score[row]), float(y_true[row] - y_score[row])) for row in np.sort(some)]
        return Curves({}, {}, {}, pairs)
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc, pr, shares = {}, {}, {}
    for code in _labels(y_true, target):
        truth = y_true[:, code] if y_true.ndim == 2 else y_true == code
        if not 0 < truth.sum() < len(truth):
            continue
        name = str(target.levels[code])
        fpr, tpr, _ = roc_curve(truth, y_score[:, code])
        precision, recall, _ = precision_recall_curve(truth, y_score[:, code])
        roc[name], pr[name], shares[name] = _thinned(fpr, tpr), _thinned(recall, precision), float(truth.mean())
    return Curves(roc, pr, shares, [])


def _labels(y_true: Array, target: Target) -> list[int]:
    """Return the labels whose curves are drawn."""
    labels = len(target.levels)
    if target.task == "classification" and labels == 2:
        return [1]
    seen = y_true.sum(axis=0) if y_true.ndim == 2 else np.bincount(y_true.astype(int), minlength=labels)
    return sorted(np.argsort(-seen, kind="stable")[:_LABELS].tolist())


def _thinned(x: Array, y: Array) -> Points:
    """Return points of a curve at nearly even steps along it, both ends among them."""
    if len(x) > _POINTS:
        along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        places = np.unique(np.searchsorted(along, np.linspace(0, along[-1], _POINTS)).clip(max=len(x) - 1))
        x, y = x[places], y[places]
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
