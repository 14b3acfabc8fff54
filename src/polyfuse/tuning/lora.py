"""Low-rank adapters, through peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError
from polyfuse.core.options import Count, Rate, Share


class LoraTuning(Tuning):
    """Low-rank adapters in the backbone's linear layers: W x + (alpha / rank)·B A x; A and B move (Hu et al. 2022).

    Args:
        rank: rank of B A.
        alpha: scale of the adapters; twice the rank when left out.
        dropout: share of an adapter's input that is zeroed in training.
        layers: "all" linear layers, or those of the "attention" only.
        learning_rate: of the adapters.
    """

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

    def apply(self, encoder: Encoder) -> None:
        """Wrap the backbone in a peft model whose adapters alone are trained.

        Raises:
            InputError: the encoder has no pretrained backbone.
        """
        from peft import LoraConfig, get_peft_model

        backbone = self._backbone(encoder)
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self._targets(backbone)
        )
        encoder.requires_grad_(False)
        encoder.backbone = get_peft_model(backbone, config)

    def save(self, encoder: Encoder, folder: Path) -> bool:
        """Write the adapters in peft's format."""
        self._backbone(encoder).save_pretrained(folder)
        return True

    def restore(self, encoder: Encoder, folder: Path) -> None:
        """Put the adapters that `save` wrote onto the backbone."""
        from peft import set_peft_model_state_dict

        self.apply(encoder)
        # Not by peft's own loader, which also takes a pickle, or asks a hub, where the file is missing.
        set_peft_model_state_dict(encoder.backbone, load_file(folder / "adapter_model.safetensors"))

    def _backbone(self, encoder: Encoder) -> Any:
        if encoder.backbone is None:
            raise InputError(
                f"tuning: lora needs a pretrained backbone, and {type(encoder).__name__} has none; use  full"
            )
        return encoder.backbone

    def _targets(self, backbone: Any) -> str | list[str]:
        """Name the linear layers: they are found, for their names differ between architectures and versions."""
        from torch import nn

        if self.layers == "all":
            return "all-linear"
        names = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
        attention = [
            name
            for name in names
            if any("attention" in part or part == "self_attn" for part in name.lower().split("."))
        ]
        return attention or names
