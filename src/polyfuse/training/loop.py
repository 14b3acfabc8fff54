"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from polyfuse.attacks.threat import Threat
from polyfuse.core import processes
from polyfuse.core.contract import Encoder, Head, Tuning
from polyfuse.core.errors import PolyfuseError
from polyfuse.core.interruption import interruptible
from polyfuse.core.progress import Bar, Progress, Silent
from polyfuse.core.types import Batch, Inputs, Tensors
from polyfuse.data.batches import Batches
from polyfuse.metrics import METRICS, Metric
from polyfuse.model import FusionModel
from polyfuse.training.adversarial import Adversary, cost_of_step
from polyfuse.training.chance import drawn_for, hidden, mix_of
from polyfuse.training.checkpoints import Checkpoint, Checkpoints, random_states, set_random_states
from polyfuse.training.fairness import FairObjective
from polyfuse.training.noise import with_noise
from polyfuse.training.optimization import make_optimizer, schedule, trained_parameters
from polyfuse.training.parallel import Replica, Step, part_of, spread
from polyfuse.training.settings import AdversarialSettings, TrainingSettings

Reason = Literal["all epochs done", "no better for a while", "time limit", "interrupted", "diverged"]
Log = Callable[[dict[str, float], int], None]
Array: TypeAlias = NDArray[Any]
_VALIDATION_BATCH = 256
_WATCHED = 256  # validation rows that are attacked after each epoch
_SLOW = 3  # updates that tell nothing about the pace yet
_UNSURE = 1.25  # how much faster than so far training may go on
_GROUP = 16  # batches among whose rows those of like length meet


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    Attributes:
        metric: what decided which weights were kept.
        value: its value at them, on the validation rows.
        epoch: after which they stood, from 1; 0 when training ended before the first epoch did.
        history: the figures of each epoch.
        reason: why it ended.
        cost: of a step of adversarial training, in plain ones; None in other training.
    """

    metric: str
    value: float
    epoch: int
    history: list[dict[str, float]]
    reason: Reason
    cost: float | None = None


@dataclass
class _State:
    """Where a run is: all that a checkpoint keeps beside tensors."""

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    loss: float = 0.0
    best: float = math.nan
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    several_steps: bool = False  # whether an adversary that took one step takes several since
    fairness: dict[str, list[float]] = field(default_factory=dict)


class Trainer:
    """Trains a model and leaves the weights in it that were best on the validation rows, without such rows the last.

    Args:
        model: on the CPU or the accelerator's device.
        training: rows to learn from.
        validation: rows that decide which weights are kept; None keeps those of the last epoch.
        settings: how.
        accelerator: the device.
        metric: what decides which weights are kept; that of the settings, or the head's first, when left out.
        tunings: each encoder that has a tuning, with it.
        checkpoints: where a run is kept, to go on from; None keeps nothing.
        log: takes the figures of an epoch, and the number of updates so far.
        progress: shows how far it is.
        deadline: time.monotonic() at which training ends.
        whole: whether training that does not come to its end is of no use: it ends as soon as that is clear.
        threats: to some modalities, where training is to be adversarial.
        adversarial: how, with them.
        fairness: the loss, where training is to be fair to groups, which the batches hold then.
    """

    def __init__(
        self,
        model: FusionModel,
        training: Batches,
        validation: Batches | None,
        settings: TrainingSettings,
        accelerator: Accelerator,
        *,
        metric: Metric | None = None,
        tunings: Sequence[tuple[Encoder, Tuning]] = (),
        checkpoints: Checkpoints | None = None,
        log: Log | None = None,
        progress: Progress | None = None,
        deadline: float | None = None,
        whole: bool = False,
        threats: Mapping[str, Threat] | None = None,
        adversarial: AdversarialSettings | None = None,
        fairness: FairObjective | None = None,
    ) -> None:
        self.training, self.validation, self.settings, self.accelerator = training, validation, settings, accelerator
        self.model = model
        self._replica = Replica(model, tunings, settings.sharding, accelerator.device)
        self._adversary: Adversary | None = None
        self._watched: Adversary | None = None  # where robustness is what training is for
        if adversarial is not None:
            self._adversary = Adversary(self._replica.model, threats or {}, adversarial, settings.seed)
            self._replica.face(self._adversary)
            self._watched = None if adversarial.regularises else self._adversary
        self._fairness = fairness
        if fairness is not None:
            self._replica.be_fair(fairness)
        self.metric = metric or METRICS[settings.metric or model.head.metrics[0]]
        self._checkpoints, self._log, self._progress = checkpoints, log, progress or Silent()
        self._deadline, self._whole, self._timed = deadline, whole, 0.0
        self._tunings, trained = self._replica.tunings, self._replica.model
        rates = {weight: rate for encoder, tuning in self._tunings for weight, rate in tuning.rates(encoder).items()}
        self._optimizer = make_optimizer(trained, rates, settings)
        self._trained = list(trained_parameters(trained))
        for group in self._optimizer.param_groups:
            group["base"] = group["lr"]
        self._batch_size = settings.batch_size * processes.count()
        self._batches = math.ceil(len(training) / self._batch_size)
        self._replays = adversarial.replays if adversarial is not None else 1
        together = self._replays if adversarial is not None and adversarial.gathers else 1
        self._accumulate = settings.accumulate * together
        # A batch that is updated by in each replay counts as often.
        self._last = math.ceil(settings.epochs * together / self._replays)
        self._updates_per_epoch = math.ceil(self._batches * self._replays / self._accumulate)
        self._state, self._best, self._lengths = _State(), Tensors(), training.lengths()
        self._interrupted = False

    def run(self, *, resume: bool = False) -> Outcome:
        """Train.

        Args:
            resume: go on from the checkpoint, if there is one.

        Raises:
            PolyfuseError: the loss is no longer a number, and no weights have been kept yet.
        """
        if resume:
            self._restore()
        state = self._state
        if processes.rank():  # its rows are not those of the first, and nor is what is dropped from them
            torch.manual_seed(drawn_for(self.settings.seed, processes.rank(), state.updates).integers(2**63).item())
        total = self._last * self._updates_per_epoch
        for encoder, tuning in self._tunings:
            tuning.begin(encoder, total)
        cost = self._cost()
        with interruptible(self.interrupt), self._progress.bar("Training", total) as bar:
            bar.advance(state.updates)
            reason = self._epochs(bar)
        if not self._best and reason != "diverged":
            self._validate()
            state.best_epoch = 0
        if not self._best:
            raise PolyfuseError(
                f"the loss is not a number in epoch {state.epoch + 1}: lower training.learning_rate"
                f" ({self.settings.learning_rate:g}), or a tuning's own"
            )
        self.model.load_state_dict(self._best, strict=False)
        return Outcome(self.metric.name, state.best, state.best_epoch, state.history, reason, cost)

    def interrupt(self) -> None:
        """End after the step that is under way, from whatever thread."""
        self._interrupted = True

    def _epochs(self, bar: Bar) -> Reason:
        state = self._state
        while state.epoch < self._last:
            # What resists is learned late, when the steps are small.
            if self._watched is None and state.epoch - state.best_epoch >= self.settings.patience:
                return "no better for a while"
            reason = self._epoch(bar)
            if reason is not None:
                return reason
            figures = self._validate()
            state.epoch, state.batch = state.epoch + 1, 0
            loss = state.loss / (len(self.training) * self._replays)
            state.history.append({"epoch": state.epoch, "loss": loss, **figures})
            state.loss = 0.0
            if self._log is not None:
                self._log(state.history[-1], state.updates)
            bar.advance(0, self._note())
            self._checkpoint()
        return "all epochs done"

    def _epoch(self, bar: Bar) -> Reason | None:
        """Go through the rest of the current epoch; return a reason to end before it is over."""
        state, settings = self._state, self.settings
        order = self._order(state.epoch)
        self._replica.step.train()
        self.training.set_epoch(state.epoch)
        parts = [part_of(rows) for rows in order[state.batch :]]
        loader = self.training.loader([mine for mine, _ in parts])
        for rows, (mine, counted), batch in zip(order[state.batch :], parts, loader, strict=True):
            batch = batch.to(self.accelerator.device)
            assert batch.target is not None
            drawn = drawn_for(settings.seed, state.epoch, state.batch)
            present = hidden(batch.present, settings.modality_dropout, drawn, len(rows))
            mix = mix_of(len(mine), settings.mixup, drawn)
            if settings.noise:
                # Drawn apart for each process: their rows are others.
                seed = int(drawn_for(settings.seed, state.epoch, state.batch, 1 + processes.rank()).integers(2**63))
                random = torch.Generator(self.accelerator.device).manual_seed(seed)
                noisy = with_noise(self._replica.model, batch.inputs, settings.noise, random)
                batch = replace(batch, inputs=noisy)
            group = min(self._accumulate, len(order) - state.batch // self._accumulate * self._accumulate)
            ends = (state.batch + 1) % self._accumulate == 0 or state.batch + 1 == len(order)
            attacked: Inputs | None = None
            worsened: AbstractContextManager[None] = nullcontext()
            if self._adversary is not None:
                shown, place = replace(batch, present=present), state.epoch * len(order) + state.batch
                batches = len(order) * self._last
                attacked = self._adversary.attacked(shown, place, batches)
                worsened = self._adversary.worsened(shown, attacked, place, batches)
            with worsened, self._replica.accumulating(last=ends):
                loss, total = self._replica.step(batch.inputs, present, batch.target, mix, attacked, batch.group)
                summed = float(processes.total(loss.detach().double() * counted))
                if not math.isfinite(summed):
                    return "diverged"
                # Averaged over processes, each row counts the same.
                self.accelerator.backward(total * (counted * processes.count() / len(rows) / group))
            if self._adversary is not None:
                self._adversary.learned()
            state.batch += 1
            state.loss += summed
            if ends:
                self._update()
                bar.advance(1, self._note())
                reason = self._ended()
                if reason is not None:
                    return reason
                if state.updates % settings.checkpoint_every == 0 and state.batch < len(order):
                    self._checkpoint()
        return None

    def _cost(self) -> float | None:
        """Measure and say what a step of adversarial training costs."""
        if self._adversary is None:
            return None
        self._replica.step.train()
        mine, _ = part_of(self._order(0)[0])
        batch = self.training[mine].to(self.accelerator.device)
        cost, method = cost_of_step(self._adversary, batch), self._adversary.settings.method
        self._progress.say(f"Adversarial training by {method}: a step costs {cost:.1f} times a plain one.")
        return cost

    def _ended(self) -> Reason | None:
        """Return why training is to end now, if any process says so."""
        flags = torch.tensor([float(self._interrupted), float(self._late())], device=self.accelerator.device)
        interrupted, late = (processes.total(flags) > 0).tolist()
        return "interrupted" if interrupted else "time limit" if late else None

    def _late(self) -> bool:
        """Tell whether there is no more time, or, where only whole training is of use, too little for what is left."""
        now, updates = time.monotonic(), self._state.updates
        if self._deadline is None or now > self._deadline:
            return self._deadline is not None
        if updates == _SLOW:
            self._timed = now
        if not self._whole or updates < 2 * _SLOW:
            return False
        left = self._last * self._updates_per_epoch - updates
        return now + (now - self._timed) / (updates - _SLOW) * left / _UNSURE > self._deadline

    def _order(self, epoch: int) -> list[list[int]]:
        """Return the rows of each batch of an epoch, the same for the same seed.

        All batches are of nearly one size. Rows of like length meet, so that little is padded: the shuffled rows are
        sorted by length within groups of some batches, and the batches are shuffled in turn.
        """
        generator = np.random.default_rng([self.settings.seed, epoch])
        shuffled = generator.permutation(len(self.training))
        lengths = self._lengths[shuffled]
        if lengths.any():
            group = np.arange(len(shuffled)) // (self._batch_size * _GROUP)
            shuffled = shuffled[np.lexsort((lengths, group))]
        batches = [part.tolist() for part in np.array_split(shuffled, self._batches)]
        return [batches[i] for i in generator.permutation(len(batches)) for _ in range(self._replays)]

    def _update(self) -> None:
        factor = schedule(self._state.updates, self._last * self._updates_per_epoch, self.settings)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base"] * factor
        self.accelerator.clip_grad_norm_(self._trained, self.settings.clip)
        self._optimizer.step()
        self._state.updates += 1
        for encoder, tuning in self._tunings:
            tuning.updated(encoder, self._state.updates)
        self._optimizer.zero_grad(set_to_none=True)

    def _validate(self) -> dict[str, float]:
        """Measure, and keep the weights if they are the best so far."""
        if self.validation is None:
            self._keep(math.nan, self._state.loss / (len(self.training) * self._replays))
            return {}
        y_true, y_score, loss = _scored(
            self._replica.scoring, self.model.head, self.validation, self.accelerator.device
        )
        value = self.metric.function(y_true, y_score)
        state = self._state
        figures = {"validation_loss": loss, f"validation_{self.metric.name}": value}
        if not math.isfinite(loss):
            return figures
        if self._fairness is not None and self.validation.group is not None:
            figures |= self._fairness.measured(y_true, y_score, loss, self.validation.group)
            loss = figures["validation_objective"]
        if self._watched is not None:
            value = figures[f"{self._watched.kind}_{self.metric.name}"] = self._robust(self._watched)
            if self._best and self._watched.collapsed(value, state.best):
                self._replica.load(self._best)
                self._watched.take_several_steps()
                state.several_steps = True
        if not self._best or self._rank(value, loss) > self._rank(state.best, state.best_loss):
            self._keep(value, loss)
        return figures

    def _robust(self, adversary: Adversary) -> float:
        """Return the metric on some of the validation rows under a plain attack."""
        assert self.validation is not None
        batch = self.validation[range(min(_WATCHED, len(self.validation)))].to(self.accelerator.device)
        assert batch.target is not None
        inputs, model = adversary.watched(batch), self._replica.model
        with torch.no_grad():
            scores = model.head.scores(model(inputs, batch.present))
        return self.metric.function(model.head.truth(batch.target).cpu().numpy(), scores.cpu().numpy())

    def _keep(self, value: float, loss: float) -> None:
        state = self._state
        state.best, state.best_loss, state.best_epoch = value, loss, state.epoch + 1
        self._best = {name: tensor.detach().clone() for name, tensor in self._replica.moving().items()}

    def _rank(self, value: float, loss: float) -> tuple[float, float]:
        """Order weights: by the metric, then by the loss, for a metric such as accuracy has many ties on few rows."""
        if self._fairness is not None:  # what the metric says of all rows together would undo it
            return 0.0, -loss
        sign = 1.0 if self.metric.greater_is_better else -1.0
        return -math.inf if math.isnan(value) else sign * value, -loss

    def _note(self) -> str:
        """Say where the run is, in a few words."""
        state = self._state
        epoch = f"epoch {min(state.epoch + 1, self._last)}/{self._last}"
        if self._watched is not None and state.history:
            kinds, where = ("validation", self._watched.kind), "" if self._watched.threats else " on Features"
            clean, robust = (state.history[-1].get(f"{kind}_{self.metric.name}", math.nan) for kind in kinds)
            return f"{epoch}, {self.metric.name} {clean:.4g}, under attack{where} {robust:.4g}"
        if self._fairness is not None and state.history:
            value, gap = (state.history[-1].get(f"validation_{name}", math.nan) for name in (self.metric.name, "gap"))
            return f"{epoch}, {self.metric.name} {value:.4g}, gap {gap:.4g}"
        return epoch if math.isnan(state.best) else f"{epoch}, best {self.metric.name} {state.best:.4g}"

    def _checkpoint(self) -> None:
        if self._checkpoints is None:
            return
        weights, optimizer = self._replica.moving(), self._replica.optimizer_state(self._optimizer)
        if processes.rank() == 0:
            self._state.fairness = self._fairness.saved() if self._fairness is not None else {}
            progress = dict(vars(self._state))
            self._checkpoints.save(Checkpoint(weights, self._best, optimizer, random_states(), progress))

    def _restore(self) -> None:
        checkpoint = self._checkpoints.load() if self._checkpoints is not None else None
        if checkpoint is None:
            return
        self._replica.load(checkpoint.weights)
        self._replica.set_optimizer_state(self._optimizer, checkpoint.optimizer)
        set_random_states(checkpoint.random)
        self._best = checkpoint.best
        self._state = _State(**checkpoint.progress)
        if self._watched is not None and self._state.several_steps:
            self._watched.take_several_steps()
        if self._fairness is not None:
            self._fairness.restore(self._state.fairness, self.accelerator.device)


def scored(model: FusionModel, batches: Batches, device: torch.device) -> tuple[Array, Array, float]:
    """Return the truth (rows, …), the scores (rows, …) and the mean loss of some rows, in their order."""
    return _scored(Step(model.to(device)), model.head, batches, device)


@torch.no_grad()
def _scored(step: nn.Module, head: Head, batches: Batches, device: torch.device) -> tuple[Array, Array, float]:
    step.eval()
    rows = np.arange(len(batches))
    parts = min(len(rows), max(math.ceil(len(rows) / _VALIDATION_BATCH), processes.count()))
    order = [part.tolist() for part in np.array_split(rows, parts)]

    def score(batch: Batch) -> tuple[Array, Array, float]:
        batch = batch.to(device)
        assert batch.target is not None
        loss, scores = step(batch.inputs, batch.present, batch.target)
        return head.truth(batch.target).cpu().numpy(), scores.cpu().numpy(), float(loss) * len(scores)

    truths, scores, losses = zip(*spread(lambda some: map(score, batches.loader(some)), order), strict=True)
    return np.concatenate(truths), np.concatenate(scores), sum(losses) / len(rows)
