"""One label out of several."""

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


class ClassificationHead(Head):
    """Cross-entropy over the labels.

    L = -Σ_rows Σ_c w_c q_c log softmax(W y + b)_c / Σ_rows w_label, with q = (1-ε) onehot + ε/C.

    Args:
        dim: width of the fused features.
        target: the labels and their frequencies.
        label_smoothing: ε, the share of a label's mass spread over all labels (Szegedy et al. 2016).
        class_weights: "none", or "balanced": w_c = 1 / (C · frequency of c).
        dropout: share of the fused features that is zeroed in training.
    """

    task: ClassVar[str] = "classification"
    metrics = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss")

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
        balanced = 1 / (len(target.levels) * frequencies.clamp(min=1e-12))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("weights", balanced if class_weights == "balanced" else None, persistent=False)
        self.out = nn.Sequential(Dropout(dropout), nn.Linear(dim, len(target.levels)))

    def encode(self, answers: Sequence[Any]) -> Tensor:
        """Return label codes (rows,) int64.

        Raises:
            InputError: a label that was not among the training rows.
        """
        unseen = {answer for answer in answers if answer not in self._codes}
        if unseen:
            raise InputError(
                f"labels {sorted(map(repr, unseen))[:5]} are not among those trained on: {self.levels[:20]}"
            )
        return torch.tensor([self._codes[answer] for answer in answers], dtype=torch.long)

    def forward(self, features: Features) -> Tensor:
        """Return logits (batch, labels)."""
        out: Tensor = self.out(features.pooled)
        return out

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """output: logits (batch, labels), target: codes (batch,)."""
        return F.cross_entropy(output, target, weight=self.weights, label_smoothing=self.label_smoothing)

    def scores(self, output: Tensor) -> Tensor:
        """Return probabilities (batch, labels)."""
        return output.float().softmax(dim=-1)

    def unscored(self, scores: Tensor) -> Tensor:
        """Return log p."""
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()

    def mixed(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return log Σ_m w_m softmax(z_m), which no confidence makes flat."""
        parts = [output.log_softmax(-1) + math.log(weight) for output, weight in zip(outputs, weights, strict=True)]
        return torch.stack(parts).logsumexp(0)

    def decode(self, scores: Tensor) -> list[Any]:
        """Return the most probable label of each row."""
        return [self.levels[code] for code in scores.argmax(dim=-1).tolist()]

    def prior(self) -> Tensor:
        """Return the labels' frequencies (labels,)."""
        return self.frequencies.clone()
