"""Rows as a table that stands alone: what files hold is inside, and a Parquet file can hold it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from polyfuse.data.images import decode_images
from polyfuse.data.media import MEDIA_TYPES, Loaded, decode_audio
from polyfuse.data.points import decode_points, to_npy
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Column, Schema

_NUMBERS = frozenset({"number", "datetime"})


def portable_row(rows: Rows, row: int) -> tuple[dict[str, Any], int]:
    """Return one row's cells and answers by column, and about how many bytes they take.

    Files go in as they are; images and recordings in memory as PNG, 8-bit RGB, and as WAV, float32 in mono; clouds as
    NPY, float32. What is read of it is what was read of the row.
    """
    cells, size = {}, 0
    for column in rows.schema.columns:
        cells[column.name], taken = _cell(rows, column, row)
        size += taken
    answer = rows.answer(row)
    several = answer if rows.schema.target.parts else (answer,)
    cells |= dict(zip(rows.schema.target.names, several, strict=True))
    return cells, size + 8 * len(several)


def portable_table(rows: Sequence[dict[str, Any]], schema: Schema) -> pd.DataFrame:
    """Return a table of rows as `portable_row` makes them."""
    kinds = {column.name: column.type for column in schema.columns}
    names = list(rows[0]) if rows else [*kinds, *schema.target.names]
    return pd.DataFrame(
        {
            name: pd.Series([row[name] for row in rows], dtype="float64" if kinds.get(name) in _NUMBERS else object)
            for name in names
        }
    )


def _cell(rows: Rows, column: Column, row: int) -> tuple[Any, int]:
    """Return a cell as Parquet has it, None where it is missing, and about how many bytes it takes."""
    if column.type == "image":
        images = [_bytes(part, column) for part in rows.loaded(column.name, row)]
        return [{"bytes": data, "path": None} for data in images] or None, sum(map(len, images))
    if column.type in MEDIA_TYPES:
        files = [_bytes(part, column) for part in rows.loaded(column.name, row)]
        return {"bytes": files[0], "path": None} if files else None, sum(map(len, files))
    value = rows.cell(column.name, row)
    if isinstance(value, np.ndarray):
        return value.astype(np.float32), 4 * value.size
    return value, len(value.encode()) if isinstance(value, str) else 8


def _bytes(part: Loaded, column: Column) -> bytes:
    if isinstance(part, bytes):
        return part
    if column.type == "points":
        return to_npy(decode_points([part], column.size))
    buffer = io.BytesIO()
    if column.type == "image":
        decode_images([part])[0].save(buffer, format="PNG")
    else:
        import soundfile

        sound = decode_audio([part])
        soundfile.write(buffer, sound.samples, sound.rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
