"""A table's columns, by attention among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyfuse.core.options import Count, Depth, Heads, Share, Width
from polyfuse.core.types import Features
from polyfuse.data.schema import Column
from polyfuse.encoders.table import CategoryEmbeddings, NumberEmbedding, NumberEmbeddings, TableEncoder
from polyfuse.layers.transformer import Block


class FTTransformerEncoder(TableEncoder):
    """A token for each column and a learned one before them, through transformer blocks (Gorishniy et al. 2021).

    The pooled vector is the learned token. A datetime has seven tokens.

    Args:
        columns: number, category and datetime columns that feed it.
        dim: width of the tokens; a multiple of `heads`.
        depth: number of transformer blocks.
        heads: attention heads.
        numbers: how a number is encoded before its linear layer: "piecewise", "periodic" or "linear".
        bins: most quantile bins of a piecewise encoding, and frequencies of a periodic one.
        dropout: share of the activations that is zeroed in training.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        dim: Width = 64,
        depth: Depth = 2,
        heads: Heads = 4,
        numbers: NumberEmbedding = "piecewise",
        bins: Count = 16,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(columns)
        self.numbers = NumberEmbeddings(self.edges, dim, numbers, bins) if self.edges else None
        self.categories = CategoryEmbeddings(self.levels, dim) if self.levels else None
        self.summary = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dim = dim

    def forward(self, numbers: Tensor, missing: Tensor, codes: Tensor) -> Features:
        """numbers: (batch, n), missing: (batch, n) bool, codes: (batch, m)."""
        # Not len(numbers): in an exported graph that would be a constant.
        parts = [self.summary.expand(numbers.shape[0], 1, -1)]
        if self.numbers is not None:
            parts.append(self.numbers(numbers, missing))
        if self.categories is not None:
            parts.append(self.categories(codes))
        tokens = torch.cat(parts, dim=1)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.norm(tokens)
        return Features(tokens, mask, tokens[:, 0])
