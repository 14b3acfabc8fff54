"""Concatenation."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from polyfuse.core.options import Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion


class ConcatFusion(AlignedFusion):
    """Concatenation and one linear layer: y = W [h_1; …; h_k] + b.

    Linear in the aligned vectors, so modalities add up and do not interact. Cost: k·dim² multiplications a row.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result.
        dropout: share of the aligned vectors that is zeroed in training.
    """

    def __init__(self, dims: Mapping[str, int], *, dim: Width = 128, dropout: Share = 0.1) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        self.out = nn.Linear(len(dims) * dim, dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        return Features.of_pooled(self.out(self.pooled(features, present).flatten(1)))
