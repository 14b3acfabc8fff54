"""Where points lie, of clouds that stand side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def sphere(places: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return middle of the bounding box (batch, 1, axes), and distance of the farthest point from it (batch, 1, 1).

    Args:
        places: (batch, points, axes).
        mask: (batch, points) bool, at least one of each row.
    """
    here = mask[:, :, None]
    low = torch.where(here, places, torch.inf).amin(1, keepdim=True)
    high = torch.where(here, places, -torch.inf).amax(1, keepdim=True)
    middle = low + (high - low) / 2
    squares = torch.where(here, places - middle, 0.0).square().sum(2, keepdim=True)
    # The root has no gradient at 0, where all points are one.
    return middle, squares.amax(1, keepdim=True).clamp(min=1e-24).sqrt()
