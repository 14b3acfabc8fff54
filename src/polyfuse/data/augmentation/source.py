"""Augmented values of a modality, ready for the model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Tensors
from polyfuse.data.augmentation.contract import Augmentation
from polyfuse.data.batches import LazySource

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows


class AugmentedSource(LazySource):
    """Changes values at random, then prepares them, in each epoch anew.

    What a row becomes follows from the seed, the epoch, the modality and the row alone: neither the order of the rows,
    nor what else is in their batch, nor the number of workers plays a part. Missing cells stay missing.

    Args:
        encoder: prepares.
        rows: whose values.
        modality: which of them.
        augmentations: for each column of the modality, in order, what happens to its cells, in order.
        seed: of the random numbers, 0 or more.
        pool: the rows of the training, whose cells a row may be given in place of its own; all when left out.
    """

    def __init__(
        self,
        encoder: Encoder,
        rows: Rows,
        modality: str,
        augmentations: Sequence[Sequence[Augmentation]],
        *,
        seed: int = 0,
        pool: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> None:
        super().__init__(encoder, rows, modality)
        self._columns = columns = rows.schema.modalities[modality]
        if len(augmentations) != len(columns):
            raise InputError(
                f"augmentations of {modality!r}: {len(augmentations)} lists given; each of its {len(columns)} columns"
                f" ({', '.join(columns)}) needs one, which may be empty"
            )
        self._augmentations = [list(some) for some in augmentations]
        self._pool = np.arange(len(rows)) if pool is None else np.asarray(pool, dtype=np.int64)
        # Of the name, and stable between runs: modalities must not be changed in step.
        self._seed = (seed, zlib.crc32(modality.encode(errors="surrogatepass")))
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, counted from 0; before its loader is made, since that copies this to its workers."""
        self._epoch = epoch

    def batch(self, rows: Sequence[int]) -> Tensors:
        """Return prepared tensors of augmented values."""
        return self._encoder.prepare([self.value(row) for row in rows])

    def value(self, row: int) -> tuple[Any, ...] | None:
        """Return the augmented value of a row in this epoch, as `Rows.value` gives it."""
        cells = self._rows.value(self._modality, row)
        if cells is None:
            return None
        random = np.random.default_rng((*self._seed, self._epoch, row))
        return tuple(None if cell is None else self._changed(i, cell, random) for i, cell in enumerate(cells))

    def _changed(self, column: int, cell: Any, random: np.random.Generator) -> Any:
        def other() -> Any:
            if len(self._pool) == 0:
                return None
            # Not by `Rows.value`: it would read the whole row for one cell, quadratic work in a wide table.
            return self._rows.cell(self._columns[column], int(self._pool[random.integers(len(self._pool))]))

        for augmentation in self._augmentations[column]:
            cell = augmentation(cell, random, other)
        return cell
