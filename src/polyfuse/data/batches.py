"""Batches: rows in, prepared tensors or Features out, ready for the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polyfuse.core.contract import Encoder
from polyfuse.core.progress import Progress, Silent
from polyfuse.core.types import Batch, Features, Tensors

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows

#: Prepared tensors of one modality are kept in memory up to this size; above, they are prepared again in each epoch.
MEMORY = 1 << 30
CHUNK = 256
# Each new shape that is trained on leaves a compiled kernel in memory.
_STEP = 16


class Source(Protocol):
    """Gives the inputs of one modality for any rows of a table.

    Attributes:
        lengths: number of tokens of each row (rows,), where they differ and are known.
    """

    lengths: NDArray[np.int64] | None

    def batch(self, rows: Sequence[int]) -> Features | Tensors:
        """Return Features, or prepared tensors, batch first."""


class LazySource:
    """Prepares values when they are asked for."""

    lengths: NDArray[np.int64] | None = None

    def __init__(self, encoder: Encoder, rows: Rows, modality: str) -> None:
        self._encoder, self._rows, self._modality = encoder, rows, modality

    def batch(self, rows: Sequence[int]) -> Tensors:
        """Return prepared tensors."""
        return self._encoder.prepare([self._rows.value(self._modality, row) for row in rows])


class PreparedSource:
    """Prepared tensors of all rows, in memory."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self.lengths = tensors["mask"].flatten(1).sum(1).numpy() if "mask" in tensors else None

    def batch(self, rows: Sequence[int]) -> Tensors:
        """Return prepared tensors, of one of a few lengths."""
        return trim({key: value[torch.as_tensor(rows)] for key, value in self._tensors.items()}, _STEP)


class Batches(Dataset[Batch]):
    """Rows of a table as batches of any of them.

    Args:
        sources: for each modality of the model, in order, where its inputs come from.
        present: (table's rows, modalities) bool.
        target: (table's rows, …), as the head's `encode` gives it.
        rows: those of the table's rows that are meant.
        group: (table's rows,) int64, where groups are asked for.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        present: Tensor,
        target: Tensor,
        rows: NDArray[np.integer[Any]],
        group: Tensor | None = None,
    ) -> None:
        self.sources, self._present, self._target, self._rows = dict(sources), present, target, rows
        self._group = group

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, positions: Sequence[int]) -> Batch:
        rows = self._rows[np.asarray(positions)].tolist()
        inputs = {name: source.batch(rows) for name, source in self.sources.items()}
        group = self._group[rows] if self._group is not None else None
        return Batch(inputs, self._present[rows], self._target[rows], group)

    @property
    def group(self) -> NDArray[np.int64] | None:
        """The group of each row (rows,), where groups are asked for."""
        return self._group[self._rows].numpy() if self._group is not None else None

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, from 0, to sources that change with it; before its loader is made."""
        for source in self.sources.values():
            begin = getattr(source, "set_epoch", None)
            if begin is not None:
                begin(epoch)

    def lengths(self) -> NDArray[np.int64]:
        """Return how many tokens each row has in all modalities together, as far as that is known: (rows,)."""
        known = [source.lengths[self._rows] for source in self.sources.values() if source.lengths is not None]
        return np.sum(known, axis=0, dtype=np.int64) if known else np.zeros(len(self), dtype=np.int64)

    def loader(self, order: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Yield a batch for each group of rows; workers prepare them where preparing takes place in each epoch."""
        lazy = any(isinstance(source, LazySource) for source in self.sources.values())
        # Only a forked worker shares the table; elsewhere each would get a copy, and scripts would need a main guard.
        workers = min(2, len(order)) if lazy and len(order) > 8 and sys.platform == "linux" else 0
        # The generator keeps the loader from drawing a seed out of the global one: the same run draws the same numbers.
        yield from DataLoader(
            self,
            batch_size=None,
            sampler=order,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            generator=torch.Generator().manual_seed(0),
            collate_fn=None,
        )


def in_memory(
    encoder: Encoder, rows: Rows, modality: str, *, memory: int = MEMORY, progress: Progress | None = None
) -> Source:
    """Prepare all values of a modality once where they fit in memory, else return a source that prepares each time.

    Args:
        encoder: prepares.
        rows: whose values.
        modality: which of them.
        memory: limit in bytes.
        progress: shows how far it is.
    """
    lazy = LazySource(encoder, rows, modality)
    some = min(16, len(rows))
    if _bytes(lazy.batch(range(some))) / some * len(rows) > memory:
        return lazy
    parts: list[Tensors] = []
    with (progress or Silent()).bar(f"Preparing {modality}", len(rows)) as bar:
        for start in range(0, len(rows), CHUNK):
            chunk = range(start, min(start + CHUNK, len(rows)))
            parts.append(lazy.batch(chunk))
            # Joined, every row is as long as the longest: one with many images may make all too large.
            if max(_bytes(part) / len(part["mask"]) if "mask" in part else 0 for part in parts) * len(rows) > memory:
                return lazy
            bar.advance(len(chunk))
    return PreparedSource(join(parts))


def by_length(inputs: Mapping[str, Tensors], rows: int, size: int) -> list[Tensor]:
    """Return the positions of some rows in groups of rows of like length, so that little is padded.

    Args:
        inputs: prepared tensors of each modality.
        rows: how many rows they have.
        size: of a group.
    """
    lengths = torch.zeros(rows, dtype=torch.long)
    for tensors in inputs.values():
        if "mask" in tensors:
            lengths += tensors["mask"].flatten(1).sum(1)
    return list(torch.split(lengths.argsort(stable=True), size))


def pick(tensors: Tensors, rows: Tensor) -> Tensors:
    """Return some rows of prepared tensors, trimmed."""
    return trim({key: value[rows] for key, value in tensors.items()})


def trim(tensors: Tensors, step: int = 1) -> Tensors:
    """Cut the padding that every row of a batch has in common, to a multiple of some length."""
    mask = tensors.get("mask")
    if mask is None or mask.ndim != 2 or mask.shape[0] == 0:
        return tensors
    longest = max(1, int(mask.any(0).nonzero().max()) + 1) if bool(mask.any()) else 1
    longest = stepped(longest, step)
    if longest >= mask.shape[1]:
        return tensors
    return {key: value[:, :longest] if _ragged(value, mask) else value for key, value in tensors.items()}


def stepped(length: int, step: int = _STEP) -> int:
    """Return the next multiple of a step, so that few lengths occur."""
    return -(-length // step) * step


def join(parts: Sequence[Tensors]) -> Tensors:
    """Concatenate prepared batches, padded on the right to the longest."""
    if len(parts) == 1:
        return parts[0]
    if "mask" not in parts[0]:
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    longest = max(part["mask"].shape[1] for part in parts)
    joined = {}
    for key in parts[0]:
        ragged = all(_ragged(part[key], part["mask"]) for part in parts)
        joined[key] = torch.cat([_pad(part[key], longest) if ragged else part[key] for part in parts])
    return joined


def _bytes(tensors: Tensors) -> int:
    return sum(value.element_size() * value.numel() for value in tensors.values())


def _ragged(value: Tensor, mask: Tensor) -> bool:
    return value.ndim >= 2 and value.shape[1] == mask.shape[1]


def _pad(value: Tensor, length: int) -> Tensor:
    padded = value.new_zeros(value.shape[0], length, *value.shape[2:])
    padded[:, : value.shape[1]] = value
    return padded
