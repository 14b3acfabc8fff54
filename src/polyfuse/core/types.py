"""What travels between the parts: features of a modality, and batches of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tensors: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Sound:
    """A decoded recording.

    Attributes:
        samples: (samples,) float32, mono, in [-1, 1].
        rate: samples a second.
    """

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Features:
    """What an encoder makes of the values of a modality.

    Attributes:
        tokens: (batch, tokens, dim).
        mask: (batch, tokens) bool, True where a token is real.
        pooled: (batch, dim).
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.pooled.shape[-1]

    def to(self, device: torch.device | str) -> Features:
        """Return the same features on a device."""
        return Features(self.tokens.to(device), self.mask.to(device), self.pooled.to(device))

    def rows(self, chosen: Tensor) -> Features:
        """Return those of some rows. chosen: positions (n,), or (batch,) bool."""
        return Features(self.tokens[chosen], self.mask[chosen], self.pooled[chosen])

    @classmethod
    def of_pooled(cls, pooled: Tensor) -> Features:
        """Return features whose only token is the pooled vector. pooled: (batch, dim)."""
        mask = torch.ones(pooled.shape[0], 1, dtype=torch.bool, device=pooled.device)
        return cls(pooled.unsqueeze(1), mask, pooled)

    @classmethod
    def of_tokens(cls, tokens: Tensor, mask: Tensor) -> Features:
        """Return features pooled by the mean over real tokens. tokens: (batch, tokens, dim), mask: (batch, tokens)."""
        weights = mask.to(tokens.dtype).unsqueeze(-1)
        total = torch.where(mask.unsqueeze(-1), tokens, torch.zeros_like(tokens)).sum(1)
        return cls(tokens, mask, total / weights.sum(1).clamp(min=1))


Inputs: TypeAlias = Mapping[str, "Features | Tensors"]


@dataclass(frozen=True)
class Batch:
    """Some rows, ready for the model.

    Attributes:
        inputs: for each modality its prepared tensors, or its Features where those are known already.
        present: (batch, modalities) bool, in the order of the model's modalities.
        target: (batch, …), what the head's loss compares with; None when predicting.
        group: (batch,) int64, that each row belongs to, -1 for none; None where groups are not asked for.
    """

    inputs: Inputs
    present: Tensor
    target: Tensor | None = None
    group: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on a device."""
        inputs: dict[str, Features | Tensors] = {}
        for name, value in self.inputs.items():
            if isinstance(value, Features):
                inputs[name] = value.to(device)
            else:
                inputs[name] = {key: tensor.to(device) for key, tensor in value.items()}
        target, group = (None if some is None else some.to(device) for some in (self.target, self.group))
        return Batch(inputs, self.present.to(device), target, group)
