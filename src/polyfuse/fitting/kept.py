"""Rows that are kept at the end of a fit, for the model that comes after."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import replace

import numpy as np
import pandas as pd

from polyfuse.core import processes
from polyfuse.data.cells import is_missing
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows, joined
from polyfuse.data.statistics import SCALARS
from polyfuse.fitting.job import Job
from polyfuse.fitting.plan import Fitted
from polyfuse.lineage import Offered, Reference, keep
from polyfuse.recipe import Recipe

_BLOCK = 1 << 14  # rows hashed at a time


def with_kept(job: Job, fitted: Fitted, given: Rows) -> Fitted:
    """Return what was fitted with the rows that are kept of it; of several processes the first has them.

    Args:
        job: the rows, and the recipe, which says how many are kept.
        fitted: what came out.
        given: all rows of the training table, of which the job may have a part.
    """
    if not processes.first():
        return fitted
    recipe, tables = job.plan.recipe, [(job.plan.table, given)]
    rows, held = fitted.rows, fitted.measured
    learned, where = np.arange(len(rows)), rows.positions
    if job.other is None:  # both stand in one table, and the model may have learned from both
        measured = np.searchsorted(where, held.positions)
        learned = np.setdiff1d(learned, measured) if fitted.apart else learned
    else:
        before = 0
        if job.other_table is not None:
            before = len(job.plan.table.frame)
            tables.append((job.other_table, job.other))
        measured = len(rows) + np.arange(len(held))
        rows, where = joined([rows, held]), np.concatenate([where, held.positions + before])
    others = pd.concat([table.frame[others_of(recipe, table)] for table, _ in tables]).iloc[where]
    offered = Offered(
        rows,
        where,
        learned,
        measured,
        None if fitted.apart else fitted.scores,
        others,
        groups_in(others, recipe.data.group),
    )
    settings = recipe.keep
    kept = keep(
        offered,
        [reference_of(table, some) for table, some in tables],
        rows=settings.rows,
        bytes=int(settings.megabytes * 2**20),
        apart=fitted.apart,
        seed=recipe.training.seed,
    )
    return replace(fitted, kept=kept)


def reference_of(table: Table, rows: Rows) -> Reference:
    """Return how a table is known again. rows: all that were read of it."""
    path = table.name if table.folder is not None else None
    return Reference(path=path, rows=len(rows), size=len(table.frame), digest=_digest(table, rows))


def _digest(table: Table, rows: Rows) -> str:
    """Hash what the rows of a table hold in the columns that the model knows, the target's included.

    Words and numbers are taken as they stand in the table, column by column: cell by cell would take as long as to
    read them did. Of images and recordings it is the content that counts, not the path.
    """
    whole = hashlib.blake2b(digest_size=16)
    scalars = [column.name for column in rows.schema.columns if column.type in SCALARS]
    decoded = [column.name for column in rows.schema.columns if column.type not in SCALARS]
    for name in [*scalars, *rows.schema.target.names, *decoded]:
        whole.update(f"{name}\n".encode())
        if name not in table.frame.columns:
            continue
        for start in range(0, len(rows), _BLOCK):
            here = slice(start, start + _BLOCK)
            if name in decoded:
                places = range(start, min(start + _BLOCK, len(rows)))
                whole.update(b"".join([rows.digest_of_cell(name, row) for row in places]))
            else:
                cells = table.frame[name].iloc[rows.positions[here]]
                whole.update(repr(cells.astype(object).where(cells.notna(), None).tolist()).encode(errors="replace"))
    return whole.hexdigest()


def groups_in(others: pd.DataFrame, column: str | None) -> list[Hashable] | None:
    """Return the group of each row, None where there are no groups; a row without one is a group of its own."""
    if column is None:
        return None
    return [("", i) if is_missing(cell) else cell for i, cell in enumerate(others[column])]


def others_of(recipe: Recipe, table: Table) -> list[str]:
    """Name the columns of a table that divide its rows into groups in training."""
    wanted = (recipe.data.group, recipe.fairness.column if recipe.fairness is not None else None)
    return [name for name in dict.fromkeys(wanted) if name is not None and name in table.frame.columns]
