"""Which rows a refit learns from, which decide, and which it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.rows import joined as joined_rows
from polyfuse.data.schema import Schema
from polyfuse.data.splits import split
from polyfuse.fitting.kept import groups_in, others_of, reference_of
from polyfuse.lineage import Kept, Part, Reference, kept_table
from polyfuse.recipe import Recipe

#: New rows that a refit needs: half of so few are held out.
LEAST = 60
#: Share of the new rows that are held out, and how many at least.
HELD_OUT, LEAST_HELD = 0.3, 30
#: Share of the old rows kept to measure on that help decide which weights are kept.
DECIDING = 1 / 3

_Places = NDArray[np.int64]


@dataclass(frozen=True)
class Some:
    """Rows, and what is known of them.

    Attributes:
        rows: decoded.
        positions: (rows,) where they stand in the tables that they come from, one below the other.
        others: columns that divide them into groups in training, a row for each.
        scores: (rows, …) of the old model or of models like it, before calibration; None where it may score them.
    """

    rows: Rows
    positions: _Places
    others: pd.DataFrame
    scores: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, places: _Places) -> Some:
        """Return some of them."""
        scores = None if self.scores is None else self.scores[places]
        return Some(self.rows.subset(places.tolist()), self.positions[places], self.others.iloc[places], scores)


@dataclass(frozen=True)
class Portions:
    """What the rows of a refit are for.

    Attributes:
        replayed: old rows, learned from again.
        deciding_old: old rows that help decide which weights are kept.
        learned: new rows, learned from.
        deciding: new rows that decide which weights are kept.
        new: new rows, held out.
        old: old rows, held out.
        about: what rows these are.
        given: whether the user gave them, so that they stand in none of the references.
        references: the tables that rows come from, the oldest first.
    """

    replayed: Some
    deciding_old: Some
    learned: Some
    deciding: Some
    new: Some
    old: Some
    about: str
    given: bool
    references: list[Reference]

    def counts(self) -> dict[str, int]:
        """Return how many rows are learned from, those that decide included."""
        return {"old": len(self.replayed) + len(self.deciding_old), "new": len(self.learned) + len(self.deciding)}

    def notes(self) -> tuple[str, ...]:
        """Return what a user may want to know: values that the old model does not know stay unknown."""
        found = []
        for column in self.new.rows.schema.columns:
            if column.type != "category":
                continue
            parts = [some.rows for some in (self.learned, self.deciding, self.new)]
            known = set(column.levels)
            cells = [rows.cell(column.name, row) for rows in parts for row in range(len(rows))]
            unknown = [cell for cell in cells if cell is not None and cell not in known]
            if unknown:
                found.append(
                    f"column {column.name!r}: {len(unknown):,} of {len(cells):,} new rows have values that the model"
                    f" does not know, e.g. {unknown[0]!r:.60}: they are all read as one; fit anew to tell them apart"
                )
        return tuple(found)


def divide(
    recipe: Recipe,
    schema: Schema,
    kept: Kept | None,
    new: Table,
    *,
    old: Sequence[Table] = (),
    test: Table | None = None,
    replay: bool = True,
    progress: Progress | None = None,
) -> Portions:
    """Deal out new and old rows; the same seed deals them out alike.

    Args:
        recipe: of the old model.
        schema: of the old model, by which all rows are read.
        kept: what the old model kept; None where it is of a version that kept nothing.
        new: new rows with their answers.
        old: all the tables that the old model comes from, to replay them whole.
        test: old rows that the old model has not learned from, to measure on.
        replay: whether old rows are learned from again.
        progress: shows how far it is.

    Raises:
        DataError: with every problem found in a table.
        InputError: there are too few rows, a table is not the one that the model learned from, or one is needed.
    """

    def read(table: Table) -> Rows:
        bad = recipe.data.on_bad_row
        return read_rows(table, schema, training=False, answers=True, on_bad_row=bad, progress=progress)

    def some(table: Table, positions: _Places | None = None, before: int = 0) -> Some:
        rows = read(table)
        where = rows.positions + before if positions is None else positions[rows.positions]
        return Some(rows, where, table.frame[others_of(recipe, table)].iloc[rows.positions])

    _check_groups(recipe, new, *old)
    fresh = some(new)
    if len(fresh) < LEAST:
        raise InputError(f"{new.name} has {len(fresh)} rows with an answer: a refit needs at least {LEAST} new ones")
    if old:
        known, references = _given(kept, old, [some(table) for table in old])
    else:
        known, references = _kept(schema, kept, some), list(kept.references) if kept is not None else []
    replayed, held = known
    if test is not None:
        measured, deciding_old, about = some(test), held, "as given"
    else:
        measured, deciding_old, about = _halves(recipe, schema, kept, held)
    if not replay:
        replayed, deciding_old = (part.subset(np.empty(0, dtype=np.int64)) for part in (replayed, deciding_old))
    before = sum(reference.size for reference in references)
    fresh = replace(fresh, positions=fresh.positions + before)
    learning, held_out = _split(recipe, schema, fresh, max(HELD_OUT, LEAST_HELD / len(fresh)))
    learned, deciding = _split(recipe, schema, learning, recipe.data.validation_share)
    references.append(reference_of(new, fresh.rows))
    return Portions(replayed, deciding_old, learned, deciding, held_out, measured, about, test is not None, references)


def _check_groups(recipe: Recipe, *tables: Table) -> None:
    wanted = [("data.group", recipe.data.group)]
    wanted += [("fairness.column", recipe.fairness.column)] if recipe.fairness is not None else []
    for table in tables:
        for key, name in wanted:
            if name is not None and name not in table.frame.columns:
                raise InputError(
                    f"{table.name} has no column {name!r}, which the model's recipe names in {key}; add it"
                )


def _given(
    kept: Kept | None, tables: Sequence[Table], parts: Sequence[Some]
) -> tuple[tuple[Some, Some], list[Reference]]:
    """Return the rows of the old tables that are replayed, and those to measure on, and what the tables are.

    Raises:
        InputError: they are not those that the model learned from.
    """
    references = [reference_of(table, part.rows) for table, part in zip(tables, parts, strict=True)]
    if kept is not None:
        wanted = {reference.digest: reference for reference in kept.references}
        for table, reference in zip(tables, references, strict=True):
            if reference.digest not in wanted:
                raise InputError(
                    f"{table.name} is not a table that the model learned from: its digest is {reference.digest}, and"
                    f" theirs are {', '.join(map(_named, kept.references))}; give the very same rows, or leave --old"
                    " out and replay those that were kept"
                )
        found = {reference.digest: part for reference, part in zip(references, parts, strict=True)}
        lacking = [reference for reference in kept.references if reference.digest not in found]
        if lacking:
            raise InputError(
                f"the model learned from {', '.join(map(_named, lacking))} too: give all of its tables, each with"
                " --old, or none"
            )
        references, parts = list(kept.references), [found[reference.digest] for reference in kept.references]
    starts = np.cumsum([0, *[reference.size for reference in references]])[:-1]
    whole = _joined([replace(part, positions=part.positions + at) for part, at in zip(parts, starts, strict=True)])
    nothing = np.empty(0, dtype=np.int64)
    if kept is None:
        return (whole, whole.subset(nothing)), references
    place = {position: i for i, position in enumerate(whole.positions.tolist())}
    there = np.array([i for i, at in enumerate(kept.held.positions.tolist()) if at in place], dtype=np.int64)
    held = np.array([place[at] for at in kept.held.positions[there].tolist()], dtype=np.int64)
    scores = None if kept.scores is None else kept.scores[there]
    measured = replace(whole.subset(held), scores=scores)
    return (whole.subset(np.setdiff1d(np.arange(len(whole)), held)), measured), references


def _kept(schema: Schema, kept: Kept | None, some: Callable[..., Some]) -> tuple[Some, Some]:
    """Return the kept rows to replay, and those to measure on.

    Raises:
        InputError: none were kept.
    """
    if kept is None or kept.held.table is None:
        why = "is of a version that kept no rows" if kept is None else "keeps no rows (keep: none)"
        raise InputError(f"the model {why}: give the table that it learned from with --old (old=)")

    def read(part: Part, name: str) -> Some | None:
        return some(Table(kept_table(part, schema), None, name), part.positions) if len(part.positions) else None

    learned, held = read(kept.learned, "the rows kept to replay"), read(kept.held, "the rows kept to measure on")
    if held is None:
        raise InputError("the model kept no rows to measure on: give its table with --old, and others with --test")
    scores = None if kept.scores is None else kept.scores[held.rows.positions]
    held = replace(held, scores=scores)
    return learned or held.subset(np.empty(0, dtype=np.int64)), held


def _halves(recipe: Recipe, schema: Schema, kept: Kept | None, held: Some) -> tuple[Some, Some, str]:
    """Return the old rows to measure on, and those that help decide, and what the first are.

    Raises:
        InputError: there are too few.
    """
    if len(held) < 2:
        raise InputError("the model kept no rows to measure on: give some that it has not learned from with --test")
    measured, deciding = _split(recipe, schema, held, DECIDING)
    apart = kept is not None and kept.apart
    return measured, deciding, "not learned from" if apart else "scored by folds"


def _split(recipe: Recipe, schema: Schema, some: Some, share: float) -> tuple[Some, Some]:
    """Split rows in two as a fit does. share: of the second part."""
    groups = groups_in(some.others, recipe.data.group)
    seed = recipe.training.seed
    first, second = split(some.rows.answers, schema.target.asked, share=share, seed=seed, groups=groups)
    return some.subset(first), some.subset(second)


def _joined(parts: Sequence[Some]) -> Some:
    """Return rows of several tables, one below the other, without scores."""
    return Some(
        joined_rows([part.rows for part in parts]),
        np.concatenate([part.positions for part in parts]),
        pd.concat([part.others for part in parts], ignore_index=True),
    )


def joined(parts: Sequence[Some]) -> tuple[Some, Table]:
    """Return rows of several tables as one, and a table in which the groups of each stand at its position."""
    whole = _joined(parts)
    return whole, Table(whole.others, None, "the rows of the refit")


def _named(reference: Reference) -> str:
    return f"{reference.path or 'a table in memory'} ({reference.digest}, {reference.rows:,} rows)"
