"""What is wrong with a table: everything is found before any work, and reported together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyfuse.core.errors import InputError, Problem, nearest
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.cells import CellError
from polyfuse.data.decoding import Cells
from polyfuse.data.reading import Table
from polyfuse.data.schema import Schema, Target
from polyfuse.data.targets import AnswerReader, no_answer

#: A training needs so many rows.
MIN_ROWS = 10
MAX_CLASSES = 1000
_DECODED = frozenset({"image", "audio", "points", "embedding"})


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        row_problems: those of single rows.
        general_problems: those of the table as a whole, were all its rows used.
        answers: position to answer, of the rows whose target could be read, or one of several; None when it was not
            asked for.
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
        answers: whether every row needs a target, or one of several.
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
    return Checked(row_problems + cell_problems(schema, cells, len(table.frame), progress), general, found)


def training_problems(schema: Schema, answers: Sequence[Any]) -> list[Problem]:
    """Return why some rows would not do for a training."""
    problems = []
    if not schema.columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(schema.left_out.items())[:8])
        nothing = "there is nothing to learn from: every column is left out" if reasons else "there is no other column"
        problems.append(Problem(f"{nothing}{f' ({reasons})' if reasons else ''}; set the type of one to use it"))
    if not schema.target.parts:
        return problems + _answer_problems(schema.target, answers, None)
    for part, found in zip(schema.target.parts, each_answers(schema.target, answers), strict=True):
        problems += _answer_problems(part, found, part.name)
    return problems


def training_notes(schema: Schema, answers: Sequence[Any]) -> list[str]:
    """Return what a user may want to know of the answers of training rows."""
    notes = []
    for part, found in zip(schema.target.each(), each_answers(schema.target, answers), strict=True):
        if schema.target.parts and len(found) < len(answers):
            notes.append(f"target {part.name!r}: {len(found):,} of {len(answers):,} rows have it")
        if part.task != "classification":
            continue
        single = [label for label, count in Counter(found).items() if count == 1]
        shown = f"{', '.join(map(repr, single[:5]))}{' …' if len(single) > 5 else ''}"
        notes += [f"target {part.name!r}: labels of a single row: {shown}"] if single else []
    return notes


def each_answers(target: Target, answers: Sequence[Any]) -> list[list[Any]]:
    """Return the answers for each of several targets, of the rows that have it; all of them where there is one."""
    if not target.parts:
        return [list(answers)]
    return [[answer[i] for answer in answers if answer[i] is not None] for i in range(len(target.parts))]


def _answer_problems(target: Target, answers: Sequence[Any], column: str | None) -> list[Problem]:
    """Return why answers would not do for a training. column: of one among several targets."""
    if len(answers) < MIN_ROWS:
        rows = "1 row" if len(answers) == 1 else f"{len(answers)} rows"
        return [Problem(f"{rows} with a target: a training needs at least {MIN_ROWS}", column)]
    if all(answer == answers[0] for answer in answers):
        return [Problem(f"the target is {answers[0]!r} in every row: there is nothing to tell apart", target.name)]
    most = MAX_CLASSES if target.task == "multilabel" else min(MAX_CLASSES, len(answers) // 2)
    if target.task != "regression" and len(target.levels) > most:
        rule = f"at most {most:,} can be learned from {len(answers):,} rows"
        advice = "merge rare ones, or set the task if this is no label"
        return [Problem(f"{len(target.levels):,} classes: {rule}; {advice}", target.name)]
    return []


def _read_answers(table: Table, schema: Schema) -> tuple[dict[int, Any], list[Problem]]:
    """Return the answers of the rows that have one, and what is wrong with the others.

    Of several targets a row may lack some, and so may the table: such an answer is None.
    """
    target, found = schema.target, _Found()
    known = [part for part in target.each() if part.name in table.frame.columns]
    if not known:
        what = "the target" if len(target.names) == 1 else f"nor another of the targets {', '.join(target.names)}"
        missing = target.names[0]
        raise InputError(f"{table.name} has no column {missing!r}, {what}; {nearest(missing, table.frame.columns)}")
    answers: dict[int, Any] = {}
    columns = {part.name: (AnswerReader(part), table.frame[part.name].tolist()) for part in known}
    if not target.parts:
        (reader, cells), *_ = columns.values()
        for row, cell in enumerate(cells):
            try:
                answers[row] = reader.read(cell)
            except CellError as error:
                found.add(target.name, row, error)
        return answers, found.problems()
    nothing = []
    for row in range(len(table.frame)):
        several, wrong = _read_several(target, columns, row, found)
        if any(answer is not None for answer in several):
            answers[row] = several
        elif not wrong:
            nothing.append(row)
    named = ", ".join(map(repr, target.names))
    lacking = Problem(f"none of the targets {named} is there; fill one in, or leave the row out", None, tuple(nothing))
    return answers, [*found.problems(), *([lacking] if nothing else [])]


def _read_several(
    target: Target, columns: Mapping[str, tuple[AnswerReader, list[Any]]], row: int, found: _Found
) -> tuple[tuple[Any, ...], bool]:
    """Return a row's answer for each of several targets, None where there is none, and whether one is wrong."""
    answers: list[Any] = []
    wrong = False
    for name in target.names:
        reader, cells = columns.get(name, (None, []))
        answer = None
        if reader is not None and not no_answer(cells[row]):
            try:
                answer = reader.read(cells[row])
            except CellError as error:
                found.add(name, row, error)
                wrong = True
        answers.append(answer)
    return tuple(answers), wrong


def cell_problems(schema: Schema, cells: Cells, rows: int, progress: Progress | None) -> list[Problem]:
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
