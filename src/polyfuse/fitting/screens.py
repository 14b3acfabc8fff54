"""A screen at the end of a fit."""

from __future__ import annotations

from dataclasses import replace

from polyfuse.core import processes
from polyfuse.fitting.job import Job
from polyfuse.fitting.plan import Fitted
from polyfuse.fitting.sources import cached_sources
from polyfuse.screening import check_room, fit_screen


def rows_apart(job: Job) -> Job:
    """Return the job with rows for the screen's threshold kept apart, if a screen is asked for.

    They are those that decide which weights are kept. Where the way to combine is found, all rows would be learned
    from: there as many are taken out before.

    Raises:
        InputError: they are too few.
    """
    settings = job.plan.recipe.screen
    if settings is None:
        return job
    if job.other is None and job.found:
        learning, held = (job.rows.subset(half.tolist()) for half in job.halves)
        # What decided is gone from the rows: where a model begins with another, those that decide are split off anew.
        start = None if job.start is None else replace(job.start, aside=None)
        job = replace(job, rows=learning, other=held, start=start)
    check_room(len(job.halves[1]) if job.other is None else len(job.other), settings.rate)
    return job


def with_screen(job: Job, fitted: Fitted) -> Fitted:
    """Return what was fitted with its screen, if one is asked for; of several processes the first has it."""
    settings = job.plan.recipe.screen
    if settings is None or not processes.first():
        return fitted
    learned = fitted.rows
    if job.other is None:  # both stand in one table
        apart = set(fitted.measured.positions.tolist())
        learned = learned.subset([row for row, at in enumerate(learned.positions.tolist()) if at not in apart])
    device = job.accelerator.device
    screen = fit_screen(
        fitted.built.model,
        learned,
        fitted.measured,
        device,
        rate=settings.rate,
        neighbours=settings.neighbours,
        seed=job.plan.recipe.training.seed,
        sources=lambda rows: cached_sources(fitted.built, rows, job.cache, device, job.progress),
        progress=job.progress,
        deadline=job.end,
    )
    return replace(fitted, screen=screen)
