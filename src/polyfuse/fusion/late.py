"""Late fusion: each modality answers alone, and the answers are weighed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from polyfuse.core.contract import LossOf
from polyfuse.core.options import Share, Width
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion, counting
from polyfuse.layers.dropout import Dropout
from polyfuse.layers.stacked import StackedLinear


class LateFusion(AlignedFusion):
    """Each modality answers alone, and the answers are weighed: y = n^ρ Σ_i w_i v_i, w = softmax(s) over those present.

    v_i = V_i gelu(U_i h_i), each layer with a bias, reads one modality; n counts those present; s and ρ are learned,
    and start at 0. The heads are linear in y: a head A y + c answers c + n^ρ Σ_i w_i A v_i. With ρ = 0 that is the mean
    of the modalities' own answers A v_i + c; with ρ = 1 and equal weights it adds up their evidence, which is right
    where they are independent given the target (mean and product of experts, Kittler et al. 1998). The training rows
    decide. Where one modality is present, the answer is its own, whatever ρ.
    In training, `alone` times the mean loss of the modalities' own answers, each over the rows that have it, is added
    to the loss. It fixes the scale of each v_i, and so how sure each modality is: a temperature for each would be that
    scale a second time.
    The tokens are the v_i. An absent modality has weight 0 exactly, and its token is masked; where all are absent,
    their learned tokens count as if present. Cost: 2·k·dim² multiplications a row.

    Args:
        dims: width of each modality's Features, by name.
        dim: common width, of the hidden layers as well, and width of the result.
        alone: weight, in the loss, of each modality's own answer.
        dropout: share of the activations that is zeroed in training.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        dim: Width = 128,
        alone: Annotated[float, Ge(0), Le(10)] = 1.0,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(dims, dim=dim, dropout=dropout)
        self.alone = alone
        self.views = nn.Sequential(
            StackedLinear(len(dims), dim, dim), nn.GELU(), Dropout(dropout), StackedLinear(len(dims), dim, dim)
        )
        self.trust = nn.Parameter(torch.zeros(len(dims)))
        self.sharpness = nn.Parameter(torch.zeros(()))

    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool."""
        views, counted = self.views(self.pooled(features, present)), counting(present)
        evidence = counted.sum(dim=1, keepdim=True).to(views.dtype) ** self.sharpness
        return Features(views, counted, torch.einsum("bk,bkd->bd", evidence * self._weights(counted), views))

    def with_penalty(
        self, features: Mapping[str, Features], present: Tensor, loss: LossOf
    ) -> tuple[Features, Tensor | None]:
        """Fuse, and return the mean loss of the modalities' own answers, over those that some row of the batch has."""
        fused: Features = self(features, present)
        here = present.any(dim=0).tolist()
        if not self.alone or not any(here):
            return fused, None
        own = [loss(Features.of_pooled(fused.tokens[:, i]), present[:, i]) for i in range(len(here)) if here[i]]
        return fused, self.alone * torch.stack(own).mean()

    def weights(self, features: Mapping[str, Features], present: Tensor) -> Tensor:
        """Return the weight of each modality in each row: (batch, modalities), each row sums to 1."""
        return self._weights(counting(present))

    def _weights(self, counted: Tensor) -> Tensor:
        return self.trust.expand(counted.shape[0], -1).masked_fill(~counted, float("-inf")).softmax(dim=1)
