"""Attention bottlenecks: modalities that meet in a few shared tokens only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from polyfuse.core.options import Count, Depth, Heads, Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion, counting
from polyfuse.layers.transformer import AttentionPool, Block


class BottleneckFusion(AlignedFusion):
    """A transformer for each modality, which sees the others through B shared tokens only.

    [s_i; z_i^(l+1)] = block_(i,l)([s^l; z_i^l]), s^(l+1) = the mean of the s_i over the modalities present, and
    y = norm(pool([s^L; z_1^L; …; z_k^L])); z_i^0 are the aligned tokens, s^0 is learned, and `pool` has one learned
    query a head (Nagrani et al. 2021). The pool reads the modalities' own tokens too, as the paper does: with s alone,
    all that a modality has to say, even what no other needs to hear, would have to pass through B tokens.
    What modalities tell each other in one block they hear in the next. An absent modality's token a_i reads the
    bottleneck and is read by the pool, but has no part in the mean; where all are absent, all have.
    Cost for n_i tokens: depth·Σ_i (2·(n_i + B)²·dim + 8·(n_i + B)·dim²) multiplications a row, and the pool's
    2·heads·(B + Σ n_i)·dim + 2·dim². For two modalities of n tokens each, that is less than attention over all from
    about n² = 4·B·dim on.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result; a multiple of `heads`.
        depth: number of transformer blocks of each modality.
        heads: attention heads.
        bottlenecks: B, the number of shared tokens.
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
        bottlenecks: Count = 4,
        dropout: Share = 0.1,
        most_tokens: Count | None = None,
    ) -> None:
        super().__init__(dims, dim=dim, dropout=dropout, most_tokens=most_tokens)
        self.bottlenecks = nn.ParameterList(torch.randn(dim) * dim**-0.5 for _ in range(bottlenecks))
        self.layers = nn.ModuleList(nn.ModuleList(Block(dim, heads, dropout) for _ in dims) for _ in range(depth))
        self.pool = AttentionPool(dim, heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        aligned = self.tokens(features, present)
        streams, masks = [h for h, _ in aligned], [mask for _, mask in aligned]
        shared = torch.stack(list(self.bottlenecks)).expand(present.shape[0], -1, -1)
        real = torch.ones(shared.shape[:2], dtype=torch.bool, device=present.device)
        writes = counting(present).to(shared.dtype)
        shares = writes / writes.sum(1, keepdim=True)
        for blocks in self.layers:
            assert isinstance(blocks, nn.ModuleList)
            versions = []
            for i, block in enumerate(blocks):
                both = block(torch.cat([shared, streams[i]], dim=1), torch.cat([real, masks[i]], dim=1))
                streams[i] = both[:, shared.shape[1] :]
                versions.append(both[:, : shared.shape[1]])
            shared = torch.einsum("bk,kbsd->bsd", shares, torch.stack(versions))
        tokens, mask = torch.cat([shared, *streams], dim=1), torch.cat([real, *masks], dim=1)
        return Features(tokens, mask, self.norm(self.pool(tokens, mask)))
