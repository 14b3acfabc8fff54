"""Linear layers whose weights lie as the processor reads them: for modules that are only run."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

#: Copies of weights are made up to this size, in bytes.
MOST = 2 << 30

Module = TypeVar("Module", bound=nn.Module)


class PackedLinear(nn.Module):
    """y = x Wᵀ + b, of a layer at rest on the CPU.

    Torch brings a weight into oneDNN's layout, and under autocast into bfloat16 too, at every call. Here that is done
    once.

    Args:
        linear: whose weights it takes; they are shared, beside the packed copy.
        dtype: in which it computes; what comes out has it too.
    """

    packed: Tensor
    added: Tensor | None

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features, self.dtype = linear.in_features, linear.out_features, dtype
        self.weight, self.bias = linear.weight, linear.bias  # models look at the type of a layer's weight
        with torch.no_grad():
            weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), None)
            added = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.register_buffer("packed", weight, persistent=False)
        self.register_buffer("added", added, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """input: (…, in). Returns (…, out)."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            input.to(self.dtype), self.packed, self.added, "none", [], "none"
        )
        return output


def packed(module: Module, dtype: torch.dtype) -> Module:
    """Return a copy of a module at rest, with packed linear layers; all other weights are shared with the module.

    The module itself comes back where this torch has no packed layers, or where the copies would be too large.

    Args:
        module: on the CPU, in evaluation mode.
        dtype: in which its linear layers compute.
    """
    linear = [layer for layer in module.modules() if _can_be_packed(layer)]
    size = sum(layer.weight.numel() for layer in linear if isinstance(layer.weight, Tensor)) * dtype.itemsize
    if not linear or size > MOST or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return module
    shared: dict[int, Any] = {id(weight): weight for weight in chain(module.parameters(), module.buffers())}
    for part in module.modules():
        if hasattr(part, "companion"):  # a tokenizer takes longer to copy than all else
            shared[id(part.companion)] = part.companion
    try:
        twin = copy.deepcopy(module, shared)
        for part in list(twin.modules()):
            for name, child in list(part.named_children()):
                if _can_be_packed(child):
                    assert isinstance(child, nn.Linear)
                    setattr(part, name, PackedLinear(child, dtype))
    except (
        AttributeError,
        NotImplementedError,
        RuntimeError,
        TypeError,
    ):  # these operators are not part of torch's promise
        return module
    return twin


def _can_be_packed(layer: nn.Module) -> bool:
    # Not of a subclass: it may do something else. Nor one that something is hooked to.
    return type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks)
