"""Corruptions of numbers, datetimes and categories."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from polyfuse.data.augmentation.contract import Other
from polyfuse.data.augmentation.table import SwapAugmentation, spread
from polyfuse.data.corruption.contract import Corruption, P

_SCALARS = frozenset({"number", "category", "datetime"})
_LARGEST = sys.float_info.max


class NumberCorruption(Corruption[P]):
    """What corruptions of numbers share: a number beyond the largest becomes the largest."""

    reads: ClassVar[frozenset[str]] = frozenset({"number"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> float:
        """Change a number."""
        return max(-_LARGEST, min(float(self.change(cell, random)), _LARGEST))

    @abstractmethod
    def change(self, number: float, random: np.random.Generator) -> float:
        """Return a changed number, no NaN."""

    def spreads(self, count: float) -> float:
        """Return so many times the column's spread: the distance between its quartiles (see `table.spread`)."""
        return min(count * spread(self.column.quantiles), _LARGEST)


class NumberNoiseCorruption(NumberCorruption[float]):
    """Noise of a sensor: x' = x + σ z, z ~ N(0, 1). Setting: σ, in spreads of the column."""

    settings = (0.05, 0.12, 0.25, 0.45, 0.7)

    def change(self, number: float, random: np.random.Generator) -> float:
        """Add noise."""
        return number + self.spreads(self.setting) * float(random.standard_normal())


class RoundingCorruption(NumberCorruption[float]):
    """Coarse reading: x' = q round(x / q). Setting: q, in spreads of the column."""

    settings = (0.1, 0.25, 0.5, 0.9, 1.5)

    def change(self, number: float, random: np.random.Generator) -> float:
        """Round."""
        step = self.spreads(self.setting)
        steps = number / step if step else math.inf
        return float(np.rint(steps)) * step if math.isfinite(steps) else number


class UnitErrorCorruption(NumberCorruption[float]):
    """A slipped decimal point: 10 x or x / 10, both alike, with some probability. Setting: the probability."""

    settings = (0.02, 0.05, 0.1, 0.18, 0.3)

    def change(self, number: float, random: np.random.Generator) -> float:
        """Slip."""
        if random.random() >= self.setting:
            return number
        return number * 10 if random.random() < 0.5 else number / 10


class OutliersCorruption(NumberCorruption[tuple[float, float]]):
    """Readings gone astray: x' = x ± k spreads with probability p. Setting: p and k."""

    settings = ((0.02, 4.0), (0.05, 5.0), (0.09, 6.0), (0.15, 8.0), (0.22, 10.0))

    def change(self, number: float, random: np.random.Generator) -> float:
        """Go astray."""
        probability, far = self.setting
        if random.random() >= probability:
            return number
        return number + self.spreads(far) * (1, -1)[random.integers(2)]


class SignFlipCorruption(NumberCorruption[float]):
    """A lost or stray minus: x' = -x with some probability. Setting: the probability."""

    settings = (0.02, 0.05, 0.1, 0.18, 0.3)

    def change(self, number: float, random: np.random.Generator) -> float:
        """Flip."""
        return -number if random.random() < self.setting else number


class DatetimeShiftCorruption(Corruption[float]):
    """A wrong clock: x' = x + σ z, z ~ N(0, 1). Setting: σ, from an hour over a day to a month, in seconds."""

    reads: ClassVar[frozenset[str]] = frozenset({"datetime"})

    settings = (3600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> float:
        """Shift."""
        return float(cell + self.setting * random.standard_normal())


class MissingCellsCorruption(Corruption[float]):
    """Cells lost with some probability: None comes back. Setting: the probability."""

    reads: ClassVar[frozenset[str]] = _SCALARS

    settings = (0.05, 0.12, 0.22, 0.35, 0.5)

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Any:
        """Lose a cell."""
        return None if random.random() < self.setting else cell


class SwappedCellsCorruption(Corruption[float]):
    """Cells that got into the wrong row, as by the augmentation `swap`. Setting: the probability."""

    reads: ClassVar[frozenset[str]] = _SCALARS

    settings = (0.05, 0.1, 0.18, 0.3, 0.45)

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Any:
        """Take another row's cell."""
        return SwapAugmentation(self.column, probability=self.setting)(cell, random, other)


class WrongCategoryCorruption(Corruption[float]):
    """Another of the categories that the column knows, all alike, with some probability. Setting: the probability."""

    reads: ClassVar[frozenset[str]] = frozenset({"category"})

    settings = (0.03, 0.08, 0.15, 0.25, 0.4)

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> str:
        """Mistake."""
        category: str = cell
        others = [level for level in self.column.levels if level != category]
        if not others or random.random() >= self.setting:
            return category
        return others[random.integers(len(others))]
