"""Attention over the tokens of all modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from polyfuse.core.options import Count, Depth, Heads, Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion
from polyfuse.layers.transformer import AttentionPool, Block


class AttentionFusion(AlignedFusion):
    """A transformer over the tokens of all modalities, each marked with a learned vector e_i of its modality.

    z_0 = [h_1 + e_1; …; h_k + e_k] over all tokens, z_l = block_l(z_(l-1)), y = norm(pool(z_L)), where `pool` has one
    learned query a head (multimodal transformer with early concatenation; Vaswani et al. 2017, Kim et al. 2021).
    Cost for n tokens in all: depth·(2·n²·dim + 8·n·dim²) multiplications a row, and the pool's 2·heads·n·dim + 2·dim².

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result; a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        dropout: share of the activations that is zeroed in training.
        most_tokens: of a modality; where there are more, neighbours are averaged first. All when left out.
    """

    needs: ClassVar[Literal["pooled", "tokens"]] = "tokens"

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        dim: Width = 128,
        depth: Depth = 1,
        heads: Heads = 4,
        dropout: Share = 0.1,
        most_tokens: Count | None = None,
    ) -> None:
        super().__init__(dims, dim=dim, dropout=dropout, most_tokens=most_tokens)
        self.kinds = nn.ParameterList(torch.randn(dim) * dim**-0.5 for _ in dims)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(depth))
        self.pool = AttentionPool(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        aligned = self.tokens(features, present)
        tokens = torch.cat([h + kind for (h, _), kind in zip(aligned, self.kinds, strict=True)], dim=1)
        mask = torch.cat([m for _, m in aligned], dim=1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return Features(tokens, mask, self.norm(self.pool(tokens, mask)))
