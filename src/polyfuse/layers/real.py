"""Computing only what is real of items that stand side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def real_of(items: Tensor, mask: Tensor) -> Tensor:
    """Return the real items (n, …), row by row; all of them where a graph is exported, whose shapes know no data.

    Args:
        items: (batch, items, …).
        mask: (batch, items) bool.
    """
    # All are real in most batches: to pick none out saves a copy, and another one of the gradient.
    return items.flatten(0, 1) if torch.compiler.is_exporting() or mask.all() else items[mask]


def put_back(found: Tensor, mask: Tensor) -> Tensor:
    """Return what was made of `real_of` in its places (batch, items, …), 0 in those of the others.

    Args:
        found: (n, …).
        mask: (batch, items) bool.
    """
    if torch.compiler.is_exporting():
        whole = found.reshape(*mask.shape, *found.shape[1:])
        return torch.where(mask.reshape(*mask.shape, *[1] * (found.ndim - 1)), whole, 0.0)
    if mask.all():
        return found.reshape(*mask.shape, *found.shape[1:])
    spread = found.new_zeros(*mask.shape, *found.shape[1:])
    spread[mask] = found
    return spread
