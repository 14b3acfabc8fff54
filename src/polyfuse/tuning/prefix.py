"""Learned keys and values in front of a text, through peft."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Count, Rate
from polyfuse.core.types import Features
from polyfuse.layers.anatomy import resting
from polyfuse.tuning.backbone import backbone_of
from polyfuse.tuning.wrapped import PeftTuning, misfit

_SPREAD = 0.02
_LONG = ("a " * 20_000,)  # longer than any encoder reads
_ERRORS = (ValueError, TypeError, AttributeError, LookupError, RuntimeError)  # what a model raises that takes no prefix


class PrefixTuning(PeftTuning):
    """Keys and values that each layer attends to as if they stood before the text: prefix tuning (Li and Liang 2021).

    softmax(Q [P_K; K]ᵀ / √d) [P_V; V]; P_K and P_V of every layer move, and nothing else. The text keeps its tokens,
    but takes the positions behind the prefix. It works for text models that take keys and values from outside, as
    BERT, RoBERTa and GPT-2 do; T5, CLIP, and models of images or sound do not.

    Args:
        length: number of keys and values in front of the text, in each layer.
        learning_rate: of the prefix.
    """

    name: ClassVar[str] = "prefix"

    def __init__(self, *, length: Count = 8, learning_rate: Rate = 5e-3) -> None:
        self.length, self.learning_rate = length, learning_rate

    def config(self, encoder: Encoder) -> Any:
        """Return peft's configuration for an encoder's backbone.

        Raises:
            InputError: the backbone reads no text.
        """
        from peft import PrefixTuningConfig

        backbone = backbone_of(encoder, self.name)
        if backbone.main_input_name != "input_ids":
            raise InputError(
                f"tuning: prefix stands before a text, and {type(backbone).__name__} reads {backbone.main_input_name};"
                " use  lora  or  adapter"
            )
        # By the names that all configurations answer to; peft knows only those of some.
        names = {
            "token_dim": "hidden_size",
            "num_layers": "num_hidden_layers",
            "num_attention_heads": "num_attention_heads",
        }
        sizes = {size: getattr(backbone.config, name, None) for size, name in names.items()}
        return PrefixTuningConfig(num_virtual_tokens=self.length, task_type="FEATURE_EXTRACTION", **sizes)

    def apply(self, encoder: Encoder) -> None:
        """Put a prefix into every layer.

        Raises:
            InputError: the encoder has no pretrained backbone, or one that takes no prefix, or none of this length.
        """
        backbone = backbone_of(encoder, self.name)
        super().apply(encoder)
        weight = backbone_of(encoder, self.name).prompt_encoder["default"].embedding.weight
        try:
            before = _pooled(encoder, ("a",), ("a " * 3,))
            with torch.no_grad():
                weight.add_(1.0)
                after = _pooled(encoder, ("a",), ("a " * 3,))
            if torch.allclose(before, after):
                raise ValueError("it takes no notice of the prefix")
        except _ERRORS as error:
            raise misfit(self.name, backbone, error) from error
        # Small, for one drawn as peft does is as large as the keys of the text, and drowns it.
        torch.nn.init.normal_(weight, std=_SPREAD)
        try:
            _pooled(encoder, ("a",), _LONG)
        except _ERRORS as error:
            raise InputError(
                f"tuning: prefix of length={self.length}: {type(backbone).__name__} has too few positions for it and"
                " the longest text behind it; lower the encoder's max_tokens by as many"
            ) from error

    def merge(self, encoder: Encoder) -> bool:
        """Return False: no weight of the backbone can stand for a key or a value."""
        return False


def _pooled(encoder: Encoder, *values: tuple[str, ...]) -> Tensor:
    """Return the pooled vectors of texts of different lengths."""
    device = next(encoder.parameters()).device
    tensors = {name: tensor.to(device) for name, tensor in encoder.prepare(values).items()}
    with torch.no_grad(), resting(encoder):
        features: Features = encoder(**tensors)
    return features.pooled
