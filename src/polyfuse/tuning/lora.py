"""Low-rank adapters, through peft."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from polyfuse.core.contract import Encoder
from polyfuse.core.options import Count, Rate, Share
from polyfuse.tuning.wrapped import PeftTuning, linear_layers, pattern


class LoraTuning(PeftTuning):
    """Low-rank adapters in the backbone's linear layers: W x + (alpha / rank)·B A x; A and B move (Hu et al. 2022).

    Args:
        rank: rank of B A.
        alpha: scale of the adapters; twice the rank when left out.
        dropout: share of an adapter's input that is zeroed in training.
        layers: "all" linear layers, or those of the "attention" only.
        learning_rate: of the adapters.
    """

    name: ClassVar[str] = "lora"

    def __init__(
        self,
        *,
        rank: Count = 8,
        alpha: Count | None = None,
        dropout: Share = 0.05,
        layers: Literal["all", "attention"] = "all",
        learning_rate: Rate = 5e-4,
    ) -> None:
        self.rank, self.alpha, self.dropout, self.layers = rank, alpha or 2 * rank, dropout, layers
        self.learning_rate = learning_rate

    def config(self, encoder: Encoder) -> Any:
        """Return peft's configuration for an encoder's backbone."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=pattern(linear_layers(encoder, self.layers)),
        )
