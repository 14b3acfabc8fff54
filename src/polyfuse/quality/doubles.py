"""Rows that are there twice: exactly, or nearly; within a table, and in another one too; with different answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from polyfuse.core.progress import Progress, Silent
from polyfuse.data.media import MEDIA_TYPES
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Column, Schema, Target
from polyfuse.quality.clouds import near_clouds
from polyfuse.quality.looks import Look, look
from polyfuse.quality.nearness import near_looks, near_number, near_texts, near_vectors

#: Answers of a regression that differ by more than this share of their standard deviation contradict each other.
DIFFERENT = 0.1

Key: TypeAlias = tuple[Hashable, ...]
Looks: TypeAlias = Mapping[str, Sequence[Look | None]]


@dataclass(frozen=True)
class Group:
    """Rows that are the same, or nearly.

    Attributes:
        kind: "exact" where all cells are equal, images and recordings as decoded; "near" where some are only nearly.
        rows: positions in the table.
        test_rows: positions in the other table.
        answers: the different answers of the rows of the table, in words, at most 10.
    """

    kind: Literal["exact", "near"]
    rows: list[int]
    test_rows: list[int]
    answers: list[str]


@dataclass(frozen=True)
class Groups:
    """Groups of rows of one kind.

    Attributes:
        exact: how many groups of equal rows there are.
        near: how many groups with rows that are only nearly equal.
        rows: rows of the table in these groups.
        test_rows: rows of the other table in these groups.
        examples: the first of them, exact ones first.
    """

    exact: int
    near: int
    rows: int
    test_rows: int
    examples: list[Group]

    @property
    def count(self) -> int:
        """How many groups there are."""
        return self.exact + self.near


@dataclass(frozen=True)
class Doubles:
    """What is there twice.

    Attributes:
        within: groups of two rows or more of the table.
        across: groups with rows of both tables; None where there is no other one.
        conflicts: groups of the table whose answers contradict each other.
        by_chance: pairs of rows of the table that would be equal if its columns were independent; from 1 on, equality
            says little. 0 where rows have a text, a medium or an embedding.
        groups: of each row of the table a number, the same for rows that are nearly equal; for folds.
    """

    within: Groups
    across: Groups | None
    conflicts: Groups
    by_chance: float
    groups: list[int]


def look_at(rows: Rows, progress: Progress | None = None) -> dict[str, list[Look | None]]:
    """Look at every image and recording of some rows: by column, a look for each row, None where a cell is missing."""
    columns = [column.name for column in rows.schema.columns if column.type in ("image", "audio")]
    found: dict[str, list[Look | None]] = {name: [] for name in columns}
    with (progress or Silent()).bar("Looking", len(columns) * len(rows)) as bar:
        for name in columns:
            for row in range(len(rows)):
                cell = rows.cell(name, row)
                found[name].append(None if cell is None else look(cell))
                bar.advance()
    return found


def find_doubles(
    rows: Rows, looks: Looks, test: Rows | None = None, test_looks: Looks | None = None, *, most: int = 10
) -> Doubles:
    """Find the rows that are there twice.

    Two rows are nearly equal where the same cells are there, and each is near: texts, images, recordings and embeddings
    as in `nearness`, clouds as in `clouds`, numbers that are not all whole equal in four digits, all else equal. Where
    rounded numbers would agree by chance, all digits count.

    Args:
        rows: of the table, with answers.
        looks: at its images and recordings.
        test: of another table, read by the same schema.
        test_looks: at those.
        most: examples of each kind.
    """
    tables = [(rows, looks)] + ([(test, test_looks or {})] if test is not None else [])
    exact, near = _keys(tables)
    chance = _by_chance(near[: len(rows)], rows.schema)
    if chance >= 1:
        # Rounded numbers agree by chance; those written out may not.
        near, chance = exact, _by_chance(exact[: len(rows)], rows.schema)
    gathered: dict[Key, list[int]] = defaultdict(list)
    for place, key in enumerate(near):
        if any(part is not None for part in key):
            gathered[key].append(place)
    positions = [rows.positions.tolist(), test.positions.tolist() if test is not None else []]
    within, across, conflicts = [], [], []
    groups, every = list(range(len(rows))), rows.answers
    for members in gathered.values():
        own = [place for place in members if place < len(rows)]
        for place in own:
            groups[place] = own[0]
        if len(members) < 2 or not own:
            continue
        answers = [every[place] for place in own] if len(own) > 1 else []
        told = _told(answers)
        if len(own) > 1:
            within.append(_group(own, [], exact, positions, len(rows), told))
            if contradict(answers, rows.schema.target):
                conflicts.append(within[-1])
        if len(own) < len(members):
            across.append(_group(own, members[len(own) :], exact, positions, len(rows), told))
    return Doubles(
        _counted(within, most),
        _counted(across, most) if test is not None else None,
        _counted(conflicts, most),
        chance,
        groups,
    )


def contradict(answers: Sequence[Any], target: Target) -> bool:
    """Tell whether answers to the same question differ; numbers, by more than DIFFERENT standard deviations."""
    if target.parts:
        parts = enumerate(target.parts)
        return any(contradict([answer[i] for answer in answers], part) for i, part in parts)
    known = [answer for answer in answers if answer is not None]
    if len(known) < 2:
        return False
    if target.task == "regression":
        return bool(max(known) - min(known) > DIFFERENT * target.std)
    return any(answer != known[0] for answer in known)


def _group(
    own: Sequence[int],
    others: Sequence[int],
    exact: Sequence[Key],
    positions: Sequence[Sequence[int]],
    size: int,
    answers: list[str],
) -> Group:
    same = len({exact[place] for place in (*own, *others)}) == 1
    here = [positions[0][place] for place in own]
    return Group("exact" if same else "near", here, [positions[1][place - size] for place in others], answers)


def _counted(groups: Sequence[Group], most: int) -> Groups:
    exact = [group for group in groups if group.kind == "exact"]
    near = [group for group in groups if group.kind == "near"]
    rows = sum(len(group.rows) for group in groups)
    return Groups(len(exact), len(near), rows, sum(len(group.test_rows) for group in groups), [*exact, *near][:most])


def _told(answers: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(str(answer) for answer in answers))[:10]


def _keys(tables: Sequence[tuple[Rows, Looks]]) -> tuple[list[Key], list[Key]]:
    """Return of each row of the tables, one after the other, a key that is equal for equal, and for near, rows."""
    exact: list[list[Hashable]] = []
    near: list[list[Hashable]] = []
    for column in tables[0][0].schema.columns:
        cells: list[Any] = []
        for rows, looks in tables:
            cells += looks[column.name] if column.name in looks else _cells(rows, column)
        same = [_exact(cell, column) for cell in cells]
        first = {key: place for place, key in reversed(list(enumerate(same))) if key is not None}
        distinct = list(first)
        near_of = dict(zip(distinct, _near([cells[first[key]] for key in distinct], column), strict=True))
        exact.append(same)
        near.append([None if key is None else near_of[key] for key in same])
    count = sum(len(rows) for rows, _ in tables)
    if not exact:
        return [()] * count, [()] * count
    return list(zip(*exact, strict=True)), list(zip(*near, strict=True))


def _cells(rows: Rows, column: Column) -> list[Any]:
    return [rows.cell(column.name, row) for row in range(len(rows))]


def _exact(cell: Any, column: Column) -> Hashable:
    if cell is None:
        return None
    if isinstance(cell, Look):
        return cell.digest
    return cell.tobytes() if isinstance(cell, np.ndarray) else cell


def _near(cells: Sequence[Any], column: Column) -> Sequence[Hashable]:
    """Return a class for each of some distinct cells."""
    if column.type in ("image", "audio"):
        return near_looks(cells)
    if column.type == "text":
        return list(map(int, near_texts(cells)))
    if column.type == "embedding":
        return near_vectors(cells)
    if column.type == "points":
        return near_clouds(cells)
    # Whole numbers may be codes or years, and moments differ by seconds: four digits would be too few.
    rounded = column.type == "number" and not column.whole
    return [near_number(cell) for cell in cells] if rounded else list(cells)


def _by_chance(keys: Sequence[Key], schema: Schema) -> float:
    """Return how many pairs of rows would have equal keys if columns were independent."""
    if any(column.type in ("text", "embedding", *MEDIA_TYPES) for column in schema.columns) or len(keys) < 2:
        return 0.0
    pairs = len(keys) * (len(keys) - 1) / 2
    share = 1.0
    for cells in zip(*keys, strict=True):
        share *= sum(count * (count - 1) / 2 for count in Counter(cells).values()) / pairs
    return float(pairs * share)
