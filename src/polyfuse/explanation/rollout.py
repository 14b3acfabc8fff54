"""Attention roll-out: how much of each input token reaches the tokens of the last layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Tensors


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """Return the product over layers of (mean over heads of the attention + I) / 2, rows summing to 1.

    Abnar & Zuidema 2020, equation 1: half of a token goes on past each attention, along the residual connection.

    Args:
        attentions: of each layer, the first one first: (batch, heads, tokens, tokens), rows summing to 1.

    Returns:
        (batch, tokens, tokens): of the last layer's tokens, the share of each input token.
    """
    whole: Tensor | None = None
    for attention in attentions:
        mixed = attention.double().mean(1)
        mixed = mixed + torch.eye(mixed.shape[-1], dtype=mixed.dtype, device=mixed.device)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        whole = mixed if whole is None else mixed @ whole
    assert whole is not None
    return whole


def attentions_of(encoder: Encoder, tensors: Tensors) -> list[Tensor] | None:
    """Return the attentions of a backbone's layers (batch, heads, tokens, tokens); None where it has none to give.

    None too where layers do not attend to all tokens of the one below, as in windows or stages.

    Args:
        encoder: in evaluation mode.
        tensors: prepared.
    """
    if encoder.backbone is None or not hasattr(_base(encoder.backbone), "set_attn_implementation"):
        return None
    outputs: list[Any] = []
    hook = encoder.backbone.register_forward_hook(lambda module, given, output: outputs.append(output))
    try:
        with torch.no_grad(), _eager(_base(encoder.backbone)):
            encoder(**tensors)
    except ValueError:  # the model has no implementation that tells its attentions
        return None
    finally:
        hook.remove()
    found = [one for one in getattr(outputs[-1], "attentions", None) or () if one is not None]
    square = {tuple(one.shape[-2:]) for one in found if one.ndim == 4}
    whole = len(square) == 1 and len({*next(iter(square))}) == 1 and len(outputs) == 1
    return found if whole and all(one.ndim == 4 for one in found) else None


def _base(backbone: nn.Module) -> Any:
    return backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone  # type: ignore[operator]


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let a transformers model return its attentions, as long as the block runs."""
    kind, told = model.config._attn_implementation, model.config.output_attentions
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    try:
        yield
    finally:
        model.config.output_attentions = told
        model.set_attn_implementation(kind)
