"""The threat model of tables: numbers within a range of their own, some categories, and relations that hold."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt

from polyfuse.attacks.regions import Box, Region
from polyfuse.attacks.relations import Relation
from polyfuse.attacks.threat import Sample, Seam, Threat, Value
from polyfuse.data.augmentation.table import spread
from polyfuse.data.schema import Column

_DRAWN = 3  # points of a number's range that are drawn, beside those that are set
_ROUNDING = 1e-9  # of a radius


class RangesThreat(Threat):
    """Each number may move by so many spreads, within what was seen; some categories may become other levels.

    |x'_j - x_j| ≤ radius · spread_j and x'_j within the range of column j in the training rows, widened to hold x_j; at
    most `categories` columns take another level. The spread is the distance between the quartiles. Numbers stay whole
    where the column has no others, and relations between columns that held still hold: constraints without which an
    adversarial row is no row of the table (Simonetto et al. 2022). What is missing stays so; datetimes never change.

    Args:
        columns: of the modality.
        radius: in spreads of each column.
        categories: columns of categories that may take another level.
        immutable: columns that stay as they are.
        relations: between number columns, as "a <= b" or "a < b"; one that the clean row breaks is not asked for.

    Raises:
        InputError: `immutable` or `relations` name a column that is not there, or a relation cannot be read.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"number", "category"})
    norm: ClassVar[str] = "L∞ in spreads, and changed categories"
    main: ClassVar[str] = "radius"
    continuous: ClassVar[bool] = True
    discrete: ClassVar[bool] = True

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        radius: Annotated[float, Gt(0)] = 0.25,
        categories: Annotated[int, Ge(0)] = 1,
        immutable: Sequence[str] = (),
        relations: Sequence[str] = (),
    ) -> None:
        super().__init__(columns)
        self.radius, self.categories = radius, categories
        self.immutable = self.known("immutable", immutable)
        self.relations = tuple(relations)
        self._relations = [Relation.of(text, self.columns) for text in relations]
        self._spreads = [spread(column.quantiles) if column.type == "number" else 0.0 for column in self.columns]
        self._whole = [_is_whole(column) for column in self.columns]

    def region(self, seam: Seam) -> Region:
        """Return a box between what the encoder makes of the ends of each number's range.

        Raises:
            TypeError: the encoder does not read numbers in their order.
        """
        low, high = (self._prepared(seam, end) for end in (0, 1))
        beyond = torch.maximum(low - seam.clean, seam.clean - high)[seam.free]
        if bool((beyond > 1e-5 * (seam.high - seam.low)).any()):
            raise TypeError(f"{type(seam.encoder).__name__} does not read numbers in their order: no region is known")
        low, high = torch.minimum(low, seam.clean), torch.maximum(high, seam.clean)
        radius = torch.maximum(high - seam.clean, seam.clean - low)
        return Box(seam.clean, seam.free & (low < high), low, high, 0, radius)

    def neighbours(
        self, value: Value, clean: Value, random: np.random.Generator, among: Sequence[int] | None = None
    ) -> list[Value]:
        """Return values with one other number or category, mended; numbers at the ends, in the middle, and drawn."""
        made: dict[Value, None] = {}
        for i in self._mutable(clean):
            for cell in self._others(i, clean[i], random):
                made[self.mended((*value[:i], cell, *value[i + 1 :]), clean)] = None
        made.pop(value, None)
        return list(made)

    def mended(self, value: Value, clean: Value) -> Value:
        """Return the value within the budget: numbers cut off and rounded towards the clean ones, and so on.

        Categories too many, the last ones, are taken back; numbers that break a relation are both moved towards the
        clean ones until it holds.
        """
        cells, others = list(clean), 0
        for i in self._mutable(clean):
            if self.columns[i].type == "number":
                cells[i] = self._rounded(i, value[i], clean[i])
            elif value[i] != clean[i] and value[i] in self.columns[i].levels and others < self.categories:
                cells[i], others = value[i], others + 1
        held = [relation for relation in self._relations if relation.holds(clean)]
        for relation in held:
            if not relation.holds(cells):
                share = relation.share(cells, clean)
                for i in (relation.left, relation.right):
                    moved = clean[i] * (1 - share) + cells[i] * share
                    cells[i] = self._rounded(
                        i, min(max(moved, min(cells[i], clean[i])), max(cells[i], clean[i])), clean[i]
                    )
        # What was moved for one relation may break another: back to clean, column by column, until all hold.
        while broken := [relation for relation in held if not relation.holds(cells)]:
            for relation in broken:
                cells[relation.left], cells[relation.right] = clean[relation.left], clean[relation.right]
        return tuple(cells)

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return the farthest number in radii, or the changed categories relative to their limit, less 1.

        What must stay and did not, a level never seen, a fraction among whole numbers, a number beyond what was seen
        and a broken relation are beyond all limits.
        """
        before, after = clean.value, found.value
        if len(before) != len(after) or any(
            not relation.holds(after) for relation in self._relations if relation.holds(before)
        ):
            return math.inf
        beyond, changed = -1.0, 0
        for column, x, y in zip(self.columns, before, after, strict=True):
            if y is x or y == x:
                continue
            if x is None or y is None or not self.changes(column):
                return math.inf
            if column.type == "category":
                changed += 1
                beyond = max(beyond, -1.0 if y in column.levels else math.inf)
            else:
                beyond = max(beyond, self._distance(column, x, y) - 1 - _ROUNDING)
        if changed:
            beyond = max(beyond, changed / self.categories - 1 if self.categories else math.inf)
        return beyond

    def _distance(self, column: Column, x: float, y: float) -> float:
        """Return how far a number was moved, in radii; ∞ where it may not be at all."""
        seen = [*column.quantiles, x]
        fraction = not float(y).is_integer() and _is_whole(column)
        unit = spread(column.quantiles)
        if not min(seen) <= y <= max(seen) or fraction or not unit:
            return math.inf
        return abs(y / unit - x / unit) / self.radius if abs(y - x) == math.inf else abs(y - x) / unit / self.radius

    def _mutable(self, clean: Value) -> list[int]:
        return [
            i
            for i, (column, cell) in enumerate(zip(self.columns, clean, strict=True))
            if cell is not None and self.changes(column) and (column.type == "category" or math.isfinite(cell))
        ]

    def _range(self, i: int, x: float) -> tuple[float, float]:
        """Return the least and the greatest number that one may become."""
        quantiles, r = self.columns[i].quantiles, self.radius * self._spreads[i]
        if r < sys.float_info.min:  # below it, products are rounded by more than a little
            return x, x
        low, high = max(x - r, min(*quantiles, x)), min(x + r, max(*quantiles, x))
        # The sums are rounded, and may have gone too far.
        while x - low > r:
            low = math.nextafter(low, x)
        while high - x > r:
            high = math.nextafter(high, x)
        return low, high

    def _rounded(self, i: int, y: Any, x: float) -> float:
        """Return a number cut off at the ends of its range, towards the clean one where it has to be whole."""
        low, high = self._range(i, x)
        if y is None or math.isnan(y):
            return x
        cut = min(max(float(y), low), high)
        if self._whole[i]:
            # Past the clean number, where that is a fraction, it would be farther away on the other side.
            cut = max(float(math.floor(cut)), x) if cut > x else min(float(math.ceil(cut)), x)
        return x if cut == x else cut

    def _others(self, i: int, x: Any, random: np.random.Generator) -> Iterator[Any]:
        """Yield what a cell may become, and the clean one."""
        yield x
        if self.columns[i].type == "category":
            yield from self.columns[i].levels
            return
        low, high = self._range(i, x)
        for share in (1.0, 0.5, *random.random(_DRAWN).tolist()):
            yield low * share + x * (1 - share)
            yield high * share + x * (1 - share)

    def _prepared(self, seam: Seam, end: int) -> torch.Tensor:
        """Return the continuous tensor of values whose numbers are all at one end of their ranges."""
        ends: list[Value | None] = []
        for value in seam.values:
            cells = None if value is None else list(value)
            if value is not None and cells is not None:
                for i in self._mutable(value):
                    cells[i] = self._range(i, value[i])[end] if self.columns[i].type == "number" else value[i]
            ends.append(None if cells is None else tuple(cells))
        return seam.encoder.prepare(ends)[seam.name].to(seam.clean)


def _is_whole(column: Column) -> bool:
    """Tell whether a column has whole numbers only, as far as its statistics tell."""
    return column.whole or (bool(column.quantiles) and all(float(q).is_integer() for q in column.quantiles))
