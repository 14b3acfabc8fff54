"""The groups that a training is to be fair to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyfuse.core import processes
from polyfuse.core.errors import InputError, nearest
from polyfuse.data.groups import Grouping
from polyfuse.data.reading import Table
from polyfuse.learners.learner import Array
from polyfuse.metrics.metric import Metric
from polyfuse.model import FusionModel
from polyfuse.recipe import Recipe
from polyfuse.training.fairness import FairObjective

if TYPE_CHECKING:
    from polyfuse.fitting.job import Job


def check_fairness(recipe: Recipe, table: Table, validation: Table | None = None) -> None:
    """Check that tables have the groups that a training is to be fair to.

    Raises:
        InputError: the column is not there, is the target, or has one group or more than 20; or there are several
            processes.
    """
    if recipe.fairness is None:
        return
    column = recipe.fairness.column
    for some in (table, validation):
        if some is not None and column not in some.frame.columns:
            raise InputError(
                f"fairness.column: {some.name} has no column {column!r}; {nearest(column, some.frame.columns)}"
            )
    if column in ([recipe.target] if isinstance(recipe.target, str) else recipe.target):
        raise InputError(f"fairness.column: {column!r} is the target; name a column that divides the rows into groups")
    names = _grouping(column, table).names
    if len(names) < 2:
        raise InputError(
            f"fairness.column: all values of {column!r} are in one group, {', '.join(names)}; name a column with two"
        )
    if processes.started() > 1:
        raise InputError("fairness: of several processes none sees all groups of a batch; start one, without torchrun")


def groups_of(job: Job) -> tuple[Tensor | None, Tensor | None]:
    """Return the group of each row that is learned from, and of each row of the other table; None where not asked."""
    settings = job.plan.recipe.fairness
    if settings is None:
        return None, None
    grouping = _grouping(settings.column, job.plan.table)

    def codes(table: Table, positions: Array) -> Tensor:
        return torch.from_numpy(grouping.codes(table.frame[settings.column].iloc[positions]))

    mine = codes(job.plan.table, job.rows.positions)
    if job.other is None or job.other_table is None:
        return mine, None
    return mine, codes(job.other_table, job.other.positions)


def fair_objective(
    recipe: Recipe, model: FusionModel, groups: Tensor | None, target: Tensor, learning: Array, metric: Metric
) -> FairObjective | None:
    """Return the loss of a training that is to be fair, None where it is not asked for.

    Args:
        recipe: completed.
        model: that is trained.
        groups: of each row of the table.
        target: of each row of the table, encoded.
        learning: positions of the rows that are learned from.
        metric: that is told of the worst group.

    Raises:
        InputError: too few of the rows are in more than one group.
    """
    if recipe.fairness is None or groups is None:
        return None
    rows = torch.from_numpy(learning)
    return FairObjective(model.head, recipe.fairness, groups[rows], target[rows], metric)


def _grouping(column: str, table: Table) -> Grouping:
    try:
        return Grouping.of(column, table.frame[column])
    except InputError as error:
        raise InputError(f"fairness.column: {error}") from error
