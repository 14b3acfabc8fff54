"""The last layers of a backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError
from polyfuse.core.options import Depth, Rate
from polyfuse.layers.anatomy import weights_around
from polyfuse.tuning.backbone import Decay, decayed_rates, stack_of


class LastTuning(Tuning):
    """The last layers move, and what comes after them; the layers below are run once for each value, and kept.

    A weight that the layers below use too stays as it is, so what is kept never changes. It takes two bytes for each
    number of each token's hidden state, twice as many where the encoder takes a mean over layers. Where the layers
    above need more than the hidden states below them (T5, WavLM, Whisper, the stages of ResNet and ConvNeXt), nothing
    is kept: all layers are run at each step, with the same result.

    Args:
        layers: number of last layers that move; half of them when left out.
        learning_rate: of those layers.
        layer_decay: each layer below the last one learns at this times the rate of the one above it; 1 is the same
            for all.
    """

    learning_rate: float

    def __init__(self, *, layers: Depth | None = None, learning_rate: Rate = 2e-4, layer_decay: Decay = 1.0) -> None:
        self.layers, self.learning_rate, self.layer_decay = layers, learning_rate, layer_decay

    def apply(self, encoder: Encoder) -> None:
        """Let the last layers move, and part the encoder below them.

        Raises:
            InputError: the encoder has no pretrained backbone, or one without layers of their own.
        """
        stack = stack_of(encoder, "last")
        layers = min(self.layers or math.ceil(len(stack) / 2), len(stack))
        below, above = weights_around(encoder, stack[len(stack) - layers])
        if not above - below:
            raise InputError(
                f"tuning: last finds no weight in the last layers of {type(encoder.backbone).__name__} that the layers"
                " below do not use too; use  full"
            )
        encoder.requires_grad_(False)
        for parameter in above - below:
            parameter.requires_grad_(True)
        encoder.part(layers)

    def cached(self, encoder: Encoder) -> Encoder | None:
        """Return what lies below the layers that move."""
        return encoder.lower()

    def rates(self, encoder: Encoder) -> Mapping[nn.Parameter, float]:
        """Return the rate of each weight of the backbone."""
        return decayed_rates(encoder, self.learning_rate, self.layer_decay)
