"""Weights of a model: those of a backbone without its adapters, and a hash that tells two apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from polyfuse.core.types import Tensors


class Added(nn.Module):
    """A part that a tuning put into a backbone: its weights are not the backbone's own."""


def base_weights(backbone: nn.Module) -> Tensors:
    """Return a backbone's own weights under their plain names, without what a tuning has put around and beside them."""
    wrapped = getattr(backbone, "get_base_model", None)
    model: nn.Module = backbone if wrapped is None else wrapped()
    state = model.state_dict()
    for name, module in reversed(list(model.named_modules())):  # what stands in another first
        # peft puts a layer into another one, under one of these names, and its own weights beside it.
        kept = next((part for part in _WRAPPED if hasattr(module, part) and hasattr(module, "active_adapter")), None)
        if kept is None and not isinstance(module, Added):
            continue
        inside = [key for key in state if key.startswith(f"{name}.")]
        for key, tensor in [(key, state.pop(key)) for key in inside]:
            if kept is not None and key.startswith(f"{name}.{kept}."):
                state[f"{name}{key.removeprefix(f'{name}.{kept}')}"] = tensor
    return state


_WRAPPED = ("base_layer", "original_module")


def weights_digest(weights: Tensors) -> str:
    """Return a hash of tensors, with names, types and shapes."""
    whole = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()
