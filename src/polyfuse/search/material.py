"""What candidates learn from: the rows, once encoded, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.core.contract import Head
from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import Batches, PreparedSource, Source
from polyfuse.data.rows import Rows
from polyfuse.ensemble import Ensemble
from polyfuse.heads.several import SeveralHead
from polyfuse.layers.tokens import shortened
from polyfuse.learners.learner import Array, Design
from polyfuse.training.shards import beyond_half

_CHUNK = 64  # rows of like length whose tokens stay in the processor's cache
Reads: TypeAlias = Literal["pooled", "short", "all"]
#: Tokens of a modality that candidates read at most; where there are more, neighbours are averaged.
TOKENS = 8


class FeatureSource:
    """Features of all rows, in memory; tokens may be kept in half precision."""

    lengths: NDArray[np.int64] | None = None

    def __init__(self, features: Features) -> None:
        self.features = features

    def batch(self, rows: Sequence[int]) -> Features:
        """Return Features."""
        found = self.features.rows(torch.as_tensor(rows))
        return Features(found.tokens.float(), found.mask, found.pooled)


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
        """The weight of each row, where the head weighs labels; None where all count alike.

        (rows,), of several targets (rows, targets).
        """
        return _row_weights(self.bank.head, self.target)

    @cached_property
    def design(self) -> Design:
        """All rows as learners read them."""
        every = range(len(self))
        inputs: dict[str, Features | Tensors] = {name: source.batch(every) for name, source in self.pooled.items()}
        texts = {name: [self.rows.text(name, row) for row in every] for name in self.bank.words}
        with torch.inference_mode():
            return self.bank.design(inputs, self.rows.present, texts)

    @cached_property
    def short(self) -> dict[str, FeatureSource | PreparedSource]:
        """For each modality its Features with at most TOKENS tokens, or prepared tensors, in memory."""
        return {
            name: known if isinstance(known, PreparedSource) else _shortened(self.sources[name], known.features.pooled)
            for name, known in self.pooled.items()
        }

    def batches(self, rows: Array, tokens: Reads, modalities: Sequence[str]) -> Batches:
        """Return some rows for a fusion.

        Args:
            rows: positions of those that are meant.
            tokens: whether it reads the pooled vectors, at most TOKENS tokens, or all of them.
            modalities: that it reads, in the bank's order.
        """
        sources: Mapping[str, Any] = self.pooled
        if tokens != "pooled":
            sources = self.short if tokens == "short" else self.sources
        some = {name: sources[name] for name in modalities}
        return Batches(some, self.bank.present_of(modalities, self.rows.present), self.target, rows)


def _row_weights(head: Head, target: Tensor) -> Array | None:
    if isinstance(head, SeveralHead):
        each = [(known, _row_weights(own, some)) for own, known, some in head.split(target)]
        if all(weights is None for _, weights in each):
            return None
        joint = np.ones((len(target), len(each)))
        for i, (known, weights) in enumerate(each):
            if weights is not None:
                joint[known.numpy(), i] = weights
        return joint
    by_label = getattr(head, "weights", None)
    if by_label is None or head.task != "classification":
        return None
    found: Array = by_label[target].double().cpu().numpy()
    return found


def joined(parts: Sequence[Features]) -> Features:
    """Return the Features of one batch after the other."""
    longest = max(part.mask.shape[1] for part in parts)
    return Features(
        torch.cat([_padded(part.tokens, longest) for part in parts]),
        torch.cat([_padded(part.mask, longest) for part in parts]),
        torch.cat([part.pooled for part in parts]),
    )


def _shortened(source: Source, pooled: Tensor) -> FeatureSource:
    """Return the Features of all rows, at most TOKENS tokens each, written where they stay: to join would be twice.

    Tokens are kept as in the cache: in half precision, as long as they lie in its range.

    Args:
        source: of more tokens.
        pooled: (rows, dim), which it shares.
    """
    rows, dim = pooled.shape
    tokens, mask = torch.zeros(rows, TOKENS, dim, dtype=torch.half), torch.zeros(rows, TOKENS, dtype=torch.bool)
    order = np.arange(rows) if source.lengths is None else source.lengths.argsort(kind="stable")
    for start in range(0, rows, _CHUNK):
        here = order[start : start + _CHUNK]
        batch = source.batch(here.tolist())
        assert isinstance(batch, Features)
        some = shortened(batch, TOKENS)
        if tokens.dtype is torch.half and beyond_half(some.tokens):
            tokens = tokens.float()
        length = some.mask.shape[1]
        tokens[here, :length], mask[here, :length] = some.tokens.to(tokens.dtype), some.mask
    longest = max(1, int(mask.any(0).sum()))
    return FeatureSource(Features(tokens[:, :longest], mask[:, :longest], pooled))


def _padded(value: Tensor, length: int) -> Tensor:
    padded = value.new_zeros(value.shape[0], length, *value.shape[2:])
    padded[:, : value.shape[1]] = value
    return padded
