"""A table's columns, by a plain network over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from polyfuse.core.options import Count, Depth, Share, Width
from polyfuse.core.types import Features
from polyfuse.data.schema import Column
from polyfuse.encoders.table import CategoryEmbeddings, NumberEmbedding, NumberEmbeddings, TableEncoder
from polyfuse.layers.dropout import Dropout


class MLPEncoder(TableEncoder):
    """Embeddings of all columns side by side, then layers relu(W z + b); the result is the only token.

    Numbers are embedded with a relu (Gorishniy et al. 2022: MLP-PLR, MLP-QLR).

    Args:
        columns: number, category and datetime columns that feed it.
        dim: width of the layers, and of the token.
        depth: number of layers.
        embedding: width of a column's embedding.
        numbers: how a number is encoded before: "piecewise", "periodic" or "linear".
        bins: most quantile bins of a piecewise encoding, and frequencies of a periodic one.
        dropout: share of the activations that is zeroed in training.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        dim: Width = 128,
        depth: Depth = 2,
        embedding: Width = 12,
        numbers: NumberEmbedding = "piecewise",
        bins: Count = 16,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(columns)
        self.numbers = NumberEmbeddings(self.edges, embedding, numbers, bins) if self.edges else None
        self.categories = CategoryEmbeddings(self.levels, embedding) if self.levels else None
        widths = [(len(self.edges) + len(self.levels)) * embedding, *[dim] * depth]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.dim = dim

    def forward(self, numbers: Tensor, missing: Tensor, codes: Tensor) -> Features:
        """numbers: (batch, n), missing: (batch, n) bool, codes: (batch, m)."""
        parts = []
        if self.numbers is not None:
            parts.append(torch.relu(self.numbers(numbers, missing)).flatten(1))
        if self.categories is not None:
            parts.append(self.categories(codes).flatten(1))
        return Features.of_pooled(self.layers(torch.cat(parts, dim=1)))
