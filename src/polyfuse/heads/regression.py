"""A number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyfuse.core.contract import Head
from polyfuse.core.options import Share
from polyfuse.core.types import Features
from polyfuse.data.schema import Target
from polyfuse.layers.dropout import Dropout


class RegressionHead(Head):
    """One number, learned in units of the target's standard deviation: z = (t - mean) / std.

    Args:
        dim: width of the fused features.
        target: mean and standard deviation of the training rows.
        objective: "squared" (z - ẑ)², "absolute" |z - ẑ|, or "huber": squared up to 1 standard deviation, absolute
            beyond (Huber 1964).
        dropout: share of the fused features that is zeroed in training.
    """

    task: ClassVar[str] = "regression"
    metrics = ("rmse", "mae", "r2", "spearman")

    def __init__(
        self,
        dim: int,
        target: Target,
        *,
        objective: Literal["squared", "absolute", "huber"] = "squared",
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        self.mean, self.std = target.mean, target.std
        self.objective = objective
        self.out = nn.Sequential(Dropout(dropout), nn.Linear(dim, 1))

    def encode(self, answers: Sequence[Any]) -> Tensor:
        """Return the answers in standard deviations from the mean (rows,) float32."""
        return ((torch.tensor(answers, dtype=torch.float64) - self.mean) / self.std).float()

    def forward(self, features: Features) -> Tensor:
        """Return standardised predictions (batch,)."""
        out: Tensor = self.out(features.pooled).squeeze(-1)
        return out

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """output, target: standardised (batch,)."""
        if self.objective == "squared":
            return F.mse_loss(output, target)
        return F.l1_loss(output, target) if self.objective == "absolute" else F.huber_loss(output, target)

    def truth(self, target: Tensor) -> Tensor:
        """Return answers in the target's unit (batch,) float64."""
        return self.scores(target)

    def scores(self, output: Tensor) -> Tensor:
        """Return predictions in the target's unit (batch,) float64."""
        return output.double() * self.std + self.mean

    def unscored(self, scores: Tensor) -> Tensor:
        """Return the predictions, standardised."""
        return ((scores - self.mean) / self.std).float()

    def mixed(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return Σ_m w_m z_m."""
        return torch.stack([weight * output for output, weight in zip(outputs, weights, strict=True)]).sum(0)

    def decode(self, scores: Tensor) -> list[Any]:
        """Return the predictions as floats."""
        return [float(score) for score in scores.tolist()]

    def prior(self) -> Tensor:
        """Return the mean of the training rows, a scalar."""
        return torch.tensor(self.mean, dtype=torch.float64)
