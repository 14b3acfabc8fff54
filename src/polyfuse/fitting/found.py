"""The way to combine is found: encoders run once, candidates are compared on their Features, the best is kept."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np

from polyfuse.core import processes
from polyfuse.core.errors import InputError
from polyfuse.core.interruption import interruptible
from polyfuse.data.batches import Source
from polyfuse.data.splits import folds as deal
from polyfuse.ensemble import Ensemble, Member, is_table
from polyfuse.fitting.estimate import encoding_seconds, in_time
from polyfuse.fitting.job import Job
from polyfuse.fitting.plan import Fitted
from polyfuse.fitting.sources import pooled_sources
from polyfuse.fitting.whole import Whole, fit_better, fit_whole
from polyfuse.fusion import FUSIONS
from polyfuse.learners import LEARNERS
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
from polyfuse.search.candidates import candidates, reading_only
from polyfuse.search.comparison import Comparison, at_a_time
from polyfuse.search.finding import Floor, Found, find, mixed
from polyfuse.search.material import Material
from polyfuse.training.settings import on_pretrained
from polyfuse.tuning import TUNINGS

#: What models that are trained as a whole begin with.
BASE = "concat"
_LEAST_SECONDS = 20.0  # to compare one by one, half of them where there are two at a time
_SHARE_OF_REST = 0.6  # of the time that is left, for all that is compared
_SHARE_OF_FLOOR = 0.5  # of the time of a comparison, on top of it


@dataclass(frozen=True)
class Settings:
    """How a search goes.

    Attributes:
        specs: what is compared on Features of encoders at rest.
        tuned: what is trained together with the encoders that the recipe tunes; where nothing is to be chosen.
        given: whether weights are given, and nothing is to be chosen.
        way: folds, repeats, time.
    """

    specs: list[MemberSpec]
    tuned: list[MemberSpec]
    given: bool
    way: AutoWay


def fit_found(job: Job, *, aside: bool = False) -> Fitted | None:
    """Find the best way to combine, or fit the ensemble or learner that a recipe names.

    Encoders that start at random are first trained as a whole, with a concatenation, and rest from then on; candidates
    are then compared on the rows that were kept aside, else by cross-validation over all rows. Where a recipe tunes
    pretrained encoders, a model is trained as a whole too, and takes part with the weight that is best on those rows.

    Of several processes all encode, and train what is trained as a whole; the first one alone compares, and has the
    model that comes out: others return None.

    Args:
        job: the rows, and where it is computed.
        aside: measure on the rows kept aside, also where cross-validation over all rows would be.
    """
    recipe, schema = job.plan.recipe, job.plan.schema
    encoders = make_encoders(recipe, schema, resting=True)
    settings = _settings(job, encoders)
    seconds = encoding_seconds(job, {n: e for n, e in encoders.by_modality.items() if e.backbone is not None})
    job.progress.say(_about(job, settings, seconds))
    job = in_time(job, seconds)
    alone = replace(job, other=None)
    whole, recipe = _learn(alone, encoders)
    comparison = _comparison(job, recipe, encoders, settings)
    folds = [job.halves] if whole is not None or aside else _folds(job, settings.way)
    floor = _floor(job, comparison, settings, encoders, whole)
    found, base = _find(job, comparison, settings, folds, floor)
    tuned = _tuned(recipe, encoders)
    wholes = []
    if settings.given:
        wholes = [
            (spec, fit_whole(_started(alone, i), _tuning(job, recipe, spec.combine), stage=str(i)))
            for i, spec in enumerate(settings.tuned)
        ]
    elif whole is not None:
        wholes = [(MemberSpec(combine=Component(name=BASE), tuned=bool(tuned)), whole)]
    elif tuned:
        spec = MemberSpec(combine=base or Component(name=BASE), tuned=True)
        whole, used = fit_better(alone, _tuning(job, recipe, spec.combine), job.metric)
        wholes, recipe = [(spec, whole)], recipe.model_copy(update={"augmentation": used.augmentation})
    if found is None:
        return None
    for spec, made in wholes if not found.floored else ():
        member = _member(recipe, spec, made, tuned)
        found = mixed(found, spec, member, made.scores, made.held, comparison, given=settings.given)
    built, recipe = _ended(found, [made for _, made in wholes], recipe, encoders)
    return Fitted(
        recipe,
        built,
        job.rows,
        job.other or job.rows.subset(found.measured.tolist()),
        None if job.other else found.scores,
        time.monotonic() - job.begun,
        comparison=found.comparison,
        apart=job.other is not None or any(built is made.built for _, made in wholes),
    )


def _about(job: Job, settings: Settings, seconds: float) -> str:
    """Say what will be done, and about how long it will take."""
    count = len(settings.specs)
    if settings.given:
        return f"about {seconds:.0f} s for the encoders, then {count} models are fitted"
    most = _allowed(job, settings, seconds)
    told = (
        f"about {seconds:.0f} s for the encoders (measured on a few rows), then at most {most:.0f} s to compare {count}"
    )
    limit = "" if math.isinf(job.deadline) else f"; done within {job.remaining():.0f} s"
    return f"{told} ways to combine on {len(job.rows):,} rows{limit}"


def _allowed(job: Job, settings: Settings, seconds: float) -> float:
    """Return how many seconds a comparison may take. seconds: that the encoders take."""
    least = _LEAST_SECONDS / min(2, at_a_time(job.accelerator.device))
    return settings.way.seconds or max(least, seconds / 2)


def _started(job: Job, number: int) -> Job:
    """Return the job of a member that is tuned, which begins with the weights that it had. number: among these."""
    if job.start is None or not isinstance(job.start.model, Ensemble):
        return job
    tuned = [member.model for member in job.start.model.members if member.own]
    model = tuned[number]
    assert isinstance(model, FusionModel)
    return replace(job, start=replace(job.start, model=model))


def _with(recipe: Recipe, fusion: Component) -> Recipe:
    return recipe.model_copy(update={"fusion": fusion})


def _tuning(job: Job, recipe: Recipe, fusion: Component) -> Recipe:
    """Return the recipe of a model whose pretrained encoders are tuned."""
    settings = on_pretrained(recipe.training, len(job.rows), job.metric.name)
    return _with(recipe, fusion).model_copy(update={"training": settings})


def _comparison(job: Job, recipe: Recipe, encoders: Encoders, settings: Settings) -> Comparison:
    """Encode all rows, and return a comparison that is ready to begin."""
    schema, device = job.plan.schema, job.accelerator.device
    words = {name: WordStatistics() for name in text_modalities(schema)}
    for name, statistics in words.items():
        statistics.fit([job.rows.text(name, row) for row in range(len(job.rows))])
    head, precision = make_head(recipe, schema, 1), precision_of(recipe, device)
    bank = Ensemble(encoders.by_modality, head, [], words, precision=precision)
    bank.to(device)
    if any(spec.combine.name in LEARNERS for spec in settings.specs):
        import_module("sklearn.linear_model")  # beside work in other threads it would keep all of them waiting
    begun = time.monotonic()
    sources, seconds = _encode(job, bank, settings)
    seconds = max(seconds, time.monotonic() - begun)
    material = Material(job.rows, bank, pooled_sources(bank, job.rows, sources, device, job.progress), sources, device)
    most = _SHARE_OF_REST / (1 + (_SHARE_OF_FLOOR if _learned(encoders) else 0)) * job.remaining()
    allowed = min(_allowed(job, settings, seconds), most)
    return Comparison(material, recipe, job.metric, job.accelerator, time.monotonic() + allowed)


def _floor(
    job: Job, comparison: Comparison, settings: Settings, encoders: Encoders, whole: Whole | None
) -> Floor | None:
    """Return what whatever has learned from the rows is to be better than; None where nothing has, or all."""
    if whole is None or settings.given:
        return None
    some = set(_resting(encoders))
    specs = [spec for spec in settings.specs if spec.modalities is not None and set(spec.modalities) <= some]
    if not specs:
        return None
    end = comparison.deadline + _SHARE_OF_FLOOR * (comparison.deadline - time.monotonic())
    again = replace(comparison, deadline=end, entries=[])
    order = np.argsort(whole.held)
    return Floor(again, specs, _folds(job, settings.way), _learned(encoders), whole.scores[order])


def _find(
    job: Job, comparison: Comparison, settings: Settings, folds: list[tuple[Array, Array]], floor: Floor | None
) -> tuple[Found | None, Component | None]:
    """Return what the first process finds, None in the others, and the best fusion in all of them."""
    found = None
    if processes.rank() == 0:
        with processes.alone():
            found = find(
                comparison,
                settings.specs,
                folds,
                ensemble=settings.way.ensemble,
                progress=job.progress,
                given=settings.given,
                floor=floor,
            )
    with interruptible(lambda: None):  # the first process ends early, and says so to those that wait
        return found, processes.agreed(found.base if found is not None else None)


def _member(recipe: Recipe, spec: MemberSpec, whole: Whole, tuned: list[str]) -> Member:
    """Return a model that was trained as a whole, as a member."""
    model = whole.built.model
    assert isinstance(model, FusionModel)
    owner = {name: modality.share or name for name, modality in (recipe.modalities or {}).items()}
    own = {name: whole.built.tunings[owner[name]] for name in tuned}
    return Member(f"{spec.combine.name}, trained as a whole", spec.weight, model, model.modalities, own=own)


def _ended(found: Found, wholes: list[Whole], recipe: Recipe, encoders: Encoders) -> tuple[Built, Recipe]:
    """Return the model with its tunings, and the recipe that builds it."""
    recipe = _with(recipe, found.fusion)
    for whole in wholes:
        if found.model is whole.built.model:
            return whole.built, recipe
    cached = cached_of(recipe, encoders)
    if isinstance(found.model, Ensemble):
        own = {name for member in found.model.members for name in member.own}
        kept = {name: part for name, part in cached.items() if name not in own}
        return Built(found.model, encoders.tunings, kept), recipe
    # A plain model on encoders at rest: that they were to be tuned is no longer so.
    assert isinstance(recipe.tuning, dict)
    resting = {name: Component(name="frozen") for name in _tuned(recipe, encoders) if name in recipe.tuning}
    return Built(found.model, encoders.tunings, cached), recipe.model_copy(
        update={"tuning": {**recipe.tuning, **resting}}
    )


def _settings(job: Job, encoders: Encoders) -> Settings:
    recipe, schema = job.plan.recipe, job.plan.schema
    name, options = recipe.fusion.name, recipe.fusion.options
    if name == "auto":
        way = AutoWay(**options)
        specs = candidates(way.candidates, schema, encoders.by_modality)
        if _learned(encoders):
            specs += reading_only(_resting(encoders), specs, schema)
        return Settings(specs, [], False, way)
    if name != "ensemble":
        return Settings([MemberSpec(combine=recipe.fusion)], [], True, AutoWay())
    members = EnsembleWay(**options).members
    resting, tuned = [[member for member in members if member.tuned is asked] for asked in (False, True)]
    if not resting:
        raise InputError("fusion.members: none reads encoders at rest; name the fusion itself instead of an ensemble")
    return Settings(resting, tuned, True, AutoWay())


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
    learned = _learned(encoders)
    if not learned:
        return None, job.plan.recipe
    based = job.plan.recipe.model_copy(update={"fusion": Component(name=BASE)})
    whole, used = fit_better(job, based, job.metric, deadline=time.monotonic() + 0.6 * job.remaining())
    for name in learned:
        encoders.by_modality[name] = whole.built.model.encoder(name).requires_grad_(False)
    return whole, job.plan.recipe.model_copy(update={"augmentation": used.augmentation})


def _learned(encoders: Encoders) -> list[str]:
    """Name the modalities whose encoder starts at random, and learns from the rows before it rests."""
    return [
        name
        for name, encoder in encoders.by_modality.items()
        if encoder.backbone is None and not is_table(encoder) and any(True for _ in encoder.parameters())
    ]


def _resting(encoders: Encoders) -> list[str]:
    """Name the others: tables, and those whose encoder is pretrained."""
    learned = _learned(encoders)
    return [name for name in encoders.by_modality if name not in learned]


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
        sources[name] = source = job.cache.source(
            encoder,
            job.rows,
            name,
            tokens=tokens,
            device=job.accelerator.device,
            way=encoder.way or "auto",
            progress=job.progress,
        )
        encoder.way = source.way
        seconds += source.seconds
    return sources, seconds


def _folds(job: Job, way: AutoWay) -> list[tuple[Array, Array]]:
    every = np.arange(len(job.rows))
    found = []
    for repeat in range(way.repeats):
        seed = job.plan.recipe.training.seed + repeat
        parts = deal(job.rows.answers, job.plan.schema.target.asked, count=way.folds, seed=seed, groups=job.groups)
        found += [(np.setdiff1d(every, part), part) for part in parts]
    return found
