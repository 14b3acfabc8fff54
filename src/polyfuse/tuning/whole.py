"""All of an encoder's weights, or none."""

from __future__ import annotations

from typing import ClassVar

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError
from polyfuse.core.options import Rate


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
    """

    def __init__(self, *, learning_rate: Rate = 3e-5) -> None:
        self.learning_rate = learning_rate

    def apply(self, encoder: Encoder) -> None:
        """Let every weight move."""
        encoder.requires_grad_(True)
