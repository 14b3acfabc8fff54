"""Sources that read Features which were encoded before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from polyfuse.core.compute import Way
from polyfuse.core.contract import HIDDEN
from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import stepped


class CachedSource:
    """Features of a table's rows, read from shards that are mapped into memory.

    Args:
        shards: tensors of opened shards.
        places: for each row (shard, position in it); None where the modality is absent.
        dim: width.
        tokens: whether a batch carries all tokens, or only the pooled vector as its one token.
        way: how the encoder was run.
        seconds: how long it took, or would have taken, to encode these rows.
        report: what is to be said of the way, empty where it was given.
    """

    def __init__(
        self,
        shards: Sequence[Mapping[str, Tensor]],
        places: Sequence[tuple[int, int] | None],
        dim: int,
        *,
        tokens: bool,
        way: Way = "float32",
        seconds: float = 0.0,
        report: str = "",
    ) -> None:
        self.way, self.seconds, self.report = way, seconds, report
        self._shards, self._tokens = shards, tokens
        # A row without a value stands nowhere, and is of no length.
        self._shard = torch.tensor([-1 if place is None else place[0] for place in places], dtype=torch.long)
        self._start = torch.zeros(len(places), dtype=torch.long)
        self._length = torch.zeros(len(places), dtype=torch.long)
        self.pooled = torch.zeros(len(places), dim)
        position = torch.tensor([0 if place is None else place[1] for place in places], dtype=torch.long)
        for number, shard in enumerate(shards):
            rows = (self._shard == number).nonzero().squeeze(1)
            at = position[rows]
            self.pooled[rows] = shard["pooled"][at].float()
            if tokens:
                ends = torch.cat([torch.zeros(1, dtype=torch.long), shard["ends"]])
                self._start[rows] = ends[at]
                self._length[rows] = ends[at + 1] - ends[at]
        self.lengths = self._length.numpy().astype(np.int64) if tokens else None

    def batch(self, rows: Sequence[int]) -> Features:
        """Return Features; those of an absent value are zero."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        pooled = self.pooled[chosen]
        if not self._tokens:
            return Features.of_pooled(pooled)
        lengths = self._length[chosen]
        mask = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
        tokens = torch.zeros(*mask.shape, pooled.shape[1])
        spans = zip(self._shard[chosen].tolist(), self._start[chosen].tolist(), lengths.tolist(), strict=True)
        # Row by row: to gather all at once was measured to take twice as long, for it copies twice.
        for i, (shard, start, length) in enumerate(spans):
            if length:
                tokens[i, :length] = self._shards[shard]["tokens"][start : start + length]
        return Features(tokens, mask, pooled)


class HiddenSource:
    """What is kept of the lower part of encoders, as a batch holds it.

    Args:
        source: Features of that part.
    """

    def __init__(self, source: CachedSource) -> None:
        self._source, self.lengths = source, source.lengths
        # The layers above may have no more positions than that.
        self._most = max(1, int(source.lengths.max())) if source.lengths is not None else 1

    def batch(self, rows: Sequence[int]) -> Tensors:
        """Return what `Encoder.resume` takes, of one of a few lengths."""
        features = self._source.batch(rows)
        more = min(stepped(features.mask.shape[1]), self._most) - features.mask.shape[1]
        return {HIDDEN: F.pad(features.tokens, (0, 0, 0, more)), "mask": F.pad(features.mask, (0, more))}
