"""Augmentations of numbers, datetimes and categories."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le

from polyfuse.data.augmentation.contract import Augmentation, Other, Probability
from polyfuse.data.schema import Column


class NumberNoiseAugmentation(Augmentation):
    """Gaussian noise: x' = x + std · spread · z, z ~ N(0, 1), cut off at the column's least and greatest number.

    The spread is the distance between the column's quartiles, half its range where they are equal: the unit in which
    the encoders of tables read it. Numbers of a column that does not vary stay. Datetimes are not changed: noise in
    units of years would undo the hour and the day of the week.

    Args:
        column: that is changed.
        std: standard deviation of the noise in units of the column's spread.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"number"})

    def __init__(self, column: Column, *, std: Annotated[float, Ge(0), Le(10)] = 0.05) -> None:
        super().__init__(column)
        self.std = std
        self._scale = min(std * spread(column.quantiles), sys.float_info.max)
        self._least, self._most = min(column.quantiles, default=0.0), max(column.quantiles, default=0.0)

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> float:
        """Add noise."""
        number: float = cell
        moved = number + self._scale * random.standard_normal()
        # A number outside of what was seen is not drawn in, it goes no further out.
        return float(max(min(self._least, number), min(moved, max(self._most, number))))


class SwapAugmentation(Augmentation):
    """With some probability, the cell of another row instead: a draw from the column's own distribution.

    The corruption of VIME (Yoon et al. 2020) and SCARF (Bahri et al. 2022), each column by itself. Where the other cell
    is missing, or a category too rare to be known, this one stays.

    Args:
        column: that is changed.
        probability: that a cell is swapped.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"number", "category", "datetime"})

    def __init__(self, column: Column, *, probability: Probability = 0.1) -> None:
        super().__init__(column)
        self.probability = probability
        self._levels = frozenset(column.levels)

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Any:
        """Take another row's cell."""
        if random.random() >= self.probability:
            return cell
        found = other()
        if self.column.type == "category":
            return found if found in self._levels else cell
        return found if found is not None and math.isfinite(found) else cell


def spread(quantiles: Sequence[float]) -> float:
    """Return the distance between the quartiles, half the whole range where they are equal; 0 of nothing.

    >>> spread([0.0, 1.0, 2.0, 3.0, 4.0]), spread([0.0, 0.0, 0.0, 0.0, 4.0]), spread([])
    (2.0, 2.0, 0.0)
    """
    if not quantiles:
        return 0.0
    # Halved first: the distance between numbers near the largest double would overflow.
    low, high = (float(half) for half in np.quantile(np.asarray(quantiles) / 2, (0.25, 0.75)))
    half = (high - low) or max(quantiles) / 4 - min(quantiles) / 4
    return min(2 * half, sys.float_info.max)
