"""What candidates learn from: the rows, once encoded, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import Batches, PreparedSource, Source
from polyfuse.data.rows import Rows
from polyfuse.ensemble import Ensemble
from polyfuse.layers.tokens import shortened
from polyfuse.learners.learner import Array, Design

_CHUNK = 256
#: Tokens of a modality that fusions compare by: as many as that are averages of neighbours.
TOKENS = 16


class FeatureSource:
    """Features of all rows, in memory."""

    lengths: NDArray[np.int64] | None = None

    def __init__(self, features: Features) -> None:
        self.features = features

    def batch(self, rows: Sequence[int]) -> Features:
        """Return Features."""
        return self.features.rows(torch.as_tensor(rows))


@dataclass(frozen=True)
class Material:
    """Rows to learn from.

    Attributes:
        rows: of the training table.
        bank: the encoders, and the statistics of words; an ensemble without members yet.
        pooled: for each modality, pooled Features or prepared tensors, in memory.
        sources: for each modality, where its tokens come from.
        device: where models run.
    """

    rows: Rows
    bank: Ensemble
    pooled: Mapping[str, FeatureSource | PreparedSource]
    sources: Mapping[str, Source]
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def target(self) -> Tensor:
        """The answers, as the head encodes them."""
        return self.bank.head.encode(self.rows.answers)

    @cached_property
    def answers(self) -> Array:
        """The answers in the unit of scores."""
        answers: Array = self.bank.head.truth(self.target).numpy()
        return answers

    @cached_property
    def weights(self) -> Array | None:
        """The weight of each row, where the head weighs labels; None where all count alike."""
        by_label = getattr(self.bank.head, "weights", None)
        if by_label is None or self.bank.head.task != "classification":
            return None
        weights: Array = by_label[self.target].double().numpy()
        return weights

    @cached_property
    def design(self) -> Design:
        """All rows as learners read them."""
        every = range(len(self))
        inputs: dict[str, Features | Tensors] = {name: source.batch(every) for name, source in self.pooled.items()}
        texts = {name: [self.rows.text(name, row) for row in every] for name in self.bank.words}
        with torch.inference_mode():
            return self.bank.design(inputs, self.rows.present, texts)

    @cached_property
    def tokens(self) -> dict[str, FeatureSource | PreparedSource]:
        """For each modality its Features with at most TOKENS tokens, or prepared tensors, in memory."""
        found: dict[str, FeatureSource | PreparedSource] = {}
        for name in self.pooled:
            source = self.sources[name]
            if isinstance(source, FeatureSource | PreparedSource):
                found[name] = source
            else:
                found[name] = _shortened(source, len(self))
        return found

    def batches(self, rows: Array, *, tokens: bool) -> Batches:
        """Return some rows for a fusion that reads all tokens, or only the pooled vectors."""
        sources: Mapping[str, Any] = self.tokens if tokens else self.pooled
        return Batches(sources, self.rows.present, self.target, rows)


def joined(parts: Sequence[Features], most: int = TOKENS) -> Features:
    """Return the Features of one batch after the other, each row's tokens shortened to `most`."""
    short = [shortened(part, most) for part in parts]
    longest = max(part.mask.shape[1] for part in short)
    return Features(
        torch.cat([_padded(part.tokens, longest) for part in short]),
        torch.cat([_padded(part.mask, longest) for part in short]),
        torch.cat([part.pooled for part in short]),
    )


def _shortened(source: Source, rows: int) -> FeatureSource:
    def parts() -> Iterator[Features]:
        for start in range(0, rows, _CHUNK):
            batch = source.batch(range(start, min(start + _CHUNK, rows)))
            assert isinstance(batch, Features)
            yield shortened(batch, TOKENS)

    return FeatureSource(joined(list(parts())))


def _padded(value: Tensor, length: int) -> Tensor:
    padded = value.new_zeros(value.shape[0], length, *value.shape[2:])
    padded[:, : value.shape[1]] = value
    return padded
