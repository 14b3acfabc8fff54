"""Pre-norm transformer blocks and attention pooling over masked tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017) of queries over masked tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} cannot be shared by heads={heads}: choose heads that divide dim")
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """queries: (batch, n, dim), tokens: (batch, m, dim), mask: (batch, m) bool. Returns (batch, n, dim)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        # No dropout of the weights: it costs a random number for each pair of tokens, a third of a step on a CPU.
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Pre-norm transformer block (Xiong et al. 2020): x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, expansion: int = 2) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens: (batch, n, dim), mask: (batch, n) bool, with at least one real token a row."""
        normed = self.norm_attention(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed, mask))
        out: Tensor = tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))
        return out


class AttentionPool(nn.Module):
    """One learned query that attends over masked tokens: (batch, n, dim) to (batch, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens: (batch, n, dim), mask: (batch, n) bool, with at least one real token a row."""
        queries = self.query.expand(tokens.shape[0], 1, -1)
        out: Tensor = self.attention(queries, self.norm(tokens), mask).squeeze(1)
        return out
