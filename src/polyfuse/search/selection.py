"""Which candidates are averaged, and whether that is worth it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from polyfuse.learners.learner import Array

_STEPS = 30


def greedy_weights(scores: Sequence[Array], badness: Callable[[Array], float], *, steps: int = _STEPS) -> Array:
    """Return the weight of each model in a mean that was grown one model at a time, with replacement.

    Starts from the best; each step adds the model with which the mean is best, as often as it takes, and ends when
    none makes it better (ensemble selection, Caruana et al. 2004).

    Args:
        scores: of each model, (rows, …).
        badness: of some scores: less is better.
        steps: at most.
    """
    found = [badness(some) for some in scores]
    counts = np.zeros(len(scores))
    best = int(np.argmin(found))
    counts[best], total, lowest = 1, scores[best].astype(np.float64), found[best]
    for step in range(1, steps):
        tried = [badness((total + some) / (step + 1)) for some in scores]
        best = int(np.argmin(tried))
        if not tried[best] < lowest:
            break
        counts[best] += 1
        total, lowest = total + scores[best], tried[best]
    weights: Array = counts / counts.sum()
    return weights


def _of_rows(badness: Callable[[Array, Array], float], rows: Array, scores: Array) -> float:
    return badness(scores, rows)


def crossed(scores: Sequence[Array], badness: Callable[[Array, Array], float], parts: Sequence[Array]) -> Array:
    """Return the mean's scores (rows, …), the weights for each part chosen on the others: an honest estimate.

    Args:
        scores: of each model, (rows, …).
        badness: of (scores, positions of their rows).
        parts: positions of the rows of each part; every row is in one.
    """
    mean = np.zeros_like(scores[0], dtype=np.float64)
    every = np.concatenate(parts)
    for part in parts:
        others = np.setdiff1d(every, part)
        weights = greedy_weights([some[others] for some in scores], partial(_of_rows, badness, others))
        mean[part] = sum(weight * some[part] for weight, some in zip(weights, scores, strict=True))
    return mean
