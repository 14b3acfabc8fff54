"""From a recipe and a table to a trained model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyfuse.core import processes
from polyfuse.core.compute import default_device
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows
from polyfuse.fitting.fairness import check_fairness
from polyfuse.fitting.found import fit_found
from polyfuse.fitting.job import Job, read
from polyfuse.fitting.kept import with_kept
from polyfuse.fitting.plan import Fitted, Plan, history, make_plan, weights_trained
from polyfuse.fitting.references import with_reference
from polyfuse.fitting.screens import rows_apart, with_screen
from polyfuse.fitting.sources import cached_sources
from polyfuse.fitting.start import Start
from polyfuse.fitting.threats import with_budgets
from polyfuse.fitting.whole import fit_better
from polyfuse.recipe.building import with_ways
from polyfuse.training.tracking import make_accelerator, tracking

__all__ = ["Fitted", "Plan", "Start", "cached_sources", "fit", "history", "make_plan", "weights_trained"]


def fit(
    plan: Plan,
    *,
    validation: Table | None = None,
    rows: Rows | None = None,
    work: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    begun: float | None = None,
    start: Start | None = None,
) -> Fitted | None:
    """Train the model of a plan.

    Where torchrun started several processes, each has to call this; the first one always gets what was fitted, others
    may get None.

    Args:
        plan: what to do.
        validation: rows that decide which weights are kept; split off the training table when left out.
        rows: of the training table, where they were read before; all of it is read when left out.
        work: a folder for the checkpoint and the trackers; None keeps neither.
        resume: go on from the checkpoint there, if there is one.
        progress: shows how far it is.
        begun: time.monotonic() from which a time limit counts; now when left out.
        start: the model to begin with; a fresh one when left out. What is kept for the next model is then left to the
            caller, who knows where the rows come from.

    Raises:
        DataError: with every problem found in the tables.
    """
    begun = time.monotonic() if begun is None else begun
    progress = progress or Silent()
    logs = work / "logs" if work is not None else None
    accelerator = make_accelerator(default_device(), plan.recipe.training.trackers, logs)
    check_fairness(plan.recipe, plan.table, validation)
    rows = rows or read(plan, plan.table, progress, training=True)
    other = read(plan, validation, progress, training=False) if validation is not None else None
    with tracking(accelerator, logs, "polyfuse", _flat(plan.recipe.as_data())) as log:
        job = rows_apart(Job(plan, rows, other, accelerator, work, resume, log, progress, begun, validation, start))
        if job.found:
            found = fit_found(job)
            if found is None:
                return None
            found = replace(found, recipe=with_ways(found.recipe, found.built.model))
            return _with_what_stays(job, found, rows)
        whole, recipe = fit_better(job, plan.recipe, job.metric)
    measured = whole.rows.subset(whole.held.tolist())
    seconds = time.monotonic() - begun
    recipe = with_budgets(with_ways(recipe, whole.built.model), whole.built, plan.schema)
    fitted = Fitted(recipe, whole.built, whole.learned, measured, whole.scores, seconds, whole.outcome)
    return _with_what_stays(job, fitted, rows)


def _with_what_stays(job: Job, fitted: Fitted, given: Rows) -> Fitted:
    """Return what was fitted with its screen and the rows that it keeps: the first process makes them, by itself.

    Args:
        job: the rows, and where it is computed.
        fitted: what came out.
        given: all rows of the training table.
    """
    with processes.alone():
        fitted = with_reference(job, with_screen(job, fitted))
        return fitted if job.start is not None else with_kept(job, fitted, given)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Flatten a recipe to dotted keys, as trackers want it."""
    flat: dict[str, str | float | bool] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, bool | int | float) else str(value)
    return flat
