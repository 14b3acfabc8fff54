"""What a fit will do, and what it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.inference import infer_schema
from polyfuse.data.measures import measure
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Schema
from polyfuse.drift import Sample
from polyfuse.ensemble import Ensemble, Member, is_table
from polyfuse.fitting.fairness import check_fairness
from polyfuse.heads.several import SeveralHead
from polyfuse.learners.learner import Array
from polyfuse.lineage import Kept
from polyfuse.model import FusionModel
from polyfuse.recipe import Built, Recipe
from polyfuse.screening import Screen
from polyfuse.search.candidates import check_names
from polyfuse.training.loop import Outcome
from polyfuse.tuning.backbone import count


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
        apart: whether the model that came out has learned from none of the rows that it was measured on.
        screen: where the recipe asks for one.
        reference: what new rows are compared with, unless the recipe says otherwise or there are too few rows.
        kept: rows for the model that comes after.
    """

    recipe: Recipe
    built: Built
    rows: Rows
    measured: Rows
    scores: Array | None
    seconds: float
    outcome: Outcome | None = None
    comparison: dict[str, Any] = field(default_factory=dict)
    apart: bool = True
    screen: Screen | None = None
    reference: Sample | None = None
    kept: Kept | None = None


def weights_trained(recipe: Recipe, built: Built) -> list[dict[str, Any]]:
    """Return of each part of a model how many weights it has, and how many of them were trained, as JSON values."""
    assert isinstance(recipe.tuning, dict)
    modalities = recipe.modalities or {}
    found, counted = [], set[nn.Module]()

    def add(part: str, tuning: str | None, module: nn.Module) -> None:
        if module in counted or not any(True for _ in module.parameters()):
            return
        counted.add(module)
        numbers = count(module)
        # What started at random was learned, though it may rest since.
        trained = numbers.all if getattr(module, "backbone", None) is None else numbers.trained
        found.append({"part": part, "tuning": tuning, "trained": trained, "added": numbers.added, "all": numbers.all})

    model = built.model
    assert isinstance(model, Ensemble | FusionModel)
    members = model.members if isinstance(model, Ensemble) else [Member("", 1.0, model, model.modalities)]
    for member in members:
        of = f" of {member.name}" if member.name else ""
        if not isinstance(member.model, FusionModel):
            # A learner's own weights are no tensors of a module; what it reads are the encoders.
            for name in member.modalities:
                if not is_table(model.encoder(name)):
                    add(f"{name} encoder", "frozen", model.encoder(name))
            continue
        for name in member.model.modalities:
            encoder = member.model.encoder(name)
            tuning = recipe.tuning[modalities[name].share or name].name
            shared = isinstance(model, Ensemble) and encoder is model.encoder(name)
            resting = shared and encoder.backbone is not None
            add(f"{name} encoder{'' if shared else of}", "frozen" if resting else tuning, encoder)
        add(f"fusion{of}", None, member.model.fusion)
        add(f"head{of}", None, member.model.head)
    return found


def history(fitted: Fitted) -> dict[str, Any]:
    """Return how a fit went, as JSON values."""
    about: dict[str, Any] = {
        "rows": len(fitted.rows),
        "skipped_rows": len(fitted.rows.skipped),
        "notes": fitted.rows.notes,
        "seconds": round(fitted.seconds, 3),
    }
    model = fitted.built.model
    if isinstance(model, FusionModel) and isinstance(model.head, SeveralHead):
        about["loss_weights"] = {name: round(weight, 6) for name, weight in model.head.weighs().items()}
    outcome = fitted.outcome
    if outcome is None:
        return {**about, "reason": fitted.comparison["reason"]}
    history = [{name: _defined(value) for name, value in epoch.items()} for epoch in outcome.history]
    told = {"metric": outcome.metric, "best": _defined(outcome.value), "epoch": outcome.epoch, "history": history}
    if outcome.cost is not None:
        told["cost_of_a_step"] = round(outcome.cost, 3)
    return {**about, **told, "reason": outcome.reason}


def _defined(value: float) -> float | None:
    """Return a figure as JSON has it: undefined ones are null."""
    return value if math.isfinite(value) else None


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
    reasons = {}
    if recipe.fairness is not None:
        check_fairness(recipe, table)
        named = {name for modality in (recipe.modalities or {}).values() for name in modality.columns}
        if recipe.fairness.column not in named:
            ignored.append(recipe.fairness.column)
            reasons = {recipe.fairness.column: "tells the groups of fairness"}
    columns = {name: modality.columns for name, modality in recipe.modalities.items()} if recipe.modalities else None
    schema = infer_schema(
        table,
        recipe.target,
        task=recipe.task,
        types={name: choice for name, choice in recipe.columns.items() if choice != "ignore"},
        modalities=columns,
        ignore=ignored,
    )
    schema = schema.model_copy(update={"left_out": {**schema.left_out, **reasons}})
    completed = recipe.completed(schema)
    if completed.training.metric is not None:
        measure(schema.target, completed.training.metric)
    if completed.fusion.name == "auto":
        check_names(completed.fusion.options.get("candidates"))
    return Plan(table, completed, schema)
