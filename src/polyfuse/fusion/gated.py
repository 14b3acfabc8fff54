"""Adaptive fusion: weights that depend on the row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyfuse.core.options import Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion, counting


class GatedFusion(AlignedFusion):
    """Weights that depend on the row: y = norm Σ g_i tanh(V_i h_i), g = softmax(G [h_1; …; h_k]) over what is present.

    The gated multimodal unit (Arevalo et al. 2017) for any number of modalities. An absent modality has weight 0
    exactly; where all are absent, the weights are those of their learned tokens. Cost: k·dim² + k²·dim
    multiplications a row.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result.
        dropout: share of the aligned vectors that is zeroed in training.
    """

    def __init__(self, dims: Mapping[str, int], *, dim: Width = 128, dropout: Share = 0.1) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        self.gate = nn.Linear(len(dims) * dim, len(dims))
        self.values = nn.ModuleList(nn.Linear(dim, dim) for _ in dims)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        h = self.pooled(features, present)
        values = torch.stack([torch.tanh(layer(h[:, i])) for i, layer in enumerate(self.values)], dim=1)
        return Features.of_pooled(self.norm((self._gates(h, present).unsqueeze(-1) * values).sum(1)))

    def weights(self, features: Mapping[str, Features], present: Tensor) -> Tensor:
        """Return the weight of each modality in each row: (batch, modalities), each row sums to 1."""
        return self._gates(self.pooled(features, present), present)

    def _gates(self, h: Tensor, present: Tensor) -> Tensor:
        allowed = counting(present)
        gates: Tensor = self.gate(h.flatten(1)).masked_fill(~allowed, float("-inf")).softmax(dim=1)
        return gates
