"""From a recipe and a table to a trained model."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from polyfuse.core.compute import default_device
from polyfuse.core.errors import InputError, nearest
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.batches import Batches, Source, in_memory
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Schema
from polyfuse.data.splits import split
from polyfuse.metrics import METRICS
from polyfuse.recipe import Built, Recipe, build
from polyfuse.training.cache import FeatureCache
from polyfuse.training.checkpoints import Checkpoints
from polyfuse.training.loop import Outcome, Trainer
from polyfuse.training.tracking import make_accelerator, tracking

Indices: TypeAlias = NDArray[np.integer[Any]]


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
        built: the model with its best weights, and its tunings.
        outcome: how the training went.
        rows: of the training table.
        validation: the rows that decided which weights were kept.
        seconds: how long it took.
    """

    built: Built
    outcome: Outcome
    rows: Rows
    validation: Rows
    seconds: float


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
    return Plan(table, completed, schema)


def fit(
    plan: Plan,
    *,
    validation: Table | None = None,
    work: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Train the model of a plan.

    Args:
        plan: what to do.
        validation: rows that decide which weights are kept; split off the training table when left out.
        work: a folder for the checkpoint and the trackers; None keeps neither.
        resume: go on from the checkpoint there, if there is one.
        progress: shows how far it is.

    Raises:
        DataError: with every problem found in the tables.
    """
    begun = time.monotonic()
    progress = progress or Silent()
    recipe, settings = plan.recipe, plan.recipe.training
    logs = work / "logs" if work is not None else None
    accelerator = make_accelerator(default_device(), settings.trackers, logs)
    device = accelerator.device
    rows, training, held_out, validating = _read(plan, validation, progress)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        built = build(recipe, plan.schema, device)
        cache = FeatureCache()
        sources = _sources(built, rows, cache, device, progress)
        others = sources if held_out is rows else _sources(built, held_out, cache, device, progress)
        with tracking(accelerator, logs, "polyfuse", _flat(recipe.as_data())) as log:
            outcome = Trainer(
                built.model,
                _batches(built, rows, sources, training),
                _batches(built, held_out, others, validating),
                settings,
                accelerator,
                rates=_rates(built),
                checkpoints=Checkpoints(work, _run_id(plan, rows, held_out)) if work is not None else None,
                log=log,
                progress=progress,
                deadline=begun + settings.time_limit if settings.time_limit is not None else None,
            ).run(resume=resume)
    return Fitted(built, outcome, rows, held_out.subset(validating.tolist()), time.monotonic() - begun)


def cached_sources(
    built: Built,
    rows: Rows,
    cache: FeatureCache,
    device: torch.device,
    progress: Progress,
    *,
    without: Collection[str] = (),
) -> dict[str, Source]:
    """Return the Features of the modalities whose encoder is frozen, encoding what the cache does not hold yet.

    Args:
        built: the model.
        rows: whose values.
        cache: where Features are kept.
        device: where the encoders run.
        progress: shows how far it is.
        without: modalities that are not wanted.
    """
    model = built.model
    return {
        name: cache.source(
            model.encoder(name),
            rows,
            name,
            tokens=model.fusion.needs == "tokens",
            device=device,
            precision=model.precision,
            progress=progress,
        )
        for name in model.modalities
        if name in built.frozen and name not in without
    }


def _sources(
    built: Built, rows: Rows, cache: FeatureCache, device: torch.device, progress: Progress
) -> dict[str, Source]:
    """Return where the inputs of each modality come from, in the model's order."""
    frozen = cached_sources(built, rows, cache, device, progress)
    return {
        name: frozen[name] if name in frozen else in_memory(built.model.encoder(name), rows, name, progress=progress)
        for name in built.model.modalities
    }


def _batches(built: Built, rows: Rows, sources: Mapping[str, Source], chosen: Indices) -> Batches:
    return Batches(sources, rows.present, built.model.head.encode(rows.answers), chosen)


def _read(plan: Plan, validation: Table | None, progress: Progress) -> tuple[Rows, Indices, Rows, Indices]:
    """Return the rows to learn from and the rows that decide, each as a table and positions in it."""
    data = plan.recipe.data

    def read(table: Table, *, training: bool) -> Rows:
        return read_rows(
            table, plan.schema, training=training, answers=True, on_bad_row=data.on_bad_row, progress=progress
        )

    rows = read(plan.table, training=True)
    if validation is not None:
        held_out = read(validation, training=False)
        return rows, np.arange(len(rows)), held_out, np.arange(len(held_out))
    groups = None
    if data.group is not None:
        groups = plan.table.frame[data.group].iloc[rows.positions].tolist()
    training, validating = split(
        rows.answers,
        plan.schema.target.task,
        share=data.validation_share,
        seed=plan.recipe.training.seed,
        groups=groups,
    )
    return rows, training, rows, validating


def _rates(built: Built) -> dict[nn.Module, float]:
    """Return the learning rate of each backbone whose tuning has one of its own."""
    rates: dict[nn.Module, float] = {}
    for name, tuning in built.tunings.items():
        backbone = built.model.encoder(name).backbone
        if backbone is not None and tuning.learning_rate is not None:
            rates[backbone] = tuning.learning_rate
    return rates


def _run_id(plan: Plan, *tables: Rows) -> str:
    """Identify recipe and data: what a checkpoint must have in common with the run that goes on from it."""
    recipe = plan.recipe.as_data()
    for key in ("time_limit", "trackers", "checkpoint_every"):  # these do not change the weights
        recipe["training"].pop(key, None)
    whole = hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=16)
    for rows in tables:
        whole.update(json.dumps(rows.answers, default=str).encode())
        for name in plan.schema.modalities:
            for row in range(len(rows)):
                whole.update(rows.digest(name, row) or b"-")
    return whole.hexdigest()


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Flatten a recipe to dotted keys, as trackers want it."""
    flat: dict[str, str | float | bool] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float) else str(value)
    return flat
