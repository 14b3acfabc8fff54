"""Feature-wise linear modulation: one modality changes how the others are read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.options import Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion


class FilmFusion(AlignedFusion):
    """One modality c modulates the others: z_i = (1 + γ_i(h_c)) ⊙ h_i + β_i(h_c), then y = W [h_c; z_i, i ≠ c] + b.

    γ and β are the two halves of G gelu(U h_c) + g (Perez et al. 2018). G and g start at 0, so that training starts
    from plain concatenation. Each of the others interacts with c, and none of them with another. Where c is absent,
    its learned token modulates. With a single modality there is nothing to modulate: y = W h_c + b.
    Cost: (3·k - 1)·dim² multiplications a row, for k > 1.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, and width of the result.
        condition: the modality that modulates; None takes the last one, usually the table.
        dropout: share of the aligned vectors that is zeroed in training.

    Raises:
        InputError: `condition` is none of the modalities.
    """

    def __init__(
        self, dims: Mapping[str, int], *, dim: Width = 128, condition: str | None = None, dropout: Share = 0.1
    ) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        if condition is not None and condition not in self.names:
            raise InputError(f"condition={condition!r} is none of the modalities; {nearest(condition, self.names)}")
        self.place = len(dims) - 1 if condition is None else self.names.index(condition)
        self.modulation: nn.Sequential | None = None
        if len(dims) > 1:
            last = nn.Linear(dim, 2 * (len(dims) - 1) * dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.modulation = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), last)
        self.out = nn.Linear(len(dims) * dim, dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        h, at = self.pooled(features, present), self.place
        parts = [h[:, at]]
        if self.modulation is not None:
            others = torch.cat([h[:, :at], h[:, at + 1 :]], dim=1)
            gamma, beta = self.modulation(h[:, at]).unflatten(1, (2, -1, self.dim)).unbind(1)
            parts.append((others + gamma * others + beta).flatten(1))
        return Features.of_pooled(self.out(torch.cat(parts, dim=1)))
