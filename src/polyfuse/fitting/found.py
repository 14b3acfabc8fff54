"""The way to combine is found: encoders run once, candidates are compared on their Features, the best is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from polyfuse.data.batches import Source
from polyfuse.data.splits import folds as deal
from polyfuse.ensemble import Ensemble, Member, is_table
from polyfuse.fitting.job import Job
from polyfuse.fitting.plan import Fitted
from polyfuse.fitting.sources import pooled_sources
from polyfuse.fitting.whole import Whole, fit_better
from polyfuse.fusion import FUSIONS
from polyfuse.learners.learner import Array
from polyfuse.learners.words import WordStatistics
from polyfuse.model import FusionModel
from polyfuse.recipe import Built, Recipe
from polyfuse.recipe.building import (
    Encoders,
    cached_of,
    make_encoders,
    make_head,
    precision_of,
    text_modalities,
)
from polyfuse.recipe.component import Component
from polyfuse.recipe.ways import AutoWay, EnsembleWay, MemberSpec
from polyfuse.search.candidates import candidates
from polyfuse.search.comparison import Comparison
from polyfuse.search.finding import find, mixed
from polyfuse.search.material import Material
from polyfuse.tuning import TUNINGS

#: What models that are trained as a whole begin with.
BASE = "concat"
_LEAST_SECONDS = 20.0


@dataclass(frozen=True)
class Settings:
    """How a search goes.

    Attributes:
        specs: what is compared.
        weights: of each, where nothing is to be chosen.
        way: folds, repeats, time.
    """

    specs: list[MemberSpec]
    weights: list[float] | None
    way: AutoWay


def fit_found(job: Job) -> Fitted:
    """Find the best way to combine, or fit the ensemble or learner that a recipe names.

    Encoders that start at random are first trained as a whole, with a concatenation, and rest from then on; candidates
    are then compared on the rows that were kept aside, else by cross-validation over all rows. Where a recipe tunes
    pretrained encoders, a model is trained as a whole too, and takes part with the weight that is best on those rows.
    """
    recipe, schema, device = job.plan.recipe, job.plan.schema, job.accelerator.device
    alone = replace(job, other=None)
    encoders = make_encoders(recipe, schema, resting=True)
    whole, recipe = _learn(alone, encoders)
    words = {name: WordStatistics() for name in text_modalities(schema)}
    head, precision = make_head(recipe, schema, 1), precision_of(recipe, device)
    bank = Ensemble(encoders.by_modality, head, [], words, precision=precision)
    bank.to(device)
    settings = _settings(job, bank)
    sources, seconds = _encode(job, bank, settings)
    for name, statistics in words.items():
        statistics.fit([job.rows.text(name, row) for row in range(len(job.rows))])
    material = Material(job.rows, bank, pooled_sources(bank, job.rows, sources, device, job.progress), sources, device)
    now = time.monotonic()
    allowed = min(settings.way.seconds or max(_LEAST_SECONDS, seconds / 2), 0.6 * job.remaining())
    comparison = Comparison(material, recipe, job.metric, job.accelerator, now + allowed)
    folds = [job.halves] if whole is not None else _folds(job, settings.way)
    found = find(
        comparison,
        settings.specs,
        folds,
        ensemble=settings.way.ensemble,
        progress=job.progress,
        weights=settings.weights,
    )
    base = Component(name=BASE) if whole is not None else found.base or Component(name=BASE)
    tuned = _tuned(recipe, encoders)
    if whole is None and settings.weights is None and tuned:
        whole, used = fit_better(alone, recipe.model_copy(update={"fusion": base}), job.metric)
        recipe = recipe.model_copy(update={"augmentation": used.augmentation})
    if whole is not None and settings.weights is None:
        assert isinstance(whole.built.model, FusionModel)
        spec = MemberSpec(combine=base, tuned=bool(tuned))
        owner = {name: modality.share or name for name, modality in (recipe.modalities or {}).items()}
        own = {name: whole.built.tunings[owner[name]] for name in tuned}
        member = Member(f"{base.name}, trained as a whole", 1.0, whole.built.model, bank.modalities, own=own)
        found = mixed(found, spec, member, whole.scores, whole.held, comparison)
    ended = recipe.model_copy(update={"fusion": found.fusion})
    built = Built(found.model, encoders.tunings, cached_of(recipe, encoders))
    measured = job.other or job.rows.subset(found.measured.tolist())
    return Fitted(
        ended,
        built,
        job.rows,
        measured,
        None if job.other else found.scores,
        time.monotonic() - job.begun,
        comparison=found.comparison,
    )


def _settings(job: Job, bank: Ensemble) -> Settings:
    recipe, schema = job.plan.recipe, job.plan.schema
    name, options = recipe.fusion.name, recipe.fusion.options
    if name == "auto":
        way = AutoWay(**options)
        return Settings(candidates(way.candidates, schema, bank), None, way)
    if name == "ensemble":
        members = EnsembleWay(**options).members
        return Settings(members, [member.weight for member in members], AutoWay())
    return Settings([MemberSpec(combine=recipe.fusion)], [1.0], AutoWay())


def _tuned(recipe: Recipe, encoders: Encoders) -> list[str]:
    """Name the modalities whose pretrained encoder the recipe tunes, though it rests here."""
    assert isinstance(recipe.tuning, dict)
    assert recipe.modalities is not None
    owner = {name: modality.share or name for name, modality in recipe.modalities.items()}
    return [
        name
        for name, encoder in encoders.by_modality.items()
        if encoder.backbone is not None and not TUNINGS[recipe.tuning[owner[name]].name].frozen
    ]


def _learn(job: Job, encoders: Encoders) -> tuple[Whole | None, Recipe]:
    """Train the encoders that start at random, if there are any, and put them in the place of the fresh ones."""
    learned = [
        name
        for name, encoder in encoders.by_modality.items()
        if encoder.backbone is None and not is_table(encoder) and any(True for _ in encoder.parameters())
    ]
    if not learned:
        return None, job.plan.recipe
    based = job.plan.recipe.model_copy(update={"fusion": Component(name=BASE)})
    whole, used = fit_better(job, based, job.metric, deadline=time.monotonic() + 0.6 * job.remaining())
    for name in learned:
        encoders.by_modality[name] = whole.built.model.encoder(name).requires_grad_(False)
    return whole, job.plan.recipe.model_copy(update={"augmentation": used.augmentation})


def _encode(job: Job, bank: Ensemble, settings: Settings) -> tuple[dict[str, Source], float]:
    """Return the Features of pretrained encoders, and how many seconds their encoders need for these rows."""
    fusions = [FUSIONS[spec.combine.name] for spec in settings.specs if spec.combine.name in FUSIONS]
    tokens = any(fusion.needs == "tokens" for fusion in fusions)
    sources: dict[str, Source] = {}
    seconds = 0.0
    for name in bank.modalities:
        encoder = bank.encoder(name)
        if encoder.backbone is None:
            continue
        begun = time.monotonic()
        sources[name] = job.cache.source(
            encoder,
            job.rows,
            name,
            tokens=tokens,
            device=job.accelerator.device,
            precision=bank.precision,
            progress=job.progress,
        )
        seconds += time.monotonic() - begun
    return sources, seconds


def _folds(job: Job, way: AutoWay) -> list[tuple[Array, Array]]:
    every = np.arange(len(job.rows))
    found = []
    for repeat in range(way.repeats):
        seed = job.plan.recipe.training.seed + repeat
        parts = deal(job.rows.answers, job.plan.schema.target.task, count=way.folds, seed=seed, groups=job.groups)
        found += [(np.setdiff1d(every, part), part) for part in parts]
    return found
