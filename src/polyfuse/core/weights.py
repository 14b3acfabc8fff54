"""Weights of a model: those of a backbone without its adapters, and a hash that tells two apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from polyfuse.core.types import Tensors


def base_weights(backbone: nn.Module) -> Tensors:
    """Return a backbone's own weights under their plain names, without what peft has put around and beside them."""
    wrapped = getattr(backbone, "get_base_model", None)
    if wrapped is None:
        return backbone.state_dict()
    marks = [f".{part}." for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")]
    state: Tensors = wrapped().state_dict()
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if not any(mark in name for mark in marks)
    }


def weights_digest(weights: Tensors) -> str:
    """Return a hash of tensors, with names, types and shapes."""
    whole = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()
