"""Candidates side by side: each is measured on rows that it has not seen; fusions that are behind are dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator

from polyfuse.core.interruption import interruptible
from polyfuse.core.progress import Bar, Silent
from polyfuse.core.threads import cores, one_thread, side_by_side
from polyfuse.data.batches import Batches
from polyfuse.fusion import FUSIONS
from polyfuse.layers.dropout import drawing_from
from polyfuse.learners import LEARNERS
from polyfuse.learners.learner import Array, Learner
from polyfuse.learners.several import make_learner
from polyfuse.metrics.bootstrap import Interval, bootstrap, paired_difference
from polyfuse.metrics.metric import Metric
from polyfuse.model import FusionModel
from polyfuse.recipe import Recipe
from polyfuse.recipe.building import make_fusion_model, with_fresh_tables
from polyfuse.recipe.ways import MemberSpec
from polyfuse.search.candidates import label
from polyfuse.search.material import TOKENS, Material, Reads
from polyfuse.training.loop import Trainer, scored
from polyfuse.training.settings import on_features

#: Fusions that go on after the first fold, the best ones.
FINALISTS = 3
_RESAMPLES = 400
_TOKENS_COST = 3  # times as long as for pooled vectors a fusion needs for tokens, at least
_FEW_ROWS = 20_000  # up to which learners compute with one thread

Made = TypeVar("Made")

_UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass
class Entry:
    """One candidate, and what is known of it.

    Attributes:
        spec: what it is.
        name: what it is called.
        parts: of each fold the rows that were held out, and their scores (rows, …).
        seconds: of learning and scoring.
        note: why it went no further; empty for one that was measured in all folds.
        learner: with its hyperparameters chosen.
        interval: the deciding metric on the rows that it was measured on.
    """

    spec: MemberSpec
    name: str
    parts: list[tuple[Array, Array]] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""
    learner: Learner | None = None
    interval: Interval = _UNKNOWN

    @property
    def folds(self) -> int:
        """In how many folds it was measured."""
        return len(self.parts)

    @property
    def learns(self) -> bool:
        """Whether it is a learner, else a fusion."""
        return self.spec.combine.name in LEARNERS

    def measured(self, folds: int | None = None) -> tuple[Array, Array]:
        """Return positions, ascending, and mean scores of the rows held out in the first folds, or in all."""
        rows = np.concatenate([rows for rows, _ in self.parts[:folds]])
        scores = np.concatenate([scores for _, scores in self.parts[:folds]])
        seen, places, times = np.unique(rows, return_inverse=True, return_counts=True)
        total = np.zeros((len(seen), *scores.shape[1:]))
        np.add.at(total, places, scores)
        return seen, total / times.reshape(-1, *[1] * (scores.ndim - 1))


@dataclass
class Comparison:
    """Compares candidates.

    Attributes:
        material: the rows.
        recipe: completed.
        metric: that decides.
        accelerator: the device.
        deadline: time.monotonic() at which it ends; the first candidate is always measured.
        entries: of all candidates, in the order in which they were tried.
        stopped: whether somebody wants it to end now, with what is known so far.
    """

    material: Material
    recipe: Recipe
    metric: Metric
    accelerator: Accelerator
    deadline: float = math.inf
    entries: list[Entry] = field(default_factory=list)
    stopped: bool = False
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)
    _shortening: Lock = field(default_factory=Lock, init=False, repr=False)
    _training: list[Trainer] = field(default_factory=list, init=False, repr=False)

    def run(self, specs: Sequence[MemberSpec], folds: Sequence[tuple[Array, Array]], bar: Bar) -> None:
        """Measure candidates. folds: positions to learn from, positions to measure on.

        Learners go through all folds: they cost little, and one that is behind alone may still make a mean better.
        Every fusion is measured in the first fold; the best few go on. What computes with one thread is measured side
        by side.
        """
        schema = self.material.rows.schema
        self.entries = [Entry(spec, label(spec, schema)) for spec in specs]
        learners = [entry for entry in self.entries if entry.learns]
        fusions = [entry for entry in self.entries if not entry.learns]
        # Side by side the longest go first, so that none is waited for in the end; one by one the quickest do, and of
        # many rows, whose tokens fill the memory.
        longest_first = self._small and at_a_time(self.material.device) > 1
        fusions.sort(key=lambda entry: (_reads(entry.spec) == "pooled") == longest_first)
        work: list[Callable[[], None]] = [partial(self._measure, entry, folds[:1], bar) for entry in fusions]
        if self._small:
            work.insert(0, partial(self._learn, learners, folds, bar))
        else:
            self._learn(learners, folds, bar)
        self._together(work)
        reached = max([entry.folds for entry in learners], default=len(folds))
        self._together([partial(self._measure, e, folds[1:reached], bar) for e in self._drop(learners, fusions)])

    def stop(self) -> None:
        """End as soon as the first candidate is measured."""
        self.stopped = True
        for trainer in list(self._training):
            trainer.interrupt()

    def leaders(self) -> list[tuple[Entry, Array]]:
        """Return the candidates that were measured as often as the best one, the best first, with their scores.

        The scores are all of the same rows, `leading_rows`.
        """
        some = [entry for entry in self.entries if entry.folds >= self._reached]
        found = [(entry, entry.measured(self._reached)[1]) for entry in some]
        rows = self.leading_rows
        return sorted(found, key=lambda pair: self.badness(pair[1], rows))

    @property
    def leading_rows(self) -> Array:
        """Positions of the rows that the leaders were measured on."""
        return self._first().measured(self._reached)[0]

    @property
    def _reached(self) -> int:
        return self._first().folds

    def _first(self) -> Entry:
        """Return the best candidate of the first fold, and of those as good the one measured most often."""

        def order(entry: Entry) -> tuple[float, int]:
            rows, scores = entry.measured(1)
            return self.badness(scores, rows), -entry.folds

        measured = [entry for entry in self.entries if entry.folds]
        return min([entry for entry in measured if not entry.note] or measured, key=order)

    def badness(self, scores: Array, rows: Array) -> float:
        """Return the deciding metric of scores of some rows, less being better."""
        value = self.metric.function(self.material.answers[rows], scores)
        if math.isnan(value):
            return math.inf
        return -value if self.metric.greater_is_better else value

    def worse(self, scores: Array, than: Array, rows: Array, level: float = 0.95) -> Interval:
        """Return by how much some scores are worse than others, with its interval, on the same rows."""
        answers = self.material.answers[rows]
        found = paired_difference(self.metric, answers, scores, than, resamples=_RESAMPLES, level=level)
        if self.metric.greater_is_better:
            return Interval(-found.value, -found.high, -found.low)
        return found

    def _interval(self, entry: Entry) -> Interval:
        rows, scores = entry.measured()
        found = bootstrap([self.metric], self.material.answers[rows], scores, resamples=_RESAMPLES)
        return found[self.metric.name]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and lines, the best first, to be shown."""
        found = [(entry, entry.interval) for entry in self.entries if entry.folds]
        sign = -1 if self.metric.greater_is_better else 1
        found.sort(key=lambda pair: (-pair[0].folds, sign * pair[1].value))
        lines = [
            [
                entry.name,
                f"{at.value:.4f}",
                f"{at.low:.4f} to {at.high:.4f}",
                str(entry.folds),
                f"{entry.seconds:.1f}",
                entry.note,
            ]
            for entry, at in found
        ]
        arrow = "↑" if self.metric.greater_is_better else "↓"
        return ["candidate", f"{self.metric.name} {arrow}", "95 % interval", "folds", "s", ""], lines

    def fitted(self, entries: Sequence[Entry], done: Callable[[Entry], None]) -> list[FusionModel | Learner]:
        """Return candidates fitted on all rows, however long it takes. done: is told of each."""
        self.deadline, self.stopped = math.inf, False

        def fit(entry: Entry) -> FusionModel | Learner:
            model = self._fit(entry.spec, np.arange(len(self.material)), entry.learner, needed=True)
            assert model is not None
            with self._lock:
                done(entry)
            return model

        with interruptible(self.stop):
            if self._small and len(entries) > 1:
                return self._together([partial(fit, entry) for entry in entries])
            found = []
            for entry in entries:
                with self._threads(entry.spec):
                    found.append(fit(entry))
            return found

    @property
    def _small(self) -> bool:
        """Whether a second thread gains learners nothing."""
        return len(self.material) <= _FEW_ROWS

    def _threads(self, spec: MemberSpec) -> AbstractContextManager[None]:
        """Return the context in which a candidate is fitted when nothing else is."""
        one = self._small if spec.combine.name in LEARNERS else _reads(spec) == "pooled"
        return one_thread() if one and self.material.device.type == "cpu" else nullcontext()

    def _together(self, work: Sequence[Callable[[], Made]]) -> list[Made]:
        """Do some work with one thread each, on the CPU side by side."""
        if not work:
            return []
        with side_by_side(min(len(work), at_a_time(self.material.device))) as workers:
            done = [workers.submit(some) for some in work]
            try:
                return [some.result() for some in done]
            except BaseException:
                self.stop()
                raise

    def _fit(
        self, spec: MemberSpec, rows: Array, learner: Learner | None, *, needed: bool
    ) -> FusionModel | Learner | None:
        """Return a candidate fitted on some rows.

        Args:
            spec: the candidate.
            rows: positions.
            learner: with its hyperparameters chosen, where it is one.
            needed: whether it is to come out even where there is no time to end it; else None does then.
        """
        if spec.combine.name in FUSIONS:
            return self._fit_fusion(spec, rows, needed=needed)
        assert learner is not None
        weights = None if self.material.weights is None else self.material.weights[rows]
        learner.fit(self._design(spec).rows(rows), self.material.answers[rows], weights=weights)
        return learner

    def _learn(self, learners: Sequence[Entry], folds: Sequence[tuple[Array, Array]], bar: Bar) -> None:
        """Measure learners in one fold after the other, as far as there is time for all of them."""
        begun = time.monotonic()
        for number, fold in enumerate(folds):
            if number and self._over((time.monotonic() - begun) / number):
                break
            for entry in learners:
                self._measure(entry, [fold], bar)

    def _measure(self, entry: Entry, folds: Sequence[tuple[Array, Array]], bar: Bar) -> None:
        """Learn from some rows and score others, in one fold after the other, if there is time."""
        for learning, held in folds:
            if not entry.note:
                self._measure_in(entry, learning, held, bar)

    def _measure_in(self, entry: Entry, learning: Array, held: Array, bar: Bar) -> None:
        begun, spec, needed = time.monotonic(), entry.spec, self._needed(entry)
        if not needed and self._over(self._expected(entry)):
            entry.note = "no time left"
            return
        if entry.learns and not self._design(spec).width:
            entry.note = "nothing to read"
            return
        with self._lock:
            bar.advance(0, entry.name)
        if entry.learns and entry.learner is None:
            entry.learner = self._chosen(spec, learning, held)
        model = self._fit(spec, learning, entry.learner, needed=needed)
        if model is None:
            entry.note = "took too long" if not self.stopped else "stopped"
            return
        scores = self._scores(spec, model, held)
        with self._lock:
            if np.isfinite(scores).all():
                entry.parts.append((held, scores))
                entry.interval = self._interval(entry)
                entry.seconds += time.monotonic() - begun
            else:
                entry.note = "its scores are not finite"
            bar.advance(1)
            bar.table(*self.table())

    def _needed(self, entry: Entry) -> bool:
        """Tell whether a candidate is to be measured whatever the time: something has to come out."""
        if any(other.folds for other in self.entries):
            return False
        return entry.learns or not any(other.learns and not other.note for other in self.entries)

    def _expected(self, entry: Entry) -> float:
        """Return how many seconds a candidate will need in a fold, at least."""
        if entry.folds or entry.learns or _reads(entry.spec) == "pooled":
            return entry.seconds / max(1, entry.folds)
        known = [other for other in self.entries if other.folds and not other.learns]
        pooled = [other.seconds / other.folds for other in known if _reads(other.spec) == "pooled"]
        return _TOKENS_COST * max(pooled, default=0.0)

    def _chosen(self, spec: MemberSpec, learning: Array, held: Array) -> Learner:
        """Return a learner with its hyperparameters chosen on the first fold."""
        learner = make_learner(spec.combine.name, spec.combine.options, self.material.rows.schema.target)
        known = np.sort(np.concatenate([learning, held]))
        weights = None if self.material.weights is None else self.material.weights[known]
        design, answers = self._design(spec).rows(known), self.material.answers[known]
        learner.choose(design, answers, np.searchsorted(known, held), weights=weights)
        return learner

    def _scores(self, spec: MemberSpec, model: FusionModel | Learner, rows: Array) -> Array:
        if isinstance(model, Learner):
            return model.scores(self._design(spec).rows(rows))
        return scored(model, self._batches(spec, model, rows), self.material.device)[1].astype(np.float64)

    def _design(self, spec: MemberSpec) -> Any:
        return self.material.design.only(
            spec.modalities or self.material.bank.modalities, parts=spec.parts or ("features", "words")
        )

    def _fit_fusion(self, spec: MemberSpec, rows: Array, *, needed: bool) -> FusionModel | None:
        settings = on_features(self.recipe.training, len(rows))
        model = self._fresh(spec, settings.seed)
        with self._seeded(settings.seed):
            trainer = Trainer(
                model,
                self._batches(spec, model, rows),
                None,
                settings,
                self.accelerator,
                metric=self.metric,
                progress=Silent(),
                deadline=self.deadline if math.isfinite(self.deadline) else None,
                whole=not needed,
            )
            self._training.append(trainer)
            if self.stopped:
                trainer.interrupt()
            outcome = trainer.run()
            self._training.remove(trainer)
        return model if needed or outcome.reason == "all epochs done" else None

    def _fresh(self, spec: MemberSpec, seed: int) -> FusionModel:
        """Return a fusion with weights that depend on the seed alone."""
        bank, schema = self.material.bank, self.material.rows.schema
        read = [name for name in bank.modalities if spec.modalities is None or name in spec.modalities]
        with self._lock, torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            encoders = with_fresh_tables(self.recipe, schema, {name: bank.encoder(name) for name in read})
            model = make_fusion_model(self.recipe, schema, encoders, spec.combine, bank.precision)
        model.fusing = bank.precision
        return model

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Let what training draws depend on the seed alone, whatever is trained beside it."""
        device = self.material.device
        if device.type == "cuda":  # where one candidate is trained at a time
            with torch.random.fork_rng([device]):
                torch.manual_seed(seed)
                yield
        else:
            with drawing_from(torch.Generator().manual_seed(seed)):
                yield

    def _batches(self, spec: MemberSpec, model: FusionModel, rows: Array) -> Batches:
        reads = _reads(spec)
        with self._shortening if reads == "short" else nullcontext():  # what several read is made once
            return self.material.batches(rows, reads, model.modalities)

    def _drop(self, learners: Sequence[Entry], fusions: Sequence[Entry]) -> list[Entry]:
        """Mark the fusions that are behind the best beyond chance in the first fold, or beyond the best few.

        Returns:
            Those that go on, the best first.
        """
        running = [entry for entry in (*learners, *fusions) if not entry.note and entry.folds]
        if not running:
            return []
        rows = running[0].measured(1)[0]
        scores = {id(entry): entry.measured(1)[1] for entry in running}
        running.sort(key=lambda entry: self.badness(scores[id(entry)], rows))
        ranked = [entry for entry in running if not entry.learns]
        for place, entry in enumerate(ranked):
            if self.worse(scores[id(entry)], scores[id(running[0])], rows).low > 0:
                entry.note = "behind beyond chance"
            elif place >= FINALISTS:
                entry.note = f"not among the best {FINALISTS} fusions"
        return [entry for entry in ranked if not entry.note]

    def _over(self, needed: float = 0.0) -> bool:
        """Tell whether there is no time for work of so many seconds."""
        return self.stopped or time.monotonic() + needed > self.deadline


def at_a_time(device: torch.device) -> int:
    """Return how many candidates are measured side by side."""
    return cores() if device.type == "cpu" else 1


def _reads(spec: MemberSpec) -> Reads:
    """Say what a fusion reads."""
    if FUSIONS[spec.combine.name].needs == "pooled":
        return "pooled"
    return "short" if spec.combine.options.get("most_tokens", TOKENS + 1) <= TOKENS else "all"
