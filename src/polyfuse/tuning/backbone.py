"""What tunings ask of a backbone, and how much of an encoder they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from annotated_types import Gt, Le
from torch import nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Usual
from polyfuse.core.weights import base_weights
from polyfuse.layers.anatomy import find_stack, weights_around

Decay: TypeAlias = Annotated[float, Gt(0), Le(1), Usual(0.5, 1.0)]


@dataclass(frozen=True)
class Count:
    """How many numbers an encoder's weights are.

    Attributes:
        trained: of those that move.
        all: of all, with what a tuning added.
        added: of those that a tuning added.
    """

    trained: int
    all: int
    added: int


def count(module: nn.Module) -> Count:
    """Count the weights of an encoder, or of any other part of a model, those that are shared once."""
    every = dict(module.named_parameters())
    numbers = {name: parameter.numel() for name, parameter in every.items()}
    trained = sum(numbers[name] for name, parameter in every.items() if parameter.requires_grad)
    added = 0
    backbone = getattr(module, "backbone", None)
    if backbone is not None:
        own = {tensor.data_ptr() for tensor in base_weights(backbone).values()}
        added = sum(p.numel() for p in backbone.parameters() if p.numel() and p.data_ptr() not in own)
    return Count(trained, sum(numbers.values()), added)


def backbone_of(encoder: Encoder, tuning: str) -> Any:
    """Return the pretrained model inside an encoder.

    Raises:
        InputError: it has none.
    """
    if encoder.backbone is None:
        raise InputError(
            f"tuning: {tuning} needs a pretrained backbone, and {type(encoder).__name__} has none; use  full"
        )
    return encoder.backbone


def stack_of(encoder: Encoder, tuning: str) -> nn.ModuleList:
    """Return the layers of an encoder's backbone, in order.

    Raises:
        InputError: it has no backbone, or one that is no stack of layers.
    """
    backbone = backbone_of(encoder, tuning)
    found = find_stack(backbone)
    if found is None:
        raise InputError(
            f"tuning: {tuning} needs a backbone of layers, and none are found in {type(backbone).__name__}; use  full"
        )
    return found[1]


def decayed_rates(encoder: Encoder, rate: float, decay: float) -> dict[nn.Parameter, float]:
    """Return the rate of each weight of a backbone: rate · decay^(L − l) in layer l of L.

    What comes before the layers has l = 0, what comes after them l = L (Howard and Ruder 2018; Bao et al. 2022).
    """
    backbone = backbone_of(encoder, "layer_decay")
    if decay == 1.0:
        return dict.fromkeys(backbone.parameters(), rate)
    stack = stack_of(encoder, "layer_decay")
    before, _ = weights_around(encoder, stack[0])
    rates = {
        parameter: rate * decay ** len(stack) if parameter in before else rate for parameter in backbone.parameters()
    }
    for number, layer in enumerate(stack, start=1):
        rates.update(dict.fromkeys(layer.parameters(), rate * decay ** (len(stack) - number)))
    return rates
