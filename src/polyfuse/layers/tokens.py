"""Fewer tokens for those that read them all."""

from __future__ import annotations

import torch

from polyfuse.core.types import Features


def shortened(features: Features, most: int) -> Features:
    """Return the Features with at most `most` tokens a row: means of neighbouring real ones; `pooled` stays.

    The j-th of n real tokens goes to group ⌊j · most / n⌋, or stays itself where n ≤ most, so that doing it twice
    changes nothing.
    """
    tokens, mask = features.tokens, features.mask
    if mask.shape[1] <= most:
        return features
    counts = mask.sum(1, keepdim=True)
    rank = mask.cumsum(1) - 1
    group = torch.where(counts <= most, rank, rank * most // counts.clamp(min=1)).clamp(min=0)
    clean = torch.where(mask.unsqueeze(-1), tokens, 0.0)
    sums = tokens.new_zeros(tokens.shape[0], most, tokens.shape[2])
    sums.scatter_add_(1, group.unsqueeze(-1).expand_as(clean), clean)
    sizes = torch.zeros(tokens.shape[0], most, dtype=tokens.dtype, device=tokens.device)
    sizes.scatter_add_(1, group, mask.to(tokens.dtype))
    return Features(sums / sizes.clamp(min=1).unsqueeze(-1), sizes > 0, features.pooled)
