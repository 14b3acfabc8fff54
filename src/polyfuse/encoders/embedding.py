"""Vectors that the user has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Column

_LARGEST = 1e15  # its square, summed over a vector, is still a float32


class EmbeddingEncoder(Encoder):
    """Vectors as they are, each as its direction v / rms(v) and its length log(1 + rms(v)); nothing is learned.

    Several columns stand one after the other; a missing vector is zeros, and a last entry for each column tells so.
    `prepare` gives `vectors` (batch, sizes in all) float and `missing` (batch, columns) bool.

    Args:
        columns: embedding columns that feed it.

    Raises:
        InputError: the size of a column's vectors is not known.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"embedding"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {"vectors": (float("-inf"), float("inf"))}

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.sizes = []
        for column in columns:
            if not column.size:
                raise InputError(f"column {column.name!r}: no training row has a vector there; leave the column out")
            self.sizes.append(column.size)
        self.dim = sum(self.sizes) + 2 * len(self.sizes)

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Concatenate."""
        vectors = torch.zeros(len(values), sum(self.sizes))
        missing = torch.ones(len(values), len(self.sizes), dtype=torch.bool)
        parts = self._parts(vectors)
        for i, value in enumerate(values):
            for j, cell in enumerate(value or ()):
                if cell is not None:
                    parts[j][i] = torch.from_numpy(np.array(cell)).clamp(-_LARGEST, _LARGEST)
                    missing[i, j] = False
        return {"vectors": vectors, "missing": missing}

    def forward(self, vectors: Tensor, missing: Tensor) -> Features:
        """vectors: (batch, sizes in all), missing: (batch, columns) bool."""
        directions, lengths = [], []
        for j, part in enumerate(self._parts(vectors)):
            clean = torch.where(missing[:, j, None], 0.0, part)
            rms = (clean.square().mean(1, keepdim=True) + 1e-12).sqrt()
            directions.append(clean / rms)
            lengths.append(torch.log1p(rms))
        return Features.of_pooled(torch.cat([*directions, *lengths, missing.to(vectors.dtype)], dim=1))

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which entries are of a vector that is there."""
        sizes = torch.tensor(self.sizes, device=tensors["missing"].device)
        return ~tensors["missing"].repeat_interleave(sizes, dim=1)

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return the vectors."""
        parts = [part.detach().cpu().numpy() for part in self._parts(tensors["vectors"])]
        return [
            None
            if value is None
            else tuple(None if cell is None else part[row].copy() for cell, part in zip(value, parts, strict=True))
            for row, value in enumerate(values)
        ]

    def preparation(self) -> dict[str, Any]:
        """Return the sizes."""
        return {"sizes": self.sizes}

    def _parts(self, vectors: Tensor) -> list[Tensor]:
        ends = np.cumsum(self.sizes).tolist()
        return [vectors[:, end - size : end] for end, size in zip(ends, self.sizes, strict=True)]
