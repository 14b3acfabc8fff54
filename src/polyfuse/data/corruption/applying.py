"""Rows whose values are damaged."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.augmentation.contract import Other
from polyfuse.data.choosing import unread
from polyfuse.data.corruption import CORRUPTIONS
from polyfuse.data.corruption.contract import Severity

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows


def corrupted(rows: Rows, modality: str, name: str, severity: Severity, seed: int = 0) -> Rows:
    """Return the same rows with every cell changed that a corruption reads in a modality; missing cells stay missing.

    What becomes of a cell follows from the seed, the corruption, the column and the row's position in the table alone;
    with a corruption that takes cells of other rows (`babble`, `swapped_cells`) also from which rows there are. Each
    severity draws the same random numbers, so that severities are compared on the same damage, more or less of it.
    Changed images and recordings are all kept in memory.

    Args:
        rows: to be damaged; they stay as they are.
        modality: whose columns.
        name: of the corruption.
        severity: 1, barely noticeable, to 5, heavy.
        seed: of the random numbers, 0 or more.

    Raises:
        InputError: there is no such modality, corruption or severity, or the corruption reads none of the columns.
    """
    if modality not in rows.schema.modalities:
        raise InputError(f"corruptions: there is no modality {modality!r}; {nearest(modality, rows.schema.modalities)}")
    columns, reads = rows.schema.of(modality), CORRUPTIONS[name].reads
    read = [column for column in columns if column.type in reads]
    if not read:
        raise InputError(unread(CORRUPTIONS, name, reads, columns))
    changed: dict[tuple[str, int], Any] = {}
    for column in read:
        corruption = CORRUPTIONS.build(name, {"severity": severity}, column)
        key = (seed, _crc(name), _crc(column.name))
        for row, position in enumerate(rows.positions.tolist()):
            cell = rows.cell(column.name, row)
            if cell is not None:
                random = np.random.default_rng((*key, position))
                changed[column.name, row] = corruption(cell, random, _other(rows, column.name, random))
    return rows.replaced(changed)


def _other(rows: Rows, column: str, random: np.random.Generator) -> Other:
    """Return what gives a column's cell of a row drawn at random."""
    return lambda: rows.cell(column, int(random.integers(len(rows))))


def _crc(name: str) -> int:
    return zlib.crc32(name.encode(errors="surrogatepass"))
