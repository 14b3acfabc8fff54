"""Thresholds of each group's own: the plain way to narrow a gap, beside which others have to stand."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from polyfuse.core.errors import PolyfuseError
from polyfuse.fairness.report import ThresholdMoving
from polyfuse.fairness.resampling import Rate, gap_of, resampled
from polyfuse.metrics.metric import Array

Criterion = Literal["demographic_parity", "equalized_odds"]
CRITERIA: tuple[Criterion, ...] = ("demographic_parity", "equalized_odds")


class Unmovable(PolyfuseError):
    """No thresholds can be chosen on these rows."""


def moved(
    true: Array,
    decided: Array,
    scores: Array,
    codes: Array,
    names: tuple[str, ...],
    judged: Array,
    criterion: Criterion,
    least: int,
    resamples: int,
    seed: int,
) -> ThresholdMoving:
    """Choose thresholds of each group on a half of the rows drawn at random, and measure them on the other half.

    By fairlearn's ThresholdOptimizer; where it answers by chance between two thresholds, the drawn answer counts.

    Args:
        true: whether each row is positive (rows,) bool.
        decided: whether the model answers so (rows,) bool.
        scores: probability that it is (rows,).
        codes: group of each row (rows,).
        names: of the groups.
        judged: which groups have enough rows (groups,) bool; rows of others are left out.
        criterion: what is to be alike in all groups.
        least: rows on which a figure of the measured half has to rest.
        resamples: for intervals.
        seed: of the halves, of the answers by chance, and of the resamples.

    Raises:
        Unmovable: a group has one label only among the rows that thresholds are chosen on.
    """
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(judged[codes]))
    fit, held = np.sort(rows[: len(rows) // 2]), np.sort(rows[len(rows) // 2 :])
    for code in np.flatnonzero(judged):
        if len(np.unique(true[fit][codes[fit] == code])) < 2:
            raise Unmovable(
                f"thresholds were not tried: half of the rows of {names[code]!r} have one label only; give more rows"
            )
    given = _optimizer(criterion).fit(scores[fit, None], true[fit].astype(int), sensitive_features=codes[fit])
    after = given.predict(scores[held, None], sensitive_features=codes[held], random_state=seed) == 1
    before, truth, group = decided[held], true[held], codes[held]
    right = [some == truth for some in (before, after)]
    every = np.ones(len(held), dtype=bool)
    costs = [Rate("accuracy", some, every) for some in (*right, right[0].astype(float) - right[1])]
    means = [np.array([np.mean(rate.values)]) for rate in costs]
    figures = resampled(costs, np.zeros_like(group), means, 1, resamples, seed)
    accuracy_before, accuracy_after, cost = (figure.interval(0) for figure in figures)
    gaps = [_gap(some, truth, group, names, criterion, least, resamples, seed) for some in (before, after)]
    return ThresholdMoving(criterion, len(fit), len(held), accuracy_before, accuracy_after, cost, *gaps)


def _gap(
    decided: Array,
    true: Array,
    codes: Array,
    names: tuple[str, ...],
    criterion: Criterion,
    least: int,
    resamples: int,
    seed: int,
) -> Any:
    """Return the criterion's gap of some decisions."""
    every = np.ones(len(true), dtype=bool)
    rates = [Rate("selection_rate", decided, every)]
    if criterion == "equalized_odds":
        rates = [Rate("tpr", decided, true), Rate("fpr", decided, ~true)]
    values = [
        np.array([_mean(rate.values[rate.counted & (codes == code)]) for code in range(len(names))]) for rate in rates
    ]
    return gap_of(resampled(rates, codes, values, least, resamples, seed), names)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _optimizer(criterion: Criterion) -> Any:
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator

    class Known(BaseEstimator):  # type: ignore[misc]
        """Stands for a model whose scores are known: they are its input."""

        def fit(self, scores: Array, true: Array) -> Known:
            return self

        def predict(self, scores: Array) -> Array:
            return np.asarray(scores)[:, 0]

        def __sklearn_is_fitted__(self) -> bool:
            return True

    return ThresholdOptimizer(estimator=Known(), constraints=criterion, prefit=True, predict_method="predict")
