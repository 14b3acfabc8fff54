"""The groups that a column divides rows into."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polyfuse.core.errors import InputError
from polyfuse.data.cells import is_missing

MISSING = "(missing)"
#: Groups that a column may have.
MOST = 20
_BINS = 4
_AS_THEY_ARE = 5  # distinct numbers that are groups themselves


@dataclass(frozen=True)
class Grouping:
    """How the values of a column are told apart; made by `Grouping.of`.

    Numbers of more than five distinct values are cut at their quartiles; other values are a group each, and what is
    missing is a group of its own.

    >>> grouping = Grouping.of("sex", pd.Series(["f", "m", None, "f"]))
    >>> grouping.names, grouping.codes(pd.Series(["m", None, "x"])).tolist()
    (('f', 'm', '(missing)'), [1, 2, -1])

    Attributes:
        column: its name.
        names: of the groups.
        edges: of numbers that are cut, the upper end of each bin but the last; None where values are groups.
    """

    column: str
    names: tuple[str, ...]
    edges: tuple[float, ...] | None = None

    @classmethod
    def of(cls, column: str, values: pd.Series) -> Grouping:
        """Return the groups of some values.

        Raises:
            InputError: they are more than 20.
        """
        cells = [_cell(cell) for cell in values]
        known = {cell for cell in cells if cell is not None}
        missing = [MISSING] if len(cells) > sum(cell is not None for cell in cells) else []
        if len(known) > _AS_THEY_ARE and all(isinstance(cell, float) for cell in known):
            numbers = np.array([cell for cell in cells if cell is not None])
            cuts = np.quantile(numbers, np.arange(1, _BINS) / _BINS)
            edges = [float(edge) for edge in np.unique(cuts) if edge < numbers.max()]
            between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
            names = [f"up to {edges[0]:g}", *between, f"above {edges[-1]:g}"] if edges else [f"up to {numbers.max():g}"]
            return cls(column, (*names, *missing), tuple(edges))
        names = sorted({_named(cell) for cell in known})
        if len(names) + len(missing) > MOST:
            raise InputError(
                f"{column!r} divides the rows into {len(names) + len(missing)} groups, of which there may be {MOST};"
                " name a column with fewer values, or join some of them"
            )
        return cls(column, (*names, *missing))

    def codes(self, values: pd.Series) -> NDArray[np.int64]:
        """Return the group of each row (rows,), -1 for a value that is in none."""
        cells = [_cell(cell) for cell in values]
        place = {name: code for code, name in enumerate(self.names)}
        absent = place.get(MISSING, -1)
        if self.edges is None:
            found = [absent if cell is None else place.get(_named(cell), -1) for cell in cells]
        else:
            # A bin holds its upper end.
            found = [
                int(np.searchsorted(self.edges, cell)) if isinstance(cell, float) else absent if cell is None else -1
                for cell in cells
            ]
        return np.array(found, dtype=np.int64)


def _cell(cell: object) -> object:
    """Return a cell as it is compared: None where missing, numbers as float."""
    if is_missing(cell):
        return None
    if isinstance(cell, np.bool_ | bool):
        return str(bool(cell))
    if isinstance(cell, int | float | np.integer | np.floating):
        return float(cell) if np.isfinite(cell) else None
    return str(cell).strip()


def _named(cell: object) -> str:
    return f"{cell:.12g}" if isinstance(cell, float) else str(cell)
