"""The best recipe, found by trying many: each trial is a fit on the same rows, kept in an Optuna study."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polyfuse.core import processes
from polyfuse.core.compute import default_device
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.interruption import interruptible
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.measures import DECIDING
from polyfuse.fitting import Fitted, Plan, fit
from polyfuse.fitting.estimate import encoding_seconds, in_time
from polyfuse.fitting.job import Job, data_digest, read, what_decides
from polyfuse.learners import LEARNERS
from polyfuse.recipe import Recipe
from polyfuse.recipe.building import make_encoders
from polyfuse.study.deriving import space_of
from polyfuse.study.keeping import TABLE, Kept, optuna, quiet
from polyfuse.study.reading import Spaces, read_spaces, set_keys
from polyfuse.study.running import Reason, Search, in_short, shown, told
from polyfuse.study.space import Space
from polyfuse.study.takes import tunings_taken
from polyfuse.training.settings import limit_of
from polyfuse.training.tracking import make_accelerator
from polyfuse.tuning import TUNINGS

__all__ = ["Spaces", "Tuned", "set_keys", "shown", "tune"]


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        fitted: the model of the best recipe, fitted as any other.
        about: metric, trials, importance of what was drawn, and why it ended, as JSON values.
    """

    fitted: Fitted
    about: dict[str, Any]


def tune(
    plan: Plan,
    *,
    trials: int = 20,
    time_limit: str | float | None = None,
    file: Path | None = None,
    space: Spaces | None = None,
    fixed: Collection[str] = (),
    work: Path | None = None,
    progress: Progress | None = None,
    begun: float | None = None,
) -> Tuned:
    """Try recipes around that of a plan, and fit the best one.

    Each trial learns from the same rows and is measured on the same others by the metric that decides; after each epoch
    it is ended if it is behind the median of those before. The first trial is the recipe as it stands. Ctrl-C ends the
    search, and the best recipe so far is fitted; another one ends that fit with the best weights so far.

    Args:
        plan: the recipe to begin from.
        trials: how many there are to be in the study, those of earlier runs included.
        time_limit: seconds, or "90s", "10m", "1h", after which all is done, the last fit included.
        file: SQLite file of the study, to go on from; None keeps nothing.
        space: where to look; what is usual when left out.
        fixed: dotted keys of the recipe that stay as they are.
        work: a folder for the checkpoint and the trackers of the last fit.
        progress: shows how far it is.
        begun: time.monotonic() from which the time limit counts; now when left out.

    Raises:
        DataError: with every problem found in the table.
        InputError: something else in the call is wrong, or the study is of something else.
        PolyfuseError: no trial came to an end.
        MissingExtra: Optuna is not installed.
    """
    begun, progress = time.monotonic() if begun is None else begun, progress or Silent()
    optuna()
    if processes.started() > 1:
        raise InputError(f"{processes.started()} processes were started, and a search runs in one: leave torchrun out")
    if trials < 1:
        raise InputError(f"trials = {trials}: ask for at least one")
    if plan.recipe.fairness is not None:
        raise InputError("fairness: a search takes what is best on all rows together, and so undoes it; fit instead")
    deadline = math.inf if time_limit is None else begun + limit_of(time_limit)
    base = _base(plan, fixed)
    asked = read_spaces(space)
    taken = tunings_taken(base, plan.schema) if base.preset == "best" and "tuning" not in fixed else None
    found = space_of(base, plan.schema, fixed, asked, taken)
    job = _job(replace(plan, recipe=base), progress, begun)
    with quiet():
        kept = Kept(
            file,
            greater_is_better=job.metric.greater_is_better,
            about={TABLE: data_digest(job.rows), "recipe": what_decides(base), "space": found.describe()},
            warmup=max(1, base.training.epochs // 4),
        )
        resting = _resting(job, found)
        job = _in_time(job, resting, kept, deadline)
        if len(kept.done) < trials:
            _encode(job, resting, tokens=found.reads_tokens)
        search = Search(job, found, kept, trials, deadline)
        with interruptible(search.stop), progress.bar("Tuning", trials) as bar:
            reason = search.run(bar)
        best = kept.best
        about = _about(search, reason, file)
    progress.say(f"{reason}; fitting the recipe of trial {best.number}: {in_short(best.params) or 'as it stands'}")
    recipe = _last(found.recipe(best.params), plan.recipe, fixed, deadline)
    if work is not None:
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed: the study has all that counts
    fitted = fit(replace(plan, recipe=recipe), rows=job.rows, work=work, progress=progress)
    assert fitted is not None
    training = fitted.recipe.training.model_copy(update={"time_limit": plan.recipe.training.time_limit})
    return Tuned(replace(fitted, recipe=fitted.recipe.model_copy(update={"training": training})), about)


def _base(plan: Plan, fixed: Collection[str]) -> Recipe:
    """Return what all trials have in common: one metric decides which weights are kept, and between trials."""
    recipe, task = plan.recipe, plan.schema.target.task
    training = recipe.training.model_copy(update={"metric": recipe.training.metric or DECIDING[task]})
    # To train each trial twice, without and with augmentation, would be a search in the search.
    augmentation = "none" if recipe.augmentation == "auto" else recipe.augmentation
    return recipe.model_copy(update={"training": training, "augmentation": augmentation})


def _last(best: Recipe, given: Recipe, fixed: Collection[str], deadline: float) -> Recipe:
    """Return the best recipe as it is fitted in the end: in the time that is left, and augmented if that was set."""
    training, augmentation = best.training, best.augmentation
    if not math.isinf(deadline):
        left = max(1.0, deadline - time.monotonic())
        training = training.model_copy(update={"time_limit": min(left, training.time_limit or left)})
    if given.augmentation == "auto" and "augmentation" in fixed:
        augmentation = "auto"
    return best.model_copy(update={"training": training, "augmentation": augmentation})


def _job(plan: Plan, progress: Progress, begun: float) -> Job:
    rows = read(plan, plan.table, progress, training=True)
    return Job(plan, rows, None, make_accelerator(default_device()), None, False, None, progress, begun)


def _in_time(job: Job, resting: Mapping[str, Encoder], kept: Kept, deadline: float) -> Job:
    """Return the job with the rows that there is time to encode: the same in all runs of a study."""
    every, positions = job.rows, kept.rows(len(job.rows))
    if positions is not None:
        return replace(job, rows=every.subset(positions.tolist()))
    if kept.done or math.isinf(deadline):
        return job
    training = job.plan.recipe.training.model_copy(update={"time_limit": deadline - job.begun})
    recipe = job.plan.recipe.model_copy(update={"training": training})
    limited = replace(job, plan=replace(job.plan, recipe=recipe))
    some = in_time(limited, encoding_seconds(limited, resting)).rows
    if some is not every:
        kept.keep_rows(every.positions.searchsorted(some.positions), len(every))
    return replace(job, rows=some)


def _encode(job: Job, resting: Mapping[str, Encoder], *, tokens: bool) -> None:
    """Fill the feature cache, in the sight of the user: from then on trials cost little."""
    for name, encoder in resting.items():
        way, device = encoder.way or "auto", job.accelerator.device
        job.cache.source(encoder, job.rows, name, tokens=tokens, device=device, way=way, progress=job.progress)


def _resting(job: Job, space: Space) -> dict[str, Encoder]:
    """Return the pretrained encoders that rest in some trial, by modality."""
    recipe = job.plan.recipe
    learns = any(name in LEARNERS for name in space.names("fusion"))
    encoders = make_encoders(recipe, job.plan.schema, resting=True)
    owner = {name: modality.share or name for name, modality in (recipe.modalities or {}).items()}
    return {
        name: encoder
        for name, encoder in encoders.by_modality.items()
        if encoder.backbone is not None
        and (learns or any(TUNINGS[tuning].frozen for tuning in space.names("tuning", owner[name])))
    }


def _about(search: Search, reason: Reason, file: Path | None) -> dict[str, Any]:
    """Say what was tried, as JSON values."""
    metric, kept = search.job.metric, search.kept
    lines: list[Mapping[str, Any]] = [told(trial) for trial in kept.done]
    return {
        "metric": metric.name,
        "greater_is_better": metric.greater_is_better,
        "reason": reason,
        "best": kept.best.number,
        "value": kept.best.value,
        "trials": lines,
        "importance": kept.importance(),
        "space": search.space.describe(),
        "study": str(file) if file is not None else None,
    }
