"""What all ways of fitting share: the plan, the rows, and where and how it is computed."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from polyfuse.core.progress import Progress
from polyfuse.data.measures import DECIDING, measure
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.splits import split
from polyfuse.fitting.plan import Plan
from polyfuse.fitting.start import Start
from polyfuse.fusion import FUSIONS
from polyfuse.learners.learner import Array
from polyfuse.metrics.metric import Metric
from polyfuse.recipe import Recipe
from polyfuse.training.cache import FeatureCache
from polyfuse.training.checkpoints import Checkpoints
from polyfuse.training.loop import Log

_FOR_SCREEN = 0.15  # of a time limit


@dataclass(frozen=True)
class Job:
    """A fit under way.

    Attributes:
        plan: what to do.
        rows: of the training table.
        other: of the table that was given for validation, if one was.
        accelerator: the device.
        work: a folder for the checkpoint.
        resume: whether to go on from the checkpoint there.
        log: takes the figures of epochs.
        progress: shows how far it is.
        begun: time.monotonic() at the start.
        other_table: that was given for validation, if one was.
        start: the model that it begins with, where it begins with one.
        sized: whether its rows are as many as there is time for: another cut would part what was learned from from what
            it is compared on.
    """

    plan: Plan
    rows: Rows
    other: Rows | None
    accelerator: Accelerator
    work: Path | None
    resume: bool
    log: Log | None
    progress: Progress
    begun: float
    other_table: Table | None = None
    start: Start | None = None
    sized: bool = False

    @property
    def found(self) -> bool:
        """Whether the model is put together on Features of encoders at rest, and not trained as a whole."""
        return self.start.found if self.start is not None else self.plan.recipe.fusion.name not in FUSIONS

    @cached_property
    def cache(self) -> FeatureCache:
        """Where Features are kept."""
        return FeatureCache()

    @cached_property
    def groups(self) -> list[object] | None:
        """The group of each row, where there are groups."""
        group = self.plan.recipe.data.group
        if group is None:
            return None
        groups: list[object] = self.plan.table.frame[group].iloc[self.rows.positions].tolist()
        return groups

    @cached_property
    def halves(self) -> tuple[Array, Array]:
        """Positions of the rows to learn from, and of those kept aside."""
        recipe = self.plan.recipe
        if self.start is not None and self.start.aside is not None:
            return np.setdiff1d(np.arange(len(self.rows)), self.start.aside), self.start.aside
        return split(
            self.rows.answers,
            self.plan.schema.target.asked,
            share=recipe.data.validation_share,
            seed=recipe.training.seed,
            groups=self.groups,
        )

    @property
    def end(self) -> float:
        """time.monotonic() at which all is to be done."""
        limit = self.plan.recipe.training.time_limit
        return math.inf if limit is None else self.begun + limit

    @property
    def deadline(self) -> float:
        """time.monotonic() at which the model is to be there; what comes then takes its time after it."""
        limit = self.plan.recipe.training.time_limit
        return self.end if limit is None or self.plan.recipe.screen is None else self.end - _FOR_SCREEN * limit

    def remaining(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()

    def checkpoints(self, recipe: Recipe, stage: str) -> Checkpoints | None:
        """Return where a run is kept. stage: a folder of its own below the job's; "" is the job's itself."""
        if self.work is None:
            return None
        tables = [self.rows, *([self.other] if self.other else ())]
        return Checkpoints(self.work / stage, _run_id(recipe, *tables))

    @cached_property
    def metric(self) -> Metric:
        """The metric that decides between models: a proper score, where nothing else is said."""
        target = self.plan.schema.target
        return measure(target, self.plan.recipe.training.metric or DECIDING[target.task])


def read(plan: Plan, table: Table, progress: Progress, *, training: bool) -> Rows:
    """Return the rows of a table with their answers.

    Raises:
        DataError: with every problem found in the table.
    """
    bad = plan.recipe.data.on_bad_row
    return read_rows(table, plan.schema, training=training, answers=True, on_bad_row=bad, progress=progress)


def what_decides(recipe: Recipe) -> dict[str, Any]:
    """Return, as JSON values, all of a recipe that the weights depend on."""
    about = recipe.as_data()
    for key in ("time_limit", "trackers", "checkpoint_every"):
        about["training"].pop(key, None)
    about.pop("screen", None)  # which rows are learned from is told by the rows
    about.pop("calibration", None)
    about.pop("reference", None)
    about.pop("keep", None)
    return about


def data_digest(*tables: Rows, about: bytes = b"") -> str:
    """Hash the answers and values of tables, after what else is to be hashed with them."""
    whole = hashlib.blake2b(about, digest_size=16)
    for rows in tables:
        whole.update(json.dumps(rows.answers, default=str).encode())
        for name in rows.schema.modalities:
            for row in range(len(rows)):
                whole.update(rows.digest(name, row) or b"-")
    return whole.hexdigest()


def _run_id(recipe: Recipe, *tables: Rows) -> str:
    """Identify recipe and data: what a checkpoint must have in common with the run that goes on from it."""
    return data_digest(*tables, about=json.dumps(what_decides(recipe), sort_keys=True).encode())
