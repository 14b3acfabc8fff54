"""What a metric is, and the small sums that their resampled forms share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Array, Array], float]
#: From how often each row was drawn (resamples, rows) float64 to the metric of each resample (resamples,).
OfCounts: TypeAlias = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Metric:
    """A number that says how well scores fit the truth.

    Attributes:
        name: as recipes and reports write it.
        label: as people read it.
        tasks: the tasks it measures.
        function: (y_true, y_score) to the value; nan where it is undefined, where there are no rows, and where a
            score is not finite. Classification: codes (rows,), probabilities (rows, classes). Multilabel: 0/1
            (rows, labels), probabilities (rows, labels), decided at 0.5. Regression: (rows,), (rows,).
        greater_is_better: whether a greater value is a better one.
        resampled: (y_true, y_score) to a function that gives the value for many resamples at once. It equals
            `function` on the rows drawn.
    """

    name: str
    label: str
    tasks: frozenset[str]
    function: Function
    greater_is_better: bool
    resampled: Callable[[Array, Array], OfCounts]


def defined(function: Function) -> Function:
    """Return the function, with nan as its value where there are no rows or a score is not finite."""

    @wraps(function)
    def guarded(y_true: Array, y_score: Array) -> float:
        if len(y_true) == 0 or not np.isfinite(y_score).all():
            return math.nan
        return float(function(y_true, y_score))

    return guarded


def mean_of(values: Array) -> OfCounts:
    """Return the resampled form of a mean over rows. values: (rows,)."""
    column = np.asarray(values, dtype=np.float64)
    return lambda counts: (counts @ column) / counts.sum(axis=1)


def ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, nan where below is 0."""
    out: Floats = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=out, where=below != 0)
    return out


def mean_defined(values: Floats) -> Floats:
    """Return the mean over the last axis of what is not nan; nan where nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def tie_ends(ordered: Array) -> NDArray[np.intp]:
    """Return, for sorted values (rows,), the position of the last of each run of equal ones."""
    return np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
