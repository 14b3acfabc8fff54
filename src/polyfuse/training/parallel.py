"""One training step over several processes: each takes a part of every batch, and all end up with the same weights.

Under torchrun a batch holds `batch_size` rows for each process. Gradients are averaged, each process's by the rows that
it had, so that the step is that of one process with the whole batch, wherever the loss is a mean over rows. What is not
a mean over rows is of each process's own part: weights of classes, batch normalisation, a mixture's load, mixup.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from polyfuse.core import processes
from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError
from polyfuse.core.types import Inputs, Tensors
from polyfuse.layers.anatomy import blocks_of
from polyfuse.model import FusionModel, Mix
from polyfuse.training.adversarial import Adversary, adversarial_loss
from polyfuse.training.fairness import FairObjective

Part = TypeVar("Part")
Made = TypeVar("Made")


class Step(nn.Module):
    """What is computed of some rows: one call, so that whoever spreads a model over processes sees all of it.

    Args:
        model: in training.
        tunings: encoders of the model, each with its tuning.

    Attributes:
        adversary: who has changed inputs that are given beside the clean ones.
        fairness: the loss, where groups are given.
    """

    adversary: Adversary | None = None
    fairness: FairObjective | None = None

    def __init__(self, model: FusionModel, tunings: Sequence[tuple[Encoder, Tuning]] = ()) -> None:
        super().__init__()
        self.model, self.tunings = model, tuple(tunings)

    def forward(
        self,
        inputs: Inputs,
        present: Tensor,
        target: Tensor,
        mix: Mix | None = None,
        attacked: Inputs | None = None,
        group: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss, and in training the same with what tunings add, else the scores (batch, …)."""
        if not self.training:
            output = self.model(inputs, present)
            return self.model.head.loss(output, target), self.model.head.scores(output)
        if attacked is None or self.adversary is None:
            fair = None if self.fairness is None or group is None else partial(self.fairness.loss, group=group)
            loss = self.model.loss(inputs, present, target, mix, fair)
        else:
            loss = adversarial_loss(self.model, inputs, attacked, present, target, self.adversary.settings)
        penalties = [tuning.penalty(encoder) for encoder, tuning in self.tunings]
        return loss, sum((penalty for penalty in penalties if penalty is not None), loss)


class Replica:
    """The model as this process trains it.

    Args:
        model: is trained where it stands, or, where weights are sharded, takes the weights that come out.
        tunings: encoders of the model, each with its tuning.
        sharding: "full": of each weight a process keeps its share only, with its gradient and the optimizer's state.

    Attributes:
        step: the module to call in training.
        scoring: the module to call in evaluation.
        model: whose weights move.
        tunings: its encoders, each with its tuning.
    """

    def __init__(
        self,
        model: FusionModel,
        tunings: Sequence[tuple[Encoder, Tuning]],
        sharding: Literal["none", "full"],
        device: torch.device,
    ) -> None:
        self._sharded = sharding == "full" and processes.count() > 1
        if self._sharded:
            _check_sharded(tunings)
            # A copy is cut into shards, for what comes out has to be whole.
            places = [list(model.encoders).index(encoder) for encoder, _ in tunings]
            model = copy.deepcopy(model)
            own = [cast("Encoder", model.encoders[place]) for place in places]
            tunings = [(encoder, tuning) for encoder, (_, tuning) in zip(own, tunings, strict=True)]
        self.model, self.tunings = model.to(device), tuple(tunings)
        self._inner = Step(self.model, self.tunings)
        self.step: nn.Module = self._inner
        self.scoring = self.step
        if self._sharded:
            _shard(self.step, self.model, device)
        elif processes.count() > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.step = DistributedDataParallel(self.step, device_ids=ids, find_unused_parameters=True)

    def face(self, adversary: Adversary) -> None:
        """Let training be adversarial from now on."""
        self._inner.adversary = adversary

    def be_fair(self, fairness: FairObjective) -> None:
        """Let this be the loss of training from now on."""
        self._inner.fairness = fairness

    def accumulating(self, *, last: bool) -> AbstractContextManager[object]:
        """Return the context of a forward and backward pass; gradients meet in the last one of an update."""
        if isinstance(self.step, DistributedDataParallel) and not last:
            return self.step.no_sync()
        if self._sharded:
            self.step.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    def moving(self) -> Tensors:
        """Return the weights that are trained, and the buffers, whole. Every process must ask."""
        fixed = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        state = self.model.state_dict()
        return {name: _whole(tensor) for name, tensor in state.items() if name not in fixed}

    def load(self, weights: Tensors) -> None:
        """Put weights into the model that is trained."""
        state = self.model.state_dict()
        with torch.no_grad():
            for name, value in weights.items():
                state[name].copy_(_like(value, state[name]))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> Tensors:
        """Return an optimizer's state as whole tensors, by parameter number and name. Every process must ask."""
        return {
            f"{number}.{name}": _whole(torch.as_tensor(value))
            for number, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
            if value is not None
        }

    def set_optimizer_state(self, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
        """Put an optimizer's state back."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            weight = weights[int(number)]
            state.setdefault(int(number), {})[name] = _like(value, weight) if value.shape == weight.shape else value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def part_of(rows: Sequence[int]) -> tuple[list[int], int]:
    """Return the rows of a batch that are this process's, and how many of them count.

    Every process has to take part in each step: one for which there is no row takes one that does not count.
    """
    mine = list(rows[processes.rank() :: processes.count()])
    return (mine, len(mine)) if mine else (list(rows[:1]), 0)


def spread(work: Callable[[list[Part]], Iterable[Made]], parts: Sequence[Part]) -> list[Made]:
    """Return what is made of each part, in order; the parts are shared out among the processes.

    All processes do the same number of them, as a sharded model wants it.

    Args:
        work: gives one thing for each of some parts.
        parts: one at least.
    """
    many, own = processes.count(), processes.rank()
    rounds = -(-len(parts) // many)
    made = list(work([parts[min(i * many + own, len(parts) - 1)] for i in range(rounds)]))
    every = processes.gathered(made)
    return [every[i % many][i // many] for i in range(len(parts))]


def _shard(step: nn.Module, model: FusionModel, device: torch.device) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.count(),))
    for encoder in model.encoders:
        backbone = getattr(encoder, "backbone", None)
        for block in blocks_of(backbone) if backbone is not None else []:
            fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)


def _check_sharded(tunings: Sequence[tuple[Encoder, Tuning]]) -> None:
    for _, tuning in tunings:
        if type(tuning).updated is not Tuning.updated or type(tuning).penalty is not Tuning.penalty:
            raise InputError(
                f"training.sharding: full does not go with the tuning {type(tuning).__name__}, which looks at whole"
                " weights between steps; set training.sharding to none, or choose another tuning"
            )


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    gather = getattr(tensor, "full_tensor", None)  # of a share
    return gather() if gather is not None else tensor


def _like(value: Tensor, weight: Any) -> Tensor:
    """Return a whole tensor as a weight is kept: whole, or this process's share of it."""
    if not hasattr(weight, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    share: Tensor = distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return share
