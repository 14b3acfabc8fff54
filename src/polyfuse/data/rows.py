"""The rows of a table as a schema reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from polyfuse.core.errors import DataError, InputError, Problem
from polyfuse.core.progress import Progress
from polyfuse.data.checks import Checked, cell_problems, check, training_notes, training_problems
from polyfuse.data.decoding import MEMORY, Cells, Decoded, JoinedCells, ReplacedCells
from polyfuse.data.media import Loaded, MediaFolder
from polyfuse.data.reading import Table
from polyfuse.data.schema import Schema

OnBadRow: TypeAlias = Literal["raise", "skip", "absent"]


class Rows:
    """Some rows of a table as a schema reads them. Made by `read_rows`.

    Attributes:
        schema: how they are read.
        index: their labels in the table.
        positions: (rows,) their positions in the table.
        present: (rows, modalities) bool, in the order of the schema: whether any cell of the modality is there.
        skipped: positions of rows that were left out, to the reason.
        notes: what a user may want to know about how they were read.
    """

    def __init__(
        self,
        cells: Decoded,
        schema: Schema,
        index: pd.Index,
        positions: NDArray[np.int64],
        answers: Sequence[Any] | None,
        *,
        skipped: dict[int, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.schema, self.index, self.positions = schema, index, positions
        self.skipped, self.notes = dict(skipped or {}), list(notes)
        self._cells, self._answers = cells, answers
        self.present = self._there()

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def answered(self) -> bool:
        """Whether the rows were read with their answers."""
        return self._answers is not None

    @property
    def answers(self) -> list[Any]:
        """The target: labels as in its levels, floats, or lists of labels; of several a tuple, None for one not there.

        Raises:
            InputError: the rows were read without.
        """
        if self._answers is None:
            raise InputError("these rows were read without their answers; read them with answers=True")
        return list(self._answers)

    def answer(self, row: int) -> Any:
        """Return the answer of one row, as in `answers`."""
        return None if self._answers is None else self._answers[row]

    def value(self, modality: str, row: int) -> tuple[Any, ...] | None:
        """Return a decoded cell for each column of a modality, None where one is missing; None when all are.

        Text and categories are str, numbers float, datetimes float (seconds since 1970 UTC), images lists of RGB
        images, audio `Sound`, points (points, numbers) and embeddings (size,) float32.
        """
        position = int(self.positions[row])
        cells = tuple(self._cells.get(name, position) for name in self.schema.modalities[modality])
        return None if all(cell is None for cell in cells) else cells

    def cell(self, column: str, row: int) -> Any:
        """Return one decoded cell, None where it is missing; as in `value`."""
        return self._cells.get(column, int(self.positions[row]))

    def decoded(self) -> dict[tuple[str, int], Any]:
        """Return every cell that is there, decoded, by its column and row; `rows_with` makes the same rows of them."""
        names = [column.name for column in self.schema.columns]
        found = {(name, row): self.cell(name, row) for name in names for row in range(len(self))}
        return {place: cell for place, cell in found.items() if cell is not None}

    def loaded(self, column: str, row: int) -> list[Loaded]:
        """Return what one cell of media holds, not decoded; nothing where it is missing."""
        return self._cells.loaded(column, int(self.positions[row]))

    def text(self, modality: str, row: int) -> str | None:
        """Return the texts of a modality's columns, joined by newlines; None when all are missing."""
        columns = [column.name for column in self.schema.of(modality) if column.type == "text"]
        position = int(self.positions[row])
        return joined_text([self._cells.get(name, position) for name in columns])

    def digest(self, modality: str, row: int) -> bytes | None:
        """Return a hash (16 bytes) of a value, None when it is absent: equal for equal content in the same order."""
        position = int(self.positions[row])
        names = self.schema.modalities[modality]
        if not any((name, position) in self._cells for name in names):
            return None
        whole = hashlib.blake2b(digest_size=16)
        for column in self.schema.of(modality):
            found = self._cells.digest(column.name, position)
            whole.update(f"{column.type} {len(found)} ".encode() + found)
        return whole.digest()

    def digest_of_cell(self, column: str, row: int) -> bytes:
        """Return a hash of what one cell holds; media are not decoded for it."""
        return self._cells.digest(column, int(self.positions[row]))

    def subset(self, rows: Sequence[int]) -> Rows:
        """Return some of the rows; what is decoded is shared."""
        chosen = np.asarray(rows, dtype=np.int64)
        answers = None if self._answers is None else [self._answers[row] for row in chosen.tolist()]
        part = Rows.__new__(Rows)
        part.schema, part.index, part.positions = self.schema, self.index[chosen], self.positions[chosen]
        part.present, part._cells, part._answers = self.present[torch.from_numpy(chosen)], self._cells, answers
        part.skipped, part.notes = self.skipped, self.notes
        return part

    def seen_by(self, schema: Schema) -> Rows:
        """Return the same rows as a schema reads them that knows some of their columns only."""
        part = self.subset(range(len(self)))
        part.schema = schema
        part.present = part._there()
        return part

    def replaced(self, others: Mapping[tuple[str, int], Any]) -> Rows:
        """Return the same rows with other cells in some places; these rows stay as they are.

        Args:
            others: decoded cells as in `value`, by column and row; None for one that is taken away.
        """
        part = self.subset(range(len(self)))
        places = {(column, int(self.positions[row])): cell for (column, row), cell in others.items()}
        part._cells = ReplacedCells(self._cells, places)
        part.present = part._there()
        return part

    def _there(self) -> torch.Tensor:
        """Return which modalities each row has: (rows, modalities) bool."""
        modalities = self.schema.modalities.values()
        there = [
            [any((column, row) in self._cells for column in columns) for columns in modalities]
            for row in self.positions.tolist()
        ]
        return torch.tensor(there, dtype=torch.bool).reshape(len(self.positions), len(modalities))


def rows_of(records: Sequence[Mapping[str, Any]], schema: Schema, media: MediaFolder) -> Rows:
    """Check and decode rows that are given as dicts: what `read_rows` does of a table, which for one row costs more.

    Args:
        records: cells by column; what a row lacks is missing.
        schema: of the training table.
        media: where the files are that cells name.

    Raises:
        DataError: with every problem found.
    """
    columns = {column.name: [record.get(column.name) for record in records] for column in schema.columns}
    cells, count = Cells(columns, media, schema), len(records)
    if problems := cell_problems(schema, cells, count, None):
        raise DataError(problems)
    return Rows(cells, schema, pd.RangeIndex(count), np.arange(count, dtype=np.int64), None)


def rows_with(cells: Mapping[tuple[str, int], Any], count: int, schema: Schema) -> Rows:
    """Return rows whose cells are decoded already, as `Rows.decoded` gives them; what is not there is missing.

    Args:
        cells: by column and row.
        count: rows.
        schema: of the training table.
    """
    known = ReplacedCells(Cells({}, MediaFolder(Path()), schema), cells)
    return Rows(known, schema, pd.RangeIndex(count), np.arange(count, dtype=np.int64), None)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several tables that one schema reads, one below the other, numbered anew.

    What is decoded is shared. Answers are left out where some have none.
    """
    places = [(part._cells, position) for part in parts for position in part.positions.tolist()]
    whole = Rows.__new__(Rows)
    whole.schema, whole._cells, whole._answers = parts[0].schema, JoinedCells(places), None
    if all(part._answers is not None for part in parts):
        whole._answers = [answer for part in parts for answer in part.answers]
    whole.index, whole.positions = pd.RangeIndex(len(places)), np.arange(len(places), dtype=np.int64)
    whole.present = torch.cat([part.present for part in parts])
    whole.skipped, whole.notes = {}, []
    return whole


def joined_text(cells: Sequence[str | None]) -> str | None:
    """Return the texts of some cells, joined by newlines; None when all are missing."""
    found = [cell for cell in cells if cell is not None]
    return "\n".join(found) if found else None


def read_rows(
    table: Table,
    schema: Schema,
    *,
    training: bool,
    answers: bool | None = None,
    on_bad_row: OnBadRow = "raise",
    progress: Progress | None = None,
    memory: int = MEMORY,
) -> Rows:
    """Check every cell of a table that a schema reads, decoding each once, and return the rows.

    A column that the table lacks is missing in every row; one that the schema lacks is ignored.

    Args:
        table: to read.
        schema: of the training table.
        training: whether the rows must do for a training: at least MIN_ROWS of them, two classes, and so on.
        answers: whether the target is read, and every row needs one (one of several); as `training` when left out.
        on_bad_row: "raise" reports every problem; "skip" leaves out the rows that have one; "absent" takes cells that
            cannot be read for missing, and leaves out only rows whose target cannot be read (none of several).
        progress: shows how far it is.
        memory: room for decoded media, in bytes; those beyond are decoded when they are asked for.

    Raises:
        DataError: with every problem found.
        InputError: the target is asked for, and the table has no such column.
    """
    known = [column.name for column in schema.columns if column.name in table.frame.columns]
    cells = Cells({name: table.frame[name].tolist() for name in known}, table.media, schema, memory)
    asked = training if answers is None else answers
    checked = check(table, schema, cells, training=training, answers=asked, progress=progress)
    if on_bad_row == "raise" and checked.problems:
        raise DataError(checked.problems)
    # The problems of targets come first, so that the reason is theirs.
    skipped = {
        row: str(Problem(problem.message, problem.column))
        for problem in reversed(checked.row_problems)
        for row in problem.rows
        if on_bad_row == "skip" or (checked.answers is not None and row not in checked.answers)
    }
    for problem in checked.row_problems:
        if problem.column is not None and problem.column not in schema.target.names:
            cells.blank.update((problem.column, row) for row in problem.rows)
    positions = np.asarray([row for row in range(len(table.frame)) if row not in skipped], dtype=np.int64)
    return _kept(table, schema, cells, checked, positions, skipped, training=training)


def _kept(
    table: Table,
    schema: Schema,
    cells: Cells,
    checked: Checked,
    positions: NDArray[np.int64],
    skipped: dict[int, str],
    *,
    training: bool,
) -> Rows:
    """Return the rows that are left.

    Raises:
        DataError: they are none, or too few or too much alike for a training.
    """
    if len(positions) == 0 and (skipped or checked.answers is not None):
        reason = "no row is left without a problem" if skipped else f"{table.name} has no rows"
        raise DataError([Problem(reason), *checked.row_problems])
    found = None if checked.answers is None else [checked.answers[row] for row in positions.tolist()]
    if training and found is not None and (general := training_problems(schema, found)):
        raise DataError([*general, *(checked.row_problems if skipped else ())])
    notes = training_notes(schema, found) if training and found is not None else []
    if skipped:
        notes.append(f"{len(skipped):,} of {len(table.frame):,} rows were left out: {next(iter(skipped.values()))}")
    index = table.frame.index[positions]
    return Rows(cells, schema, index, positions, found, skipped=dict(sorted(skipped.items())), notes=notes)
