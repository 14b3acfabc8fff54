"""Some rows of a training table, kept for the model that comes after: to replay, and to measure on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polyfuse.data.cells import is_missing
from polyfuse.data.portable import portable_row, portable_table
from polyfuse.data.rows import Rows
from polyfuse.data.splits import strata_of
from polyfuse.lineage.ancestry import Reference

#: Share of what is kept that is there to measure on.
HELD = 1 / 3
#: Positions that are kept at most of rows whose content is not.
MOST_POSITIONS = 5_000
_MISSES = 50  # rows one after the other that are too large for what room is left: then it is full
_FLOOR = 4  # each answer has at least this part of an even share, where it is frequent enough


@dataclass(frozen=True)
class Part:
    """Some rows.

    Attributes:
        positions: (rows,) where they stand in the tables that they come from, one below the other.
        table: what they hold, files included: a table, or the file of one, which is read when it is asked for; None
            where only the positions are kept.
    """

    positions: NDArray[np.int64]
    table: pd.DataFrame | Path | None = None


@dataclass(frozen=True)
class Kept:
    """Rows of the tables that a model comes from.

    Attributes:
        references: those tables.
        learned: rows that it learned from, to replay.
        held: rows to measure on.
        apart: whether the model has learned from none of the rows to measure on. Else `scores` are of models like it
            that had not.
        scores: (held rows, …) before calibration; None where the model itself may score them.
    """

    references: tuple[Reference, ...]
    learned: Part
    held: Part
    apart: bool
    scores: NDArray[Any] | None = None


@dataclass(frozen=True)
class Offered:
    """The rows that some are kept of.

    Attributes:
        rows: all of them.
        positions: (rows,) where each stands in the tables that they come from, one below the other.
        learned: places in `rows` of those that the model learned from.
        held: places of those to measure on; where they are among `learned`, the ones that are kept are not replayed.
        scores: (held, …) of those; see `Kept`.
        others: columns of the tables that divide rows into groups in training, a row for each of `rows`.
        groups: of each row; of a group either all rows are kept in one part, or none.
    """

    rows: Rows
    positions: NDArray[np.int64]
    learned: NDArray[np.int64]
    held: NDArray[np.int64]
    scores: NDArray[Any] | None = None
    others: pd.DataFrame = field(default_factory=pd.DataFrame)
    groups: Sequence[Hashable] | None = None


def keep(offered: Offered, references: Sequence[Reference], *, rows: int, bytes: int, apart: bool, seed: int) -> Kept:
    """Keep some rows, drawn at random but so that no answer is left out, a third of them to measure on.

    Args:
        offered: to choose from.
        references: where they come from.
        rows: how many at most; 0 keeps positions and scores alone, and nothing that a row holds.
        bytes: that they take at most, about.
        apart: see `Kept`.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    if not rows:
        count = min(MOST_POSITIONS, len(offered.held))
        chosen = np.sort(random.choice(len(offered.held), count, replace=False))
        held, learned = Part(_positions(offered, offered.held[chosen])), Part(np.empty(0, dtype=np.int64))
    else:
        # Where rows to measure on were learned from too, most of them are left to be replayed.
        among = np.union1d(offered.learned, offered.held) if not apart else np.arange(rows)
        count = max(1, round(min(rows, len(among)) * HELD))
        found, table = _draw(offered, offered.held, count, int(bytes * HELD), random)
        chosen, held = np.searchsorted(offered.held, found), Part(_positions(offered, found), table)
        free = np.setdiff1d(offered.learned, found)
        if offered.groups is not None:
            measured = {offered.groups[place] for place in found.tolist()}
            free = np.array([place for place in free.tolist() if offered.groups[place] not in measured], dtype=np.int64)
        size = bytes - int(bytes * HELD)
        found, table = _draw(offered, free, rows - len(chosen), size, random)
        learned = Part(_positions(offered, found), table)
    scores = None if offered.scores is None else offered.scores[chosen]
    return Kept(tuple(references), learned, held, apart, scores)


def _positions(offered: Offered, places: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = offered.positions[places]
    return found


def _draw(
    offered: Offered, pool: NDArray[np.int64], rows: int, bytes: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Draw rows out of a pool, groups whole, until there is no room; return their places, ascending, and a table."""
    drawn: dict[int, dict[str, Any]] = {}
    missed = 0
    for unit in _order(offered, pool, rows, random):
        if len(drawn) == rows or missed == _MISSES:
            break
        if len(drawn) + len(unit) > rows:
            continue
        made = {place: portable_row(offered.rows, place) for place in unit}
        size = sum(taken for _, taken in made.values())
        if size > bytes:
            missed += 1
            continue
        bytes, missed = bytes - size, 0
        drawn |= {place: _others(offered, place) | cells for place, (cells, _) in made.items()}
    places = sorted(drawn)
    return np.array(places, dtype=np.int64), portable_table([drawn[place] for place in places], offered.rows.schema)


def _others(offered: Offered, place: int) -> dict[str, Any]:
    cells = {str(name): offered.others[name].iloc[place] for name in offered.others.columns}
    # A Parquet column is of one kind.
    return {name: cell if is_missing(cell) or isinstance(cell, Real) else str(cell) for name, cell in cells.items()}


def _order(offered: Offered, pool: NDArray[np.int64], rows: int, random: np.random.Generator) -> list[list[int]]:
    """Return the rows of a pool, or its groups, in the order in which they are taken: some of each answer first."""
    shuffled = random.permutation(pool)
    if offered.groups is not None:
        units: dict[Hashable, list[int]] = {}
        for place in shuffled.tolist():
            units.setdefault(offered.groups[place], []).append(place)
        return list(units.values())
    answers = [offered.rows.answer(place) for place in shuffled.tolist()]
    strata = strata_of(answers, offered.rows.schema.target.asked) if answers else np.empty(0, dtype=np.int64)
    floor = max(1, rows // (_FLOOR * (int(strata.max(initial=0)) + 1)))
    seen: dict[int, int] = {}
    first: list[int] = []
    later: list[int] = []
    for place, stratum in zip(shuffled.tolist(), strata.tolist(), strict=True):
        seen[stratum] = seen.get(stratum, 0) + 1
        (first if seen[stratum] <= floor else later).append(place)
    return [[place] for place in first + later]
