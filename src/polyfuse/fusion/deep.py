"""Deep fusion: a residual network over the concatenation."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from polyfuse.core.options import Depth, Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion
from polyfuse.layers.dropout import Dropout


class DeepFusion(AlignedFusion):
    """A residual network over the concatenation.

    z_0 = W [h_1; …; h_k], z_l = z_(l-1) + MLP_l(norm z_(l-1)), y = norm z_L. Modalities interact in the
    hidden layers (Ngiam et al. 2011, with the residual blocks of Gorishniy et al. 2021).
    Cost: k·dim² + 4·depth·dim² multiplications a row.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result.
        depth: number of residual blocks.
        dropout: share of the activations that is zeroed in training.
    """

    def __init__(self, dims: Mapping[str, int], *, dim: Width = 128, depth: Depth = 2, dropout: Share = 0.1) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        self.join = nn.Linear(len(dims) * dim, dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), Dropout(dropout), nn.Linear(2 * dim, dim)
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        z = self.join(self.pooled(features, present).flatten(1))
        for block in self.blocks:
            z = z + self.dropout(block(z))
        return Features.of_pooled(self.norm(z))
