"""What is wrong with a table: everything is found before any work, and reported together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyfuse.core.errors import InputError, Problem, nearest
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.cells import CellError
from polyfuse.data.decoding import Cells
from polyfuse.data.reading import Table
from polyfuse.data.schema import Schema
from polyfuse.data.targets import AnswerReader

#: A training needs so many rows.
MIN_ROWS = 10
MAX_CLASSES = 1000
_DECODED = frozenset({"image", "audio", "embedding"})


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        row_problems: those of single rows.
        general_problems: those of the table as a whole, were all its rows used.
        answers: position to answer, of the rows whose target could be read; None when it was not asked for.
    """

    row_problems: list[Problem]
    general_problems: list[Problem]
    answers: dict[int, Any] | None

    @property
    def problems(self) -> list[Problem]:
        """All of them."""
        return [*self.general_problems, *self.row_problems]


class _Found:
    """Problems of cells: one for each column and kind, however many cells have it."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}
        self._examples: dict[tuple[str, str], str] = {}

    def add(self, column: str, row: int, error: CellError) -> None:
        key = (column, error.kind)
        self._rows.setdefault(key, []).append(row)
        self._examples.setdefault(key, error.example)

    def problems(self) -> list[Problem]:
        listed = []
        for (column, kind), rows in self._rows.items():
            example = self._examples[column, kind]
            between = ", e.g. " if len(rows) > 1 else ": "
            listed.append(Problem(f"{kind}{between}{example}" if example else kind, column, tuple(rows)))
        return listed


def check(
    table: Table, schema: Schema, cells: Cells, *, training: bool, answers: bool, progress: Progress | None = None
) -> Checked:
    """Look at every cell that a schema reads.

    Args:
        table: where they stand.
        schema: how they are read.
        cells: decodes them, and keeps what it decodes.
        training: whether the rows are meant for a training.
        answers: whether every row needs a target.
        progress: shows how far it is.

    Raises:
        InputError: the target is asked for, and the table has no such column.
    """
    found: dict[int, Any] | None = None
    row_problems: list[Problem] = []
    general: list[Problem] = []
    if answers:
        found, row_problems = _read_answers(table, schema)
        if len(table.frame) == 0:
            general = [Problem(f"{table.name} has no rows")]
        elif training:
            general = training_problems(schema, list(found.values()))
    return Checked(row_problems + _cell_problems(schema, cells, len(table.frame), progress), general, found)


def training_problems(schema: Schema, answers: Sequence[Any]) -> list[Problem]:
    """Return why some rows would not do for a training."""
    target, problems = schema.target, []
    if not schema.columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(schema.left_out.items())[:8])
        nothing = "there is nothing to learn from: every column is left out" if reasons else "there is no other column"
        problems.append(Problem(f"{nothing}{f' ({reasons})' if reasons else ''}; set the type of one to use it"))
    if len(answers) < MIN_ROWS:
        rows = "1 row" if len(answers) == 1 else f"{len(answers)} rows"
        problems.append(Problem(f"{rows} with a target: a training needs at least {MIN_ROWS}"))
    elif all(answer == answers[0] for answer in answers):
        problems.append(
            Problem(f"the target is {answers[0]!r} in every row: there is nothing to tell apart", target.name)
        )
    elif target.task != "regression":
        most = MAX_CLASSES if target.task == "multilabel" else min(MAX_CLASSES, len(answers) // 2)
        if len(target.levels) > most:
            rule = f"at most {most:,} can be learned from {len(answers):,} rows"
            advice = "merge rare ones, or set the task if this is no label"
            problems.append(Problem(f"{len(target.levels):,} classes: {rule}; {advice}", target.name))
    return problems


def training_notes(schema: Schema, answers: Sequence[Any]) -> list[str]:
    """Return what a user may want to know of the answers of training rows."""
    if schema.target.task != "classification":
        return []
    single = [label for label, count in Counter(answers).items() if count == 1]
    shown = f"{', '.join(map(repr, single[:5]))}{' …' if len(single) > 5 else ''}"
    return [f"target {schema.target.name!r}: labels of a single row: {shown}"] if single else []


def _read_answers(table: Table, schema: Schema) -> tuple[dict[int, Any], list[Problem]]:
    name = schema.target.name
    if name not in table.frame.columns:
        raise InputError(f"{table.name} has no column {name!r}, the target; {nearest(name, table.frame.columns)}")
    reader, found = AnswerReader(schema.target), _Found()
    answers: dict[int, Any] = {}
    for row, cell in enumerate(table.frame[name].tolist()):
        try:
            answers[row] = reader.read(cell)
        except CellError as error:
            found.add(name, row, error)
    return answers, found.problems()


def _cell_problems(schema: Schema, cells: Cells, rows: int, progress: Progress | None) -> list[Problem]:
    """Decode every cell once, and return what is wrong with them."""
    found = _Found()
    decoded = [column for column in schema.columns if column.type in _DECODED]
    shown = (progress if decoded and progress is not None else None) or Silent()
    with shown.bar("Checking", rows * len(decoded)) as bar:
        for column in schema.columns:
            for row in range(rows):
                try:
                    value = cells.get(column.name, row)
                    if isinstance(value, float) and not np.isfinite(value):
                        raise CellError("a number must be finite; leave the cell empty where there is none", str(value))
                except CellError as error:
                    found.add(column.name, row, error)
                if column.type in _DECODED:
                    bar.advance()
    return found.problems()
