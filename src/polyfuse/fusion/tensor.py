"""Low-rank tensor fusion: products across modalities."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from polyfuse.core.options import Count, Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion
from polyfuse.layers.stacked import StackedLinear


class TensorFusion(AlignedFusion):
    """Products across all modalities: y = norm(Σ_r w_r Π_i W_i^(r) [h_i; 1] + b), elementwise, over `rank` terms r.

    The outer product of all [h_i; 1], which holds the interactions of any of the modalities up to all k together,
    contracted with a weight tensor of CP rank `rank`; neither is ever built (Liu et al. 2018, after Zadeh et al. 2017).
    A product of k factors vanishes or explodes with k. Here each factor starts as 1 + ε_i, with ε_i of variance 1/k
    about, so that the product starts with variance (1 + 1/k)^k - 1, between 1 and e - 1 for any k: the sum of the ε_i
    before all, then their pairs, then their triples; and the norm bounds what training makes of it.
    Cost: k·rank·dim² multiplications a row.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result.
        rank: products that are summed.
        dropout: share of the aligned vectors that is zeroed in training.
    """

    def __init__(self, dims: Mapping[str, int], *, dim: Width = 128, rank: Count = 4, dropout: Share = 0.1) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        self.factors = StackedLinear(len(dims), dim, rank * dim)
        # Entries of h_i start with variance 1/3: a linear layer's initial weights, on normed inputs.
        nn.init.normal_(self.factors.weight, std=(3 / (len(dims) * dim)) ** 0.5)
        nn.init.ones_(self.factors.bias)
        self.mix = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        factors = self.factors(self.pooled(features, present)).unflatten(2, (-1, self.dim))
        # Not torch.prod: its gradient divides, and takes a slow path wherever a factor is 0.
        products = reduce(torch.mul, factors.unbind(1))
        return Features.of_pooled(self.norm(torch.einsum("brd,r->bd", products, self.mix) + self.bias))
