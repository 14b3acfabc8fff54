"""Any number of labels at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyfuse.core.contract import Head
from polyfuse.core.errors import InputError
from polyfuse.core.options import Share
from polyfuse.core.types import Features
from polyfuse.data.schema import Target
from polyfuse.layers.dropout import Dropout


class MultilabelHead(Head):
    """Binary cross-entropy for each label.

    L = -mean_l [w_l t_l log σ(z_l) + (1-t_l) log(1-σ(z_l))], with z = W y + b and t smoothed to [ε/2, 1-ε/2].

    Args:
        dim: width of the fused features.
        target: the labels and the share of rows that have each.
        label_smoothing: ε.
        class_weights: "none", or "balanced": w_l = (1 - frequency of l) / frequency of l, at most 100.
        dropout: share of the fused features that is zeroed in training.
    """

    task: ClassVar[str] = "multilabel"
    metrics = (
        "multilabel_f1_micro",
        "multilabel_f1_macro",
        "mean_average_precision",
        "subset_accuracy",
    )

    frequencies: Tensor
    weights: Tensor | None

    def __init__(
        self,
        dim: int,
        target: Target,
        *,
        label_smoothing: Share = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        self.levels, self.label_smoothing = target.levels, label_smoothing
        self._codes = {level: code for code, level in enumerate(target.levels)}
        frequencies = torch.tensor(target.frequencies)
        balanced = ((1 - frequencies) / frequencies.clamp(min=1e-12)).clamp(max=100)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("weights", balanced if class_weights == "balanced" else None, persistent=False)
        self.out = nn.Sequential(Dropout(dropout), nn.Linear(dim, len(target.levels)))

    def encode(self, answers: Sequence[Any]) -> Tensor:
        """Return a 0/1 matrix (rows, labels) float32.

        Raises:
            InputError: a label that was not among the training rows.
        """
        unseen = {label for answer in answers for label in answer if label not in self._codes}
        if unseen:
            raise InputError(
                f"labels {sorted(map(repr, unseen))[:5]} are not among those trained on: {self.levels[:20]}"
            )
        matrix = torch.zeros(len(answers), len(self.levels))
        for row, answer in enumerate(answers):
            matrix[row, [self._codes[label] for label in answer]] = 1.0
        return matrix

    def forward(self, features: Features) -> Tensor:
        """Return logits (batch, labels)."""
        out: Tensor = self.out(features.pooled)
        return out

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """output: logits (batch, labels), target: 0/1 (batch, labels)."""
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(output, smooth, pos_weight=self.weights)

    def scores(self, output: Tensor) -> Tensor:
        """Return the probability of each label (batch, labels)."""
        return output.float().sigmoid()

    def unscored(self, scores: Tensor) -> Tensor:
        """Return log p - log (1 - p)."""
        return scores.double().logit(eps=1e-12).to(scores.dtype)

    def mixed(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return log Σ_m w_m σ(z_m) - log Σ_m w_m σ(-z_m)."""
        pairs = list(zip(outputs, weights, strict=True))
        yes, no = (
            torch.stack([F.logsigmoid(sign * output) + math.log(weight) for output, weight in pairs]).logsumexp(0)
            for sign in (1, -1)
        )
        return yes - no

    def decode(self, scores: Tensor) -> list[Any]:
        """Return the list of labels of each row whose probability reaches 0.5."""
        return [
            [level for level, chosen in zip(self.levels, row, strict=True) if chosen]
            for row in (scores >= 0.5).tolist()
        ]

    def prior(self) -> Tensor:
        """Return the labels' frequencies (labels,)."""
        return self.frequencies.clone()
