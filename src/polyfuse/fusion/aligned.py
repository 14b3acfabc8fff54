"""What every fusion here starts from: all modalities at one width, a learned token where one is absent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyfuse.core.contract import Fusion
from polyfuse.core.types import Features
from polyfuse.layers.dropout import Dropout
from polyfuse.layers.tokens import shortened


class AlignedFusion(Fusion):
    """Brings each modality to the width `dim`: h_i = P_i norm(o_i) where it is present, else the learned token a_i.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width.
        dropout: share of each h_i that is zeroed in training.
        most_tokens: of a modality that `tokens` returns; where there are more, neighbours are averaged first.
    """

    def __init__(self, dims: Mapping[str, int], *, dim: int, dropout: float, most_tokens: int | None = None) -> None:
        super().__init__()
        self.names, self.dim, self.most_tokens = list(dims), dim, most_tokens
        # Lists, not dicts: a modality may bear any name, one that a torch module uses for itself too.
        self.projections = nn.ModuleList(nn.Sequential(nn.LayerNorm(d), nn.Linear(d, dim)) for d in dims.values())
        self.absent = nn.ParameterList(torch.randn(dim) * dim**-0.5 for _ in dims)
        self.dropout = Dropout(dropout)

    def pooled(self, features: Mapping[str, Features], present: Tensor) -> Tensor:
        """Return the aligned pooled vectors (batch, modalities, dim)."""
        columns = []
        for i, name in enumerate(self.names):
            here = present[:, i, None]
            # Garbage is cut off before the projection: a NaN would survive a multiplication with zero in the gradient.
            clean = torch.where(here, features[name].pooled, 0.0)
            columns.append(torch.where(here, self.dropout(self.projections[i](clean)), self.absent[i]))
        return torch.stack(columns, dim=1)

    def tokens(self, features: Mapping[str, Features], present: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return, for each modality, its aligned tokens (batch, n, dim) and their mask (batch, n).

        An absent modality is one real token, a_i.
        """
        aligned = []
        for i, name in enumerate(self.names):
            here = present[:, i, None]
            given = features[name] if self.most_tokens is None else shortened(features[name], self.most_tokens)
            mask = given.mask & here
            clean = torch.where(mask.unsqueeze(-1), given.tokens, 0.0)
            projected = self.dropout(self.projections[i](clean))
            first = torch.zeros_like(mask)
            first[:, 0] = True
            instead = first & ~here
            aligned.append((torch.where(instead.unsqueeze(-1), self.absent[i], projected), mask | instead))
        return aligned


def counting(present: Tensor) -> Tensor:
    """Return which modalities count in each row: those present, or all where none is: (batch, modalities)."""
    return present | ~present.any(dim=1, keepdim=True)
