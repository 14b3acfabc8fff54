"""Low-rank adapters whose rank goes to the layers that need it, through peft."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from safetensors.torch import load_file
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Count, Rate, Share
from polyfuse.tuning.backbone import backbone_of
from polyfuse.tuning.wrapped import WEIGHTS, PeftTuning, linear_layers, pattern

_MOMENTS = ("exp_avg_ipt", "exp_avg_unc")  # as peft calls them


class AdaloraTuning(PeftTuning):
    """Low-rank adapters W x + (alpha / initial)·P Λ Q x, of which the least important ranks go (Zhang et al. 2023).

    Λ is diagonal; P, Λ and Q move. After each update, the entries of Λ with the least importance over all layers are
    set to zero, so many that the mean rank falls from `initial` to `rank` along a cubic curve. P and Q are kept near
    to orthogonal by a term of the loss.

    Args:
        rank: mean rank at the end.
        initial: rank of every layer at the start; half as much again as `rank` when left out.
        alpha: scale of the adapters; twice the initial rank when left out.
        dropout: share of an adapter's input that is zeroed in training.
        layers: "all" linear layers, or those of the "attention" only.
        warmup: share of the updates before the first rank goes.
        settle: share of the updates after the last one has gone.
        orthogonality: weight of the mean of ‖PᵀP − I‖ and ‖QQᵀ − I‖ (Frobenius) in the loss.
        learning_rate: of the adapters.
    """

    name: ClassVar[str] = "adalora"

    def __init__(
        self,
        *,
        rank: Count = 8,
        initial: Count | None = None,
        alpha: Count | None = None,
        dropout: Share = 0.05,
        layers: Literal["all", "attention"] = "all",
        warmup: Share = 0.1,
        settle: Share = 0.3,
        orthogonality: Annotated[float, Ge(0), Le(100)] = 0.1,
        learning_rate: Rate = 1e-3,
    ) -> None:
        self.rank, self.initial = rank, initial or rank + (rank + 1) // 2
        if self.initial <= rank:
            raise InputError(
                f"tuning: adalora begins with initial={self.initial} ranks and ends with rank={rank}; give a larger"
                " initial, or use  lora"
            )
        if warmup + settle >= 1:
            raise InputError(
                f"tuning: adalora with warmup={warmup:g} and settle={settle:g} leaves no update in which ranks go; they"
                " add up to less than 1"
            )
        self.alpha, self.dropout, self.layers = alpha or 2 * self.initial, dropout, layers
        self.warmup, self.settle, self.orthogonality = warmup, settle, orthogonality
        self.learning_rate = learning_rate

    def config(self, encoder: Encoder) -> Any:
        """Return peft's configuration for an encoder's backbone; how many updates there will be is told by `begin`."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.initial,
            target_r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            orth_reg_weight=self.orthogonality,
            target_modules=pattern(linear_layers(encoder, self.layers)),
            total_step=1,
        )

    def apply(self, encoder: Encoder) -> None:
        """Wrap the backbone in a peft model, with room for what the allocation of ranks has to remember.

        Raises:
            InputError: the encoder has no pretrained backbone, or one that the method does not fit.
        """
        super().apply(encoder)
        self._make_room(encoder)

    def save(self, encoder: Encoder, folder: Path) -> bool:
        """Write the ranks that are left, in peft's format."""
        tuner = backbone_of(encoder, self.name).base_model
        tuner.peft_config["default"].rank_pattern = _ranks_left(tuner)
        return super().save(encoder, folder)

    def restore(self, encoder: Encoder, folder: Path) -> None:
        """Put what `save` wrote onto the backbone; each layer has as many ranks as were left there."""
        super().apply(encoder)
        left = {
            name.removeprefix("base_model.model."): [number < len(weight) for number in range(self.initial)]
            for name, weight in load_file(folder / WEIGHTS).items()
            if name.endswith(".lora_E")
        }
        backbone = backbone_of(encoder, self.name)
        backbone.peft_config["default"].rank_pattern = left
        self._load(encoder, folder)
        self._make_room(encoder)

    def _make_room(self, encoder: Encoder) -> None:
        backbone = backbone_of(encoder, self.name)
        backbone.memory = _Memory(_factors(backbone.base_model))

    def begin(self, encoder: Encoder, updates: int) -> None:
        """Lay the schedule over the updates; ranks that are gone stay gone."""
        from peft.tuners.adalora.layer import RankAllocator

        tuner = backbone_of(encoder, self.name).base_model
        config = tuner.peft_config["default"]
        config.total_step = updates
        config.tinit, config.tfinal = int(self.warmup * updates), int(self.settle * updates)
        config.rank_pattern = _ranks_left(tuner)
        tuner.rankallocator = RankAllocator(tuner.model, config, "default")

    def penalty(self, encoder: Encoder) -> Tensor | None:
        """Return what keeps P and Q near to orthogonal; peft adds it only to a loss that the backbone computes."""
        if not self.orthogonality:
            return None
        gaps = []
        for layer in _layers(backbone_of(encoder, self.name)):
            for rows in (layer.lora_A["default"], layer.lora_B["default"].T):
                gaps.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device)))
        return self.orthogonality * torch.stack(gaps).mean()

    def updated(self, encoder: Encoder, update: int) -> None:
        """Judge each rank by its weights and gradients, and set the least important ones to zero."""
        backbone = backbone_of(encoder, self.name)
        tuner = backbone.base_model
        allocator, config = tuner.rankallocator, tuner.peft_config["default"]
        if allocator.init_bgt <= allocator.target_bgt:
            return
        if update > config.total_step - config.tfinal:
            if config.rank_pattern is not None:
                tuner.update_and_allocate(update)
            return
        factors = _factors(tuner)
        if all(weight.grad is None for weight in factors.values()):
            return  # no row of the batch had this modality
        for weight in factors.values():
            if weight.grad is None:  # a layer that plays no part in the Features
                weight.grad = torch.zeros_like(weight)
        backbone.memory.give(allocator, factors)
        tuner.update_and_allocate(update)
        backbone.memory.take(allocator, factors)


class _Memory(nn.Module):
    """What the allocator remembers of each factor: moving means of its importance, and of how much that varies.

    As buffers they are in every checkpoint, so that a run that goes on allocates as if it had never stopped.
    """

    def __init__(self, factors: dict[str, nn.Parameter]) -> None:
        super().__init__()
        for number, weight in enumerate(factors.values()):
            for moment in _MOMENTS:
                self.register_buffer(f"{moment}_{number}", torch.zeros_like(weight))

    def give(self, allocator: Any, factors: dict[str, nn.Parameter]) -> None:
        """Remind the allocator."""
        for moment in _MOMENTS:
            kept = {name: self.get_buffer(f"{moment}_{number}") for number, name in enumerate(factors)}
            setattr(allocator, moment, kept)
        allocator.ipt = {name: torch.zeros_like(weight) for name, weight in factors.items()}

    def take(self, allocator: Any, factors: dict[str, nn.Parameter]) -> None:
        """Remember what the allocator has found; it forgets all when the last ranks have gone."""
        for moment in _MOMENTS:
            found = getattr(allocator, moment)
            for number, name in enumerate(factors):
                if name in found:
                    self.get_buffer(f"{moment}_{number}").copy_(found[name])


def _layers(model: nn.Module) -> list[Any]:
    """Return the layers that have low-rank adapters."""
    return [module for module in model.modules() if hasattr(module, "lora_E")]


def _factors(tuner: Any) -> dict[str, nn.Parameter]:
    """Return P, Λ and Q of all layers, by peft's names."""
    return {name: weight for name, weight in tuner.model.named_parameters() if ".lora_" in name}


def _ranks_left(tuner: Any) -> dict[str, list[bool]] | None:
    """Return for each layer which ranks have a value that is not zero; None at the start, where none has.

    They are read off the weights, for the weights that are kept may be older than the last allocation.
    """
    left = {name: (weight != 0).flatten().tolist() for name, weight in _factors(tuner).items() if ".lora_E." in name}
    return left if any(any(ranks) for ranks in left.values()) else None
