"""All of an encoder's weights, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError
from polyfuse.core.options import Rate
from polyfuse.tuning.backbone import Decay, decayed_rates, stack_of


class FrozenTuning(Tuning):
    """Nothing moves: the encoder's Features are computed once and kept."""

    frozen: ClassVar[bool] = True

    def apply(self, encoder: Encoder) -> None:
        """Freeze every weight.

        Raises:
            InputError: the encoder has no pretrained backbone; frozen, it would stay random.
        """
        if encoder.backbone is None and any(True for _ in encoder.parameters()):
            raise InputError(
                f"tuning: frozen on {type(encoder).__name__}, which starts from random weights: nothing would ever be"
                " learned there; use  full"
            )
        encoder.requires_grad_(False)


class FullTuning(Tuning):
    """Every weight moves.

    Args:
        learning_rate: of a pretrained backbone; weights that start at random follow `training.learning_rate`.
        layer_decay: layer l of L learns at learning_rate · layer_decay^(L − l), what comes before the layers like
            l = 0, what comes after them like l = L (Howard and Ruder 2018; Bao et al. 2022); 1 is the same for all.
    """

    learning_rate: float

    def __init__(self, *, learning_rate: Rate = 3e-5, layer_decay: Decay = 1.0) -> None:
        self.learning_rate, self.layer_decay = learning_rate, layer_decay

    def apply(self, encoder: Encoder) -> None:
        """Let every weight move.

        Raises:
            InputError: rates are to differ between layers, and the encoder has none.
        """
        if self.layer_decay != 1.0:
            stack_of(encoder, "full with layer_decay")
        encoder.requires_grad_(True)

    def rates(self, encoder: Encoder) -> Mapping[nn.Parameter, float]:
        """Return the rate of each weight of the backbone."""
        if encoder.backbone is None:
            return {}
        return decayed_rates(encoder, self.learning_rate, self.layer_decay)
