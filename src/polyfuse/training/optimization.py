"""The optimizer, its groups of parameters, and the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from polyfuse.training.settings import TrainingSettings


def make_optimizer(
    model: nn.Module, rates: Mapping[nn.Parameter, float], settings: TrainingSettings
) -> torch.optim.Optimizer:
    """Make the optimizer over the weights that are trained.

    Args:
        model: whose weights.
        rates: the learning rates of weights that have their own; the others follow `settings.learning_rate`.
        settings: kind of optimizer, learning rate, weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = rates.get(parameter, settings.learning_rate)
            decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    made = [{"params": some, "lr": rate, "weight_decay": decay} for (rate, decay), some in groups.items()]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(made, fused=True)
    return DecoupledSGD(made)


class DecoupledSGD(torch.optim.SGD):
    """SGD with momentum 0.9 and decoupled decay: v ← 0.9 v + ∇L, θ ← θ − ηλθ − ηv (Loshchilov & Hutter 2019)."""

    def __init__(self, groups: list[dict[str, object]]) -> None:
        # Torch's own weight_decay would add λθ to the gradient, and so to the momentum.
        decoupled = [{**group, "weight_decay": 0.0, "decoupled": group["weight_decay"]} for group in groups]
        super().__init__(decoupled, lr=0.1, momentum=0.9)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and group["decoupled"]:
                    parameter.mul_(1 - group["lr"] * group["decoupled"])
        super().step()


def schedule(step: int, total: int, settings: TrainingSettings) -> float:
    """Return the factor of the learning rate at an update: a linear rise, then a cosine to 0 or a constant 1."""
    warm = round(settings.warmup * total)
    if step < warm:
        return (step + 1) / (warm + 1)
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))


def trained_parameters(model: nn.Module) -> Iterable[nn.Parameter]:
    """Return the weights that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
