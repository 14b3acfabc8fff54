"""Everything that a report holds, measured in the order of its page."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError, PolyfuseError
from polyfuse.core.progress import Progress, Silent
from polyfuse.core.version import __version__
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows
from polyfuse.explanation.contributions import Contributions, contributions, shared_sources
from polyfuse.explanation.interventions import interventions
from polyfuse.fairness import measure
from polyfuse.metrics.metric import Array
from polyfuse.model import Model
from polyfuse.quality import check
from polyfuse.recipe import Recipe
from polyfuse.reporting.accuracy import accuracy, slices
from polyfuse.reporting.cases import cases
from polyfuse.reporting.certainty import certainty
from polyfuse.reporting.document import ModelReport, Part
from polyfuse.reporting.standing import standing
from polyfuse.search.material import FeatureSource


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        model: on the device, in evaluation mode.
        recipe: complete.
        rows: with answers, that the model has not learned from.
        device: where the model is.
        raw: scores of the model for the rows, before calibration.
        scores: as `predict_proba` gives them.
        calibration: of the model, where it has one.
        given: the table of these rows.
        train: training rows, among which the nearest are looked for, where they were given.
        training: their table, whose rows are not to be among those of the other.
        present: (rows, modalities) bool.
        history: figures of each epoch of the training.
        comparison: the candidates that a model was found among.
        others: scores of simpler models for the same rows, by name.
        run, table: what the artifact and the table are called, where they have a name.
        documents: of an attack and of a stress, where there are some.
        groups: values of the columns whose groups are compared (rows,), by name.
    """

    model: Model
    recipe: Recipe
    rows: Rows
    device: torch.device
    raw: Array
    scores: Array
    present: torch.Tensor
    given: Table
    calibration: Calibration | None = None
    train: Rows | None = None
    training: Table | None = None
    history: Sequence[Mapping[str, float]] = ()
    comparison: dict[str, Any] | None = None
    others: Mapping[str, Array] = field(default_factory=dict)
    run: str = ""
    table: str = ""
    documents: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, pd.Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        resamples: of the rows, for intervals.
        rows: at most so many are taken parts away from, and set by hand.
        draw: values drawn for each of them.
    """

    resamples: int = 1000
    rows: int = 1000
    draw: int = 3


FAST = Size(resamples=300, rows=300, draw=1)


def gather(
    subject: Subject,
    *,
    size: Size | None = None,
    deadline: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelReport:
    """Measure everything, section by section; what cannot be measured is left out, and the report says why.

    Ctrl-C ends the section under way, and no further one is begun.

    Args:
        subject: what it is about.
        size: how much is measured.
        deadline: time.monotonic() after which no further section is begun.
        seed: of all random numbers.
        progress: shows how far it is.
    """
    begun, shown, size = time.monotonic(), progress or Silent(), size or Size()
    gatherer = _Gatherer(subject, size, seed, shown)
    parts: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    for name, section in gatherer.sections().items():
        if deadline is not None and time.monotonic() > deadline:
            left_out[name] = "the time was up before it was begun; raise --time-limit"
            continue
        try:
            parts[name] = section()
        except PolyfuseError as error:
            left_out[name] = str(error)
        except KeyboardInterrupt:
            left_out[name], deadline = "it was interrupted", -math.inf
    about = gatherer.about() | {"seconds": time.monotonic() - begun}
    return ModelReport(about, parts, left_out)


class _Gatherer:
    """The sections of one report; what one has measured, others use."""

    def __init__(self, subject: Subject, size: Size, seed: int, progress: Progress) -> None:
        self._of, self._size, self._seed, self._progress = subject, size, seed, progress
        head = subject.model.head
        self._head = head
        self._truth: Array = head.truth(head.encode(subject.rows.answers)).cpu().numpy()
        self._given: Contributions | None = None

    def sections(self) -> dict[str, Callable[[], Part]]:
        """Return what measures each section, in the order of the page."""
        return {
            "accuracy": self._accuracy,
            "slices": self._slices,
            "calibration": self._calibration,
            "fairness": self._fairness,
            "modalities": self._modalities,
            "interventions": self._interventions,
            "explanations": self._explanations,
            "robustness": self._robustness,
            "data": self._data,
        }

    def about(self) -> dict[str, Any]:
        """Return what the report is about, as JSON values."""
        subject, schema = self._of, self._of.rows.schema
        document = subject.recipe.as_data()
        return {
            "run": subject.run,
            "table": subject.table,
            "target": schema.target.name,
            "task": schema.target.task,
            "labels": [str(level) for level in schema.target.levels],
            "rows": len(subject.rows),
            "rows_left_out": len(subject.rows.skipped),
            "modalities": {name: list(columns) for name, columns in schema.modalities.items()},
            "fusion": document.get("fusion"),
            "polyfuse": __version__,
            "seed": self._seed,
            "size": vars(self._size),
        }

    def _accuracy(self) -> Part:
        subject = self._of
        shares = np.asarray(subject.present.float().mean(0)).tolist()
        return accuracy(
            subject.rows,
            self._truth,
            subject.scores,
            self._head.prior().cpu().numpy(),
            self._head.metrics,
            present=dict(zip(subject.model.modalities, shares, strict=True)),
            others=subject.others,
            history=subject.history,
            comparison=subject.comparison,
            resamples=self._size.resamples,
            seed=self._seed,
        )

    def _slices(self) -> Part:
        if self._of.rows.schema.target.parts:
            raise InputError("the model answers several targets; slices are found for a model of one")
        return slices(self._of.rows, self._truth, self._of.scores, self._head.metrics[0], seed=self._seed)

    def _calibration(self) -> Part:
        subject, resamples, seed = self._of, self._size.resamples, self._seed
        if subject.calibration is None:
            raise InputError("this model was saved by a version without calibration; call fit_calibration, and save")
        answered, target = subject.present.any(1).numpy(), subject.rows.schema.target
        given = subject.calibration, self._truth, subject.raw, answered, target, subject.groups
        return certainty(*given, resamples=resamples, seed=seed)

    def _fairness(self) -> Part:
        if not self._of.groups:
            raise InputError("no column was named whose groups are compared; name one with --sensitive COLUMN")
        target, resamples, seed = self._of.rows.schema.target, self._size.resamples, self._seed
        return measure(self._truth, self._of.scores, target, self._of.groups, resamples=resamples, seed=seed)

    def _modalities(self) -> Part:
        (rows, sources), seed = self._some, self._seed
        self._given = contributions(
            self._of.model,
            rows,
            self._of.device,
            calibration=self._of.calibration,
            sources=sources,
            resamples=self._size.resamples // 2,
            seed=seed,
            progress=self._progress,
        )
        return self._given

    def _interventions(self) -> Part:
        rows, sources = self._some
        given = self._of.model, rows, self._of.device
        how: dict[str, Any] = {"calibration": self._of.calibration, "sources": sources, "draw": self._size.draw}
        return interventions(*given, **how, seed=self._seed, progress=self._progress)

    def _explanations(self) -> Part:
        subject, fast = self._of, self._size == FAST
        given = subject.model, subject.rows, subject.device, self._truth, subject.scores
        known: dict[str, Any] = {"train": subject.train, "calibration": subject.calibration}
        return cases(*given, **known, fast=fast, seed=self._seed, progress=self._progress)

    def _robustness(self) -> Part:
        run, table = self._of.run or "RUN", self._of.table or "rows.csv"
        return standing(self._given, self._head.metrics[0], self._of.documents, run, table)

    def _data(self) -> Part:
        subject, schema = self._of, self._of.rows.schema
        # Of rows that could not be read there are no scores.
        known = schema.target.task in ("classification", "multilabel") and not subject.rows.skipped
        return check(
            subject.given,
            schema=schema,
            test=subject.training,
            scores=subject.scores if known else None,
            fast=self._size == FAST,
            seed=self._seed,
            progress=self._progress,
        )

    @cached_property
    def _some(self) -> tuple[Rows, dict[str, FeatureSource]]:
        """Some of the rows, drawn at random, and their Features: what is asked of them is asked often."""
        rows, most = self._of.rows, self._size.rows
        if len(rows) > most:
            rows = rows.subset(np.sort(np.random.default_rng(self._seed).permutation(len(rows))[:most]).tolist())
        return rows, shared_sources(self._of.model, rows, self._of.device, self._progress)
