"""Learned scales of keys, values and feed-forward networks, through peft."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Rate
from polyfuse.layers.anatomy import ways_back
from polyfuse.tuning.wrapped import PeftTuning, linear_layers, pattern

# Projections to keys and values; where one layer makes them together with the queries, that one.
_KEYS_AND_VALUES = re.compile(
    r"(k|v|key|value)(_?(proj|lin|linear|layer))?|c_attn|in_proj|qkv|qkv_proj|query_key_value|Wqkv"
)


class Ia3Tuning(PeftTuning):
    """Vectors that scale keys, values, and what the feed-forward network projects back: (IA)³ (Liu et al. 2022).

    softmax(Q (l_k ⊙ K)ᵀ / √d) (l_v ⊙ V) and W₂ (l_ff ⊙ act(W₁ x)); the three vectors of each layer start at 1, and
    they alone move.

    Args:
        learning_rate: of the vectors.
    """

    name: ClassVar[str] = "ia3"

    def __init__(self, *, learning_rate: Rate = 3e-3) -> None:
        self.learning_rate = learning_rate

    def config(self, encoder: Encoder) -> Any:
        """Return peft's configuration for an encoder's backbone.

        Raises:
            InputError: no keys, values or feed-forward networks are found.
        """
        from peft import IA3Config

        names = linear_layers(encoder)
        attention = [name for name in names if _KEYS_AND_VALUES.fullmatch(name.rpartition(".")[2])]
        feedforward = [layer[-1] for layer in ways_back(encoder) if layer]
        if not feedforward:
            raise InputError(
                f"tuning: ia3 finds no feed-forward networks in {type(encoder.backbone).__name__}; use  lora  or  full"
            )
        return IA3Config(target_modules=pattern([*attention, *feedforward]), feedforward_modules=pattern(feedforward))
