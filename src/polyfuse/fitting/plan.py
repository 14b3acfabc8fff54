"""What a fit will do, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Schema
from polyfuse.learners.learner import Array
from polyfuse.metrics import METRICS
from polyfuse.recipe import Built, Recipe
from polyfuse.search.candidates import check_names
from polyfuse.training.loop import Outcome


@dataclass(frozen=True)
class Plan:
    """What a fit will do: the recipe with everything filled in, and what is known of the table.

    Attributes:
        table: the training table.
        recipe: completed.
        schema: of the table.
    """

    table: Table
    recipe: Recipe
    schema: Schema


@dataclass(frozen=True)
class Fitted:
    """What a fit made.

    Attributes:
        recipe: completed, with what was found in the place of "auto".
        built: the model, and how it is tuned.
        rows: of the training table.
        measured: rows that the model was measured on: they also decided.
        scores: of those rows, by models that had not learned from them; None where they were not scored yet.
        seconds: how long it took.
        outcome: how a training went, where one model was trained as a whole.
        comparison: what was compared, where the way to combine was to be found.
    """

    recipe: Recipe
    built: Built
    rows: Rows
    measured: Rows
    scores: Array | None
    seconds: float
    outcome: Outcome | None = None
    comparison: dict[str, Any] = field(default_factory=dict)


def make_plan(recipe: Recipe, table: Table) -> Plan:
    """Fill in what follows from the table.

    Raises:
        InputError: the recipe and the table do not go together.
    """
    ignored = [name for name, choice in recipe.columns.items() if choice == "ignore"]
    group = recipe.data.group
    if group is not None:
        if group not in table.frame.columns:
            hint = nearest(group, table.frame.columns)
            raise InputError(f"data.group: {table.name} has no column {group!r}; {hint}")
        ignored.append(group)
    columns = {name: modality.columns for name, modality in recipe.modalities.items()} if recipe.modalities else None
    schema = infer_schema(
        table,
        recipe.target,
        task=recipe.task,
        types={name: choice for name, choice in recipe.columns.items() if choice != "ignore"},
        modalities=columns,
        ignore=ignored,
    )
    completed = recipe.completed(schema)
    metric = completed.training.metric
    known = [name for name, found in METRICS.items() if schema.target.task in found.tasks]
    if metric is not None and metric not in known:
        raise InputError(f"training.metric: {metric!r} is no metric of {schema.target.task}; {nearest(metric, known)}")
    if completed.fusion.name == "auto":
        check_names(completed.fusion.options.get("candidates"))
    return Plan(table, completed, schema)
