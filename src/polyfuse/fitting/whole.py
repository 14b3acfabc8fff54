"""One model, trained as a whole: every encoder that moves, the fusion and the head together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from polyfuse.data.batches import Batches
from polyfuse.data.rows import Rows
from polyfuse.fitting.job import Job
from polyfuse.fitting.sources import sources_of
from polyfuse.learners.learner import Array
from polyfuse.model import FusionModel
from polyfuse.recipe import Built, Recipe, build
from polyfuse.training.loop import Outcome, Trainer, scored


@dataclass(frozen=True)
class Whole:
    """A model trained as a whole.

    Attributes:
        built: with its best weights.
        outcome: how the training went.
        rows: the table of the rows that decided which weights were kept.
        held: positions of those rows.
        scores: of those rows.
    """

    built: Built
    outcome: Outcome
    rows: Rows
    held: Array
    scores: Array


def fit_whole(job: Job, recipe: Recipe, *, deadline: float | None = None) -> Whole:
    """Train the model of a recipe with one fusion.

    Args:
        job: the rows, and where it is computed.
        recipe: completed, with a fusion.
        deadline: time.monotonic() at which training ends; that of the job when left out.
    """
    settings, device, rows = recipe.training, job.accelerator.device, job.rows
    deadline = job.deadline if deadline is None else deadline
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        built = build(recipe, job.plan.schema, device)
        assert isinstance(built.model, FusionModel)
        sources = sources_of(built, rows, job.cache, device, job.progress)
        target = built.model.head.encode(rows.answers)
        if job.other is None:
            learning, held = job.halves
            training = Batches(sources, rows.present, target, learning)
            validation = Batches(sources, rows.present, target, held)
        else:
            held = np.arange(len(job.other))
            others = sources_of(built, job.other, job.cache, device, job.progress)
            training = Batches(sources, rows.present, target, np.arange(len(rows)))
            validation = Batches(others, job.other.present, built.model.head.encode(job.other.answers), held)
        trainer = Trainer(
            built.model,
            training,
            validation,
            settings,
            job.accelerator,
            tunings=[(built.model.encoder(name), tuning) for name, tuning in built.tunings.items()],
            checkpoints=job.checkpoints(),
            log=job.log,
            progress=job.progress,
            deadline=None if math.isinf(deadline) else deadline,
        )
        outcome = trainer.run(resume=job.resume)
    return Whole(built, outcome, job.other or rows, held, scored(built.model, validation, device)[1])
