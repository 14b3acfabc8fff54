"""One model, trained as a whole: every encoder that moves, the fusion and the head together."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from polyfuse.core import processes
from polyfuse.data.augmentation import build_augmentations, default_augmentations
from polyfuse.data.augmentation.source import AugmentedSource
from polyfuse.data.batches import Batches, Source
from polyfuse.data.measures import measure
from polyfuse.data.rows import Rows
from polyfuse.fitting.estimate import encoding_seconds, in_time
from polyfuse.fitting.fairness import fair_objective, groups_of
from polyfuse.fitting.job import Job
from polyfuse.fitting.sources import sources_of
from polyfuse.fitting.start import gentle, warm
from polyfuse.fitting.threats import check_noise_of_training, threats_of_training, with_embeddings
from polyfuse.learners.learner import Array
from polyfuse.metrics.metric import Metric
from polyfuse.model import FusionModel
from polyfuse.recipe import Built, Component, Recipe, build
from polyfuse.training.loop import Outcome, Trainer, scored


@dataclass(frozen=True)
class Whole:
    """A model trained as a whole.

    Attributes:
        built: with its best weights.
        outcome: how the training went.
        learned: rows that were learned from and split.
        rows: the table of the rows that decided which weights were kept.
        held: positions of those rows.
        scores: of those rows.
    """

    built: Built
    outcome: Outcome
    learned: Rows
    rows: Rows
    held: Array
    scores: Array


def fit_better(job: Job, recipe: Recipe, metric: Metric, *, deadline: float | None = None) -> tuple[Whole, Recipe]:
    """Train the model of a recipe; with augmentation "auto" once without and once with it, and keep the better one.

    Args:
        job: the rows, and where it is computed.
        recipe: completed, with a fusion.
        metric: that decides, on the rows kept aside.
        deadline: time.monotonic() at which training ends; that of the job when left out.

    Returns:
        The model, and its recipe with the augmentation that it was trained with.
    """
    if recipe.augmentation != "auto":
        return fit_whole(job, recipe, deadline=deadline), recipe
    begun = time.monotonic()
    plain = recipe.model_copy(update={"augmentation": "none"})
    whole = fit_whole(job, plain, deadline=deadline)
    chosen = _default_augmentation(job, recipe, whole.built)
    needed = 1.5 * (time.monotonic() - begun)
    end = job.deadline if deadline is None else deadline
    late = processes.agreed(time.monotonic() + needed > end)
    if not chosen or whole.outcome.reason in ("interrupted", "time limit") or late:
        return whole, plain
    job = replace(job, rows=whole.learned, sized=True)
    augmented = recipe.model_copy(update={"augmentation": chosen})
    other = fit_whole(job, augmented, deadline=deadline, stage="augmented")
    return (other, augmented) if _better(metric, job, other, whole) else (whole, plain)


def fit_whole(job: Job, recipe: Recipe, *, deadline: float | None = None, stage: str = "") -> Whole:
    """Train the model of a recipe with one fusion.

    Args:
        job: the rows, and where it is computed.
        recipe: completed, with a fusion.
        deadline: time.monotonic() at which training ends; that of the job when left out.
        stage: name of the folder of its checkpoint, where one job trains several models.
    """
    settings, device, rows = recipe.training, job.accelerator.device, job.rows
    deadline = job.deadline if deadline is None else deadline
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        built = build(recipe, job.plan.schema, device)
        assert isinstance(built.model, FusionModel)
        if job.start is not None:
            settings = gentle(settings, whole=warm(built.model, job.start.model))
        check_noise_of_training(recipe, built, job.plan.schema)
        threats = threats_of_training(recipe, built, job.plan.schema)
        adversarial = with_embeddings(recipe, built, job.plan.schema)
        resting = {name: part for name, part in built.cached.items() if part is built.model.encoder(name)}
        if job.deadline < math.inf and not job.sized:
            some = {name: part for name, part in resting.items() if part.backbone is not None}
            job = in_time(job, encoding_seconds(job, some))
            rows = job.rows
        sources = sources_of(built, rows, job.cache, device, job.progress)
        target = built.model.head.encode(rows.answers)
        group, other_group = groups_of(job)
        if job.other is None:
            learning, held = job.halves
            training = Batches(augmented(job, recipe, built, sources, learning), rows.present, target, learning, group)
            validation = Batches(sources, rows.present, target, held, group)
        else:
            held = np.arange(len(job.other))
            others = sources_of(built, job.other, job.cache, device, job.progress)
            learning = np.arange(len(rows))
            training = Batches(augmented(job, recipe, built, sources, learning), rows.present, target, learning, group)
            answers = built.model.head.encode(job.other.answers)
            validation = Batches(others, job.other.present, answers, held, other_group)
        metric = measure(job.plan.schema.target, settings.metric or built.model.head.metrics[0])
        trainer = Trainer(
            built.model,
            training,
            validation,
            settings,
            job.accelerator,
            metric=metric,
            tunings=[(built.model.encoder(name), tuning) for name, tuning in built.tunings.items()],
            checkpoints=job.checkpoints(recipe, stage),
            log=job.log,
            progress=job.progress,
            deadline=None if math.isinf(deadline) else deadline,
            threats=threats,
            adversarial=adversarial,
            fairness=fair_objective(recipe, built.model, group, target, learning, metric),
        )
        outcome = trainer.run(resume=job.resume)
    return Whole(built, outcome, rows, job.other or rows, held, scored(built.model, validation, device)[1])


def augmented(
    job: Job, recipe: Recipe, built: Built, sources: Mapping[str, Source], learning: Array
) -> dict[str, Source]:
    """Return the sources to train from: those whose modality is augmented change its values in each epoch."""
    if not isinstance(recipe.augmentation, dict):
        return dict(sources)
    found = dict(sources)
    for name, some in recipe.augmentation.items():
        made = build_augmentations([component.as_data() for component in some], job.plan.schema.of(name))
        seed = recipe.training.seed
        found[name] = AugmentedSource(built.model.encoder(name), job.rows, name, made, seed=seed, pool=learning)
    return found


def _default_augmentation(job: Job, recipe: Recipe, built: Built) -> dict[str, list[Component]]:
    """Return what suits each modality whose encoder moves as a whole.

    Where pretrained encoders move, that is nothing unless it changes what one of them reads: to train them a second
    time for some noise in a table costs far more than it can bring.
    """
    schema = job.plan.schema
    moving = {name: built.model.encoder(name) for name in built.model.modalities}
    moving = {name: some for name, some in moving.items() if any(weight.requires_grad for weight in some.parameters())}
    found = {}
    for name in moving:
        if name not in built.cached:
            some = default_augmentations(schema.of(name), schema.target.task)
            found[name] = [Component.model_validate(choice) for choice in some]
    found = {name: some for name, some in found.items() if some}
    pretrained = {name for name, encoder in moving.items() if encoder.backbone is not None}
    return {} if pretrained and not pretrained & set(found) else found


def _better(metric: Metric, job: Job, one: Whole, than: Whole) -> bool:
    head = one.built.model.head
    answers = head.truth(head.encode(one.rows.answers)).numpy()[one.held]
    values = [metric.function(answers, whole.scores) for whole in (one, than)]
    return values[0] > values[1] if metric.greater_is_better else values[0] < values[1]
