"""Mixture of experts: a router sends each row to a few of several networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from polyfuse.core.contract import LossOf
from polyfuse.core.errors import InputError
from polyfuse.core.options import AtMost, Count, Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion


class ExpertsFusion(AlignedFusion):
    """A router sends each row to a few experts: y = norm(J x + Σ_e g_e f_e(x)), x = [h_1; …; h_k].

    f_e(x) = V_e gelu(U_e x + u_e) + v_e. p = softmax(R x + r), and g_e = p_e for the `chosen` experts of the largest
    p_e, else 0 (Shazeer et al. 2017, without noise). The gate is p_e itself, as in Fedus et al. 2021, not its share of
    the chosen: that would be 1 for a single chosen expert, and no loss of the task would reach the router.
    In training, balance·E·Σ_e F_e P_e is added to the loss, with F_e the share of the batch's choices that fell on
    e, and P_e the mean of p_e: least, `balance`, where all experts are used alike (Fedus et al. 2021).
    All experts are computed for all rows, in two products: in batches of some dozen rows this is faster than to sort
    the rows by expert, which pays with hundreds of rows and many experts, and no shape depends on the data.
    Cost for E experts: (k + E·k + E)·dim² + E·k·dim multiplications a row.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, of the experts' hidden layers as well, and width of the result.
        experts: E, the number of experts.
        chosen: experts that act on a row.
        balance: weight of the balance in the loss.
        dropout: share of the activations that is zeroed in training.

    Raises:
        InputError: more are chosen than there are.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        dim: Width = 128,
        experts: Count = 4,
        chosen: Annotated[Count, AtMost("experts")] = 2,
        balance: Annotated[float, Ge(0), Le(10)] = 0.01,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        if chosen > experts:
            raise InputError(f"chosen={chosen} of experts={experts}: choose at most as many experts as there are")
        self.experts, self.chosen, self.balance = experts, chosen, balance
        wide = len(dims) * dim
        self.join, self.router = nn.Linear(wide, dim), nn.Linear(wide, experts)
        self.hidden = nn.Linear(wide, experts * dim)
        # The experts' second layers side by side: with the gates on their inputs, one product sums over the experts.
        self.values = nn.Linear(experts * dim, dim, bias=False)
        self.offsets = nn.Linear(experts, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        return self._route(features, present)[0]

    def with_penalty(
        self, features: Mapping[str, Features], present: Tensor, loss: LossOf
    ) -> tuple[Features, Tensor | None]:
        """Fuse, and return the balance loss of the batch."""
        fused, odds, chosen = self._route(features, present)
        if not self.balance:
            return fused, None
        used = chosen.to(odds.dtype).mean(0) / self.chosen
        return fused, self.balance * self.experts * (used * odds.mean(0)).sum()

    def routing(self, features: Mapping[str, Features], present: Tensor) -> Tensor:
        """Return the gate g_e of each expert in each row: (batch, experts), 0 where it is not chosen."""
        _, odds, chosen = self._route(features, present)
        return odds * chosen

    def _route(self, features: Mapping[str, Features], present: Tensor) -> tuple[Features, Tensor, Tensor]:
        """Return the fused Features, and of each row and expert p_e and whether it is chosen: (batch, experts) each."""
        x = self.pooled(features, present).flatten(1)
        odds = self.router(x).softmax(dim=1)
        chosen = torch.zeros_like(odds, dtype=torch.bool).scatter(1, odds.topk(self.chosen, dim=1).indices, True)
        gates = odds * chosen
        hidden = self.dropout(nn.functional.gelu(self.hidden(x))).unflatten(1, (self.experts, self.dim))
        mixed = self.values((gates.unsqueeze(2) * hidden).flatten(1)) + self.offsets(gates)
        return Features.of_pooled(self.norm(self.join(x) + self.dropout(mixed))), odds, chosen
