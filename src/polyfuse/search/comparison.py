"""Candidates side by side: each is measured on rows that it has not seen; fusions that are behind are dropped."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from polyfuse.core.progress import Bar, Silent
from polyfuse.core.threads import one_thread
from polyfuse.fusion import FUSIONS
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
_FEW_ROWS = 20_000  # up to which learners compute with one thread


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

    def run(self, specs: Sequence[MemberSpec], folds: Sequence[tuple[Array, Array]], bar: Bar) -> None:
        """Measure candidates. folds: positions to learn from, positions to measure on.

        Learners go first, through all folds: they cost little, and one that is behind alone may still make a mean
        better. Every fusion is measured in the first fold, those that read tokens last; the best few go on.
        """
        schema = self.material.rows.schema
        self.entries = [Entry(spec, label(spec, schema)) for spec in specs]
        learners = [entry for entry in self.entries if entry.spec.combine.name in LEARNERS]
        fusions = [entry for entry in self.entries if entry.spec.combine.name in FUSIONS]
        begun = time.monotonic()
        for number in range(len(folds)):
            if number and self._over((time.monotonic() - begun) / number):
                break
            for entry in learners:
                self._measure(entry, *folds[number], bar)
        reached = max([entry.folds for entry in learners], default=len(folds))
        fusions.sort(key=lambda entry: _reads(entry.spec) != "pooled")
        for entry in fusions:
            self._measure(entry, *folds[0], bar)
        for entry in self._drop(learners, fusions):
            for fold in folds[1:reached]:
                self._measure(entry, *fold, bar)

    def stop(self) -> None:
        """End as soon as the first candidate is measured."""
        self.stopped = True

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

    def fit(self, spec: MemberSpec, rows: Array, learner: Learner | None = None) -> FusionModel | Learner | None:
        """Return a candidate fitted on some rows; None when there was no time to end it."""
        with self._threads(spec):
            return self._fit(spec, rows, learner)

    def _threads(self, spec: MemberSpec) -> AbstractContextManager[None]:
        """Return the context in which a candidate is fitted."""
        small = len(self.material) <= _FEW_ROWS or spec.combine.name in FUSIONS
        pooled = spec.combine.name in LEARNERS or _reads(spec) == "pooled"
        return one_thread() if small and pooled and self.material.device.type == "cpu" else nullcontext()

    def _fit(self, spec: MemberSpec, rows: Array, learner: Learner | None) -> FusionModel | Learner | None:
        if spec.combine.name in FUSIONS:
            return self._fit_fusion(spec, rows)
        assert learner is not None
        weights = None if self.material.weights is None else self.material.weights[rows]
        learner.fit(self._design(spec).rows(rows), self.material.answers[rows], weights=weights)
        return learner

    def _measure(self, entry: Entry, learning: Array, held: Array, bar: Bar) -> None:
        """Learn from some rows and score others, if there is time."""
        if entry.note:
            return
        begun, spec = time.monotonic(), entry.spec
        # The first candidate of all is measured whatever the time: something has to come out.
        expected = entry.seconds / entry.folds if entry.folds else 0.0
        if any(other.folds for other in self.entries) and self._over(expected):
            entry.note = "no time left"
            return
        if spec.combine.name in LEARNERS and not self._design(spec).width:
            entry.note = "nothing to read"
            return
        bar.advance(0, entry.name)
        with self._threads(spec):
            if spec.combine.name in LEARNERS and entry.learner is None:
                entry.learner = self._chosen(spec, learning, held)
            model = self._fit(spec, learning, entry.learner)
        if model is None:
            entry.note = "took too long" if not self.stopped else "stopped"
            return
        scores = self._scores(spec, model, held)
        if np.isfinite(scores).all():
            entry.parts.append((held, scores))
            entry.seconds += time.monotonic() - begun
            entry.interval = self._interval(entry)
        else:
            entry.note = "its scores are not finite"
        bar.advance(1)
        bar.table(*self.table())

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
        batches = self.material.batches(rows, _reads(spec), model.modalities)
        return scored(model, batches, self.material.device)[1].astype(np.float64)

    def _design(self, spec: MemberSpec) -> Any:
        return self.material.design.only(
            spec.modalities or self.material.bank.modalities, parts=spec.parts or ("features", "words")
        )

    def _fit_fusion(self, spec: MemberSpec, rows: Array) -> FusionModel | None:
        bank, settings = self.material.bank, on_features(self.recipe.training, len(rows))
        with torch.random.fork_rng([self.material.device] if self.material.device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            read = [name for name in bank.modalities if spec.modalities is None or name in spec.modalities]
            encoders = {name: bank.encoder(name) for name in read}
            encoders = with_fresh_tables(self.recipe, self.material.rows.schema, encoders)
            schema = self.material.rows.schema
            model = make_fusion_model(self.recipe, schema, encoders, spec.combine, bank.precision)
            outcome = Trainer(
                model,
                self.material.batches(rows, _reads(spec), model.modalities),
                None,
                settings,
                self.accelerator,
                metric=self.metric,
                progress=Silent(),
                deadline=self.deadline if math.isfinite(self.deadline) else None,
            ).run()
        if outcome.reason == "interrupted":
            self.stop()
        # Something has to come out: what was begun counts as long as nothing else does.
        done = outcome.reason == "all epochs done" or not any(entry.folds for entry in self.entries)
        return model if done else None

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
        ranked = [entry for entry in running if entry.spec.combine.name in FUSIONS]
        for place, entry in enumerate(ranked):
            if self.worse(scores[id(entry)], scores[id(running[0])], rows).low > 0:
                entry.note = "behind beyond chance"
            elif place >= FINALISTS:
                entry.note = f"not among the best {FINALISTS} fusions"
        return [entry for entry in ranked if not entry.note]

    def _over(self, needed: float = 0.0) -> bool:
        """Tell whether there is no time for work of so many seconds."""
        return self.stopped or time.monotonic() + needed > self.deadline


def _reads(spec: MemberSpec) -> Reads:
    """Say what a fusion reads."""
    if FUSIONS[spec.combine.name].needs == "pooled":
        return "pooled"
    return "short" if spec.combine.options.get("most_tokens", TOKENS + 1) <= TOKENS else "all"
