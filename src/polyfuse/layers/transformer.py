"""Pre-norm transformer blocks and attention pooling over masked tokens."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyfuse.core.compute import autocast
from polyfuse.layers.dropout import Dropout
from polyfuse.layers.stacked import StackedLinear


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
        # On a CPU the kernel for bf16 takes longer than that for float32 where tokens are few.
        plain = tokens.device.type == "cpu"
        if plain:
            q, k, v = (part.to(tokens.dtype) for part in (q, k, v))
        with autocast(tokens.device, "float32") if plain else nullcontext():
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
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens: (batch, n, dim), mask: (batch, n) bool, with at least one real token a row."""
        normed = self.norm_attention(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed, mask))
        out: Tensor = tokens + self.dropout(self.mlp(self.norm_mlp(tokens)))
        return out


class AttentionPool(nn.Module):
    """Learned queries, one a head, that attend over masked tokens: (batch, n, dim) to (batch, dim).

    y = W_o [W_1 Σ_j a_1j x_j; …; W_h Σ_j a_hj x_j], x = norm(tokens), a_i = softmax_j(q_i · x_j). Queries that do not
    depend on the row need no keys, and what they read is projected once a row: 2·heads·n·dim + 2·dim² multiplications.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} cannot be shared by heads={heads}: choose heads that divide dim")
        self.queries = nn.Parameter(torch.randn(heads, dim) * dim**-0.5)
        self.norm = nn.LayerNorm(dim)
        self.values = StackedLinear(heads, dim, dim // heads)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens: (batch, n, dim), mask: (batch, n) bool, with at least one real token a row."""
        normed = self.norm(tokens)
        asked = F.linear(normed, self.queries).masked_fill(~mask.unsqueeze(-1), -torch.inf)
        read = asked.to(normed.dtype).softmax(1).transpose(1, 2) @ normed
        out: Tensor = self.out(self.values(read).flatten(1))
        return out
