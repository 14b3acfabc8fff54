"""A search under way: one trial after another, each a fit on the same rows, ended early where it is behind."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from polyfuse.core.errors import PolyfuseError
from polyfuse.core.progress import Bar, Silent
from polyfuse.fitting.found import fit_found
from polyfuse.fitting.job import Job
from polyfuse.fitting.whole import fit_whole
from polyfuse.fusion import FUSIONS
from polyfuse.recipe import Recipe
from polyfuse.study.keeping import Kept, optuna
from polyfuse.study.space import Space

Reason = Literal["all trials done", "time limit", "interrupted", "nothing new to try"]
_STATES = ("complete", "pruned", "failed")  # of trials, the best first
_SHOWN = 8  # trials in the table that grows
_MARGIN = 1.2  # of the time that the best trial took, left for fitting its recipe in the end


class Interrupted(Exception):
    """Somebody wants the search to end."""


@dataclass(frozen=True)
class Made:
    """What a trial gave.

    Attributes:
        value: of the metric, on the rows kept aside.
        reason: why its training ended; empty for a learner.
    """

    value: float
    reason: str = ""


@dataclass
class Search:
    """Makes trials.

    Attributes:
        job: the rows; of its recipe only what all trials share counts.
        space: what is drawn.
        kept: the study.
        trials: how many there are to be in all.
        deadline: time.monotonic() at which everything is to be done, the last fit included.
        stopped: whether somebody wants it to end now.
    """

    job: Job
    space: Space
    kept: Kept
    trials: int
    deadline: float = math.inf
    stopped: bool = False
    _trial: Any = field(default=None, init=False)

    def run(self, bar: Bar) -> Reason:
        """Make trials until there are as many as wanted, or it is time to end."""
        done = len(self.kept.done)
        bar.advance(done)
        while len(self.kept.done) < self.trials:
            if self.stopped:
                return "interrupted"
            if done and time.monotonic() + self._reserve() >= self.deadline:
                return "time limit"
            self._trial = self.kept.begin(self.space, self.job.plan.recipe.training.seed)
            if self._trial is None:
                return "nothing new to try"
            self._one(self._trial, bar)
            done = len(self.kept.done)
            bar.table(*self.table())
        return "all trials done"

    def stop(self) -> None:
        """End with the trial under way."""
        self.stopped = True

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and lines of the best trials, the best first, to be shown."""
        metric = self.job.metric
        sign = -1 if metric.greater_is_better else 1
        lines = [told(trial) for trial in self.kept.done]
        lines.sort(key=lambda line: (_STATES.index(line["state"]), sign * (line["value"] or 0.0)))
        arrow = "↑" if metric.greater_is_better else "↓"
        return ["trial", f"{metric.name} {arrow}", "epochs", "s", "", "drawn"], [shown(line) for line in lines[:_SHOWN]]

    def _one(self, trial: Any, bar: Bar) -> None:
        """Make one trial, and keep what came of it, whatever that is."""
        begun = time.monotonic()
        states = optuna().trial.TrialState
        state, value, note = states.FAIL, None, ""
        try:
            drawn = self.space.suggest(trial)
            made = self._made(self.space.recipe(drawn), bar)
            value, note = made.value, made.reason
            if made.reason == "interrupted":
                self.stop()
                if len(self.kept.done):
                    raise Interrupted
            state, value = (states.FAIL, None) if math.isnan(value) else (states.COMPLETE, value)
        except optuna().TrialPruned:
            state, note = states.PRUNED, "behind"
        except (Interrupted, KeyboardInterrupt) as ended:
            self.kept.lose(trial)
            if isinstance(ended, KeyboardInterrupt):
                raise
            return
        except Exception as error:  # whatever a combination does, the others may do better
            note = " ".join(f"{error}".split()) or type(error).__name__
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 3))
        trial.set_user_attr("note", note)
        self.kept.study.tell(trial, value, state=state)
        bar.advance(1)

    def _made(self, recipe: Recipe, bar: Bar) -> Made:
        """Fit a recipe on the rows to learn from, and measure it on those kept aside."""
        plan = replace(self.job.plan, recipe=recipe)
        job = replace(self.job, plan=plan, progress=Silent(), begun=time.monotonic())
        bar.advance(0, f"trial {self._trial.number}: {recipe.fusion.name}")
        if recipe.fusion.name not in FUSIONS:
            fitted = fit_found(job, aside=True)
            assert fitted is not None
            assert fitted.scores is not None
            head = fitted.built.model.head
            answers = head.truth(head.encode(fitted.measured.answers)).numpy()
            return Made(job.metric.function(answers, fitted.scores))
        epochs = recipe.training.epochs

        def watch(figures: Mapping[str, float], _: int) -> None:
            self._watch(figures, epochs)
            bar.advance(0, f"trial {self._trial.number}: {recipe.fusion.name}, epoch {figures['epoch']:.0f}/{epochs}")

        whole = fit_whole(replace(job, log=watch), recipe, deadline=min(self._trial_deadline(), job.deadline))
        return Made(whole.outcome.value, whole.outcome.reason)

    def _watch(self, figures: Mapping[str, float], epochs: int) -> None:
        """Report an epoch, and end the trial if it is behind.

        Raises:
            TrialPruned: it is behind.
            Interrupted: the search is to end.
        """
        epoch = int(figures["epoch"])
        self._trial.report(figures[f"validation_{self.job.metric.name}"], epoch)
        if self.stopped:
            raise Interrupted
        if epoch < epochs and self._trial.should_prune():
            raise optuna().TrialPruned

    def _reserve(self) -> float:
        """Return the seconds that the last fit will need: about as many as the best trial did."""
        try:
            return _MARGIN * float(self.kept.best.user_attrs.get("seconds", 0.0))
        except PolyfuseError:  # no trial has a value yet
            return 0.0

    def _trial_deadline(self) -> float:
        """Return when a trial has to end; the first one leaves as much time as it takes itself."""
        if math.isinf(self.deadline):
            return math.inf
        now = time.monotonic()
        half = max(0.0, self.deadline - now) / 2
        return self.deadline - min(self._reserve() or half, half)


def told(trial: Any) -> dict[str, Any]:
    """Return what is known of a trial, as JSON values."""
    value = trial.value
    return {
        "trial": trial.number,
        "state": {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
        "value": value if value is not None and math.isfinite(value) else None,
        "epochs": len(trial.intermediate_values),
        "seconds": trial.user_attrs.get("seconds"),
        "params": dict(trial.params),
        "note": trial.user_attrs.get("note", ""),
    }


def shown(line: Mapping[str, Any]) -> list[str]:
    """Return a line of a table: number, value, epochs, seconds, state, what was drawn."""
    value = "–" if line["value"] is None else f"{line['value']:.4f}"
    seconds = "–" if line["seconds"] is None else f"{line['seconds']:.1f}"
    note = line["note"] if line["state"] == "failed" else ""
    state = "" if line["state"] == "complete" else f"{line['state']}{': ' if note else ''}{note}"
    return [str(line["trial"]), value, str(line["epochs"] or "–"), seconds, state, in_short(line["params"])]


def in_short(params: Mapping[str, Any]) -> str:
    """Say what was drawn, in few words.

    >>> in_short({"fusion": "gated", "fusion.gated.dim": 64, "training.learning_rate": 0.00123456})
    'fusion gated, dim 64, learning_rate 0.00123'
    """

    def said(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name.rpartition('.')[2]} {said(value)}" for name, value in params.items())
