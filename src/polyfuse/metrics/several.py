"""Metrics of several targets, side by side.

y_true: (rows, columns), of each target its code or number, or a 0/1 for each of its labels; nan where it is not known.
y_score: (rows, columns), of each target its probabilities or its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyfuse.metrics.classification import row_losses
from polyfuse.metrics.metric import Array, Floats, Metric, OfCounts, defined, mean_defined, ratio

#: Name of the metric that is one figure for all.
RELATIVE_LOSS = "relative_loss"
_LABEL = "Loss as a share of the prior's, mean over targets"
_TASK = frozenset({"several"})


@dataclass(frozen=True)
class Part:
    """One of several targets, and where it stands.

    Attributes:
        name: of the target.
        task: what is asked of it.
        true: its columns of y_true.
        score: its columns of y_score.
        unit: the loss of the training prior, see `relative_loss`; above 0.
    """

    name: str
    task: str
    true: slice
    score: slice
    unit: float

    def known(self, y_true: Array) -> Array:
        """Tell which rows have an answer for it (rows,)."""
        return np.asarray(~np.isnan(y_true[:, self.true]).any(axis=1))

    def truth(self, y_true: Array) -> Array:
        """Return the truth of the rows that have an answer for it, as the metrics of its task want it."""
        true = y_true[self.known(y_true), self.true]
        if self.task == "multilabel":
            return true
        return true[:, 0] if self.task == "regression" else true[:, 0].astype(np.int64)

    def scores(self, y_score: Array) -> Array:
        """Return the scores of all given rows, as the metrics of its task want them."""
        score = y_score[:, self.score]
        return score[:, 0] if self.task == "regression" else score

    def only(self, y_true: Array, y_score: Array) -> tuple[Array, Array]:
        """Return truth and scores of the rows that have an answer for it."""
        return self.truth(y_true), self.scores(y_score[self.known(y_true)])


def of_part(metric: Metric, part: Part) -> Metric:
    """Return the metric of one of several targets, over the rows that have an answer for it: `<target>:<metric>`."""

    def function(y_true: Array, y_score: Array) -> float:
        return metric.function(*part.only(y_true, y_score))

    def resampled(y_true: Array, y_score: Array) -> OfCounts:
        known, form = part.known(y_true), metric.resampled(*part.only(y_true, y_score))

        def of_counts(counts: Floats) -> Floats:
            some = counts[:, known]
            drawn = some.any(axis=1)
            values: Floats = np.full(len(counts), np.nan)
            if drawn.any():
                values[drawn] = form(some[drawn])
            return values

        return of_counts

    name, label = f"{part.name}:{metric.name}", f"{part.name}: {metric.label}"
    return Metric(name, label, _TASK, function, metric.greater_is_better, resampled)


def relative_loss(parts: Sequence[Part]) -> Metric:
    """Return the metric that is one figure for all targets, in which each counts alike; lower is better.

    It is the mean over the targets of loss / unit, each over the rows that have an answer for it, with 1 for a model
    that knows no more than the prior. Loss and unit are, of a classification, the log loss and the entropy of the
    training frequencies; of a multilabel target the mean over its labels of both; of a regression the root of the mean
    squared error and the standard deviation of the training rows. Targets that no row has are left out.
    """

    def resampled(y_true: Array, y_score: Array) -> OfCounts:
        known = [part.known(y_true) for part in parts]
        losses = []
        for part, here in zip(parts, known, strict=True):
            spread = np.zeros(len(y_true))
            spread[here] = _losses(part, *part.only(y_true, y_score))
            losses.append(spread)

        def of_counts(counts: Floats) -> Floats:
            values = []
            for part, here, loss in zip(parts, known, losses, strict=True):
                mean = ratio(counts @ loss, counts @ here.astype(np.float64))
                values.append((np.sqrt(mean) if part.task == "regression" else mean) / part.unit)
            return mean_defined(np.stack(values, axis=-1))

        return of_counts

    @defined
    def function(y_true: Array, y_score: Array) -> float:
        return float(resampled(y_true, y_score)(np.ones((1, len(y_true))))[0])

    return Metric(RELATIVE_LOSS, _LABEL, _TASK, function, False, resampled)


def _losses(part: Part, y_true: Array, y_score: Array) -> Floats:
    """Return the loss of each row (rows,)."""
    if part.task == "classification":
        return row_losses(y_true, y_score)
    if part.task == "regression":
        squares: Floats = np.square(y_true - y_score, dtype=np.float64)
        return squares
    eps = np.finfo(np.float64).eps
    right = np.where(y_true > 0, y_score, 1 - y_score).astype(np.float64).clip(eps, 1.0)
    losses: Floats = -np.log(right).mean(axis=1)
    return losses
