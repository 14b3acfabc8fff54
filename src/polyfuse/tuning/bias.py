"""The biases alone."""

from __future__ import annotations

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError
from polyfuse.core.options import Rate
from polyfuse.tuning.backbone import backbone_of


class BiasTuning(Tuning):
    """The biases of the backbone move, and nothing else: BitFit (Ben Zaken, Ravfogel and Goldberg 2022).

    Args:
        learning_rate: of the biases; they take larger steps than matrices do.
    """

    def __init__(self, *, learning_rate: Rate = 1e-3) -> None:
        self.learning_rate = learning_rate

    def apply(self, encoder: Encoder) -> None:
        """Let the biases move.

        Raises:
            InputError: the encoder has no pretrained backbone, or one without biases.
        """
        backbone = backbone_of(encoder, "bias")
        biases = [parameter for name, parameter in backbone.named_parameters() if name.endswith("bias")]
        if not biases:
            raise InputError(
                f"tuning: {type(backbone).__name__} has no biases that  bias  could train; use  lora  or  full"
            )
        encoder.requires_grad_(False)
        for bias in biases:
            bias.requires_grad_(True)
