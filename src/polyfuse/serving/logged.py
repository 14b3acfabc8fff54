"""What stands in the request log: cells as JSON, media by their hash; and the way back into the cells of a table."""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from polyfuse.core.errors import InputError
from polyfuse.data.cells import CellError, category, clean, embedding, is_missing, moment, number, shown
from polyfuse.data.media import MEDIA_TYPES, load
from polyfuse.data.points import decode_points, to_npy
from polyfuse.data.schema import Column, Target
from polyfuse.inference import Answers
from polyfuse.serving.limits import NOWHERE

_HASH = "sha256"
_WHOLE = 1 << 63  # beyond, a whole number is kept as a float


def packed(cell: Any, media: dict[str, bytes]) -> Any:
    """Return a cell as JSON values; bytes are put into `media` under their hash, which stands in their place.

    >>> packed(b"", {})
    {'sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'}
    >>> packed([1.5, float("nan")], {})
    [1.5, None]

    Raises:
        CellError: nothing of the kind is ever asked.
    """
    if isinstance(cell, str):
        return clean(cell)
    if isinstance(cell, bytes | bytearray | memoryview):
        data = bytes(cell)
        name = hashlib.sha256(data).hexdigest()
        media[name] = data
        return {_HASH: name}
    if isinstance(cell, Mapping) and "bytes" in cell:
        return packed(cell["bytes"], media)
    if isinstance(cell, list | tuple | np.ndarray):
        return [packed(part, media) for part in cell]
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    if is_missing(cell):
        return None
    if isinstance(cell, bool | np.bool_):
        return bool(cell)
    if isinstance(cell, int | np.integer) and abs(int(cell)) < _WHOLE:
        return int(cell)
    value = number(cell)
    return value if math.isfinite(value) else None


def unpacked(cell: Any, media: Callable[[str], bytes | None]) -> Any:
    """Return a cell as it was asked, its bytes fetched by their hash; None in place of those that are gone."""
    if isinstance(cell, dict):
        return media(cell[_HASH])
    return [unpacked(part, media) for part in cell] if isinstance(cell, list) else cell


def told(answers: Answers) -> Iterator[dict[str, Any]]:
    """Yield what was answered to each row, as JSON values: the label of each target, and the suspicion of a screen."""
    labels = answers.labels.to_frame() if isinstance(answers.labels, pd.Series) else answers.labels
    suspicion = None if answers.screened is None else answers.screened["suspicion"].tolist()
    for place, row in enumerate(labels.itertuples(index=False, name=None)):
        said = {str(name): packed(label, {}) for name, label in zip(labels.columns, row, strict=True)}
        yield {"labels": said, **({} if suspicion is None else {"suspicion": suspicion[place]})}


def column_of(column: Column, cells: Sequence[Any]) -> pd.Series:
    """Return cells of one column in one kind, as Parquet wants them; what is not of its type is missing."""
    values = [None if is_missing(cell) else _typed(column, cell) for cell in cells]
    if column.type == "number":
        return pd.Series([math.nan if value is None else value for value in values], dtype="float64")
    if column.type in MEDIA_TYPES and any(isinstance(value, list) for value in values):
        values = [[value] if isinstance(value, bytes) else value for value in values]
    return _objects(values)


def truth_of(target: Target, cells: Sequence[Any]) -> pd.Series:
    """Return what was true of each row; whole numbers and booleans stay what they are beside missing ones."""
    kinds = {type(level) for level in target.levels}
    if target.task == "regression":
        return pd.Series([math.nan if cell is None else cell for cell in cells], dtype="float64")
    if target.task == "multilabel" or kinds not in ({bool}, {int}):
        return _objects(cells)
    return pd.Series(cells, dtype="boolean" if kinds == {bool} else "Int64")


def _typed(column: Column, cell: Any) -> Any:
    try:
        if column.type == "number":
            return number(cell)
        if column.type == "datetime":
            return cell if isinstance(cell, str) else _date(moment(cell))
        if column.type == "embedding":
            return embedding(cell, column.size).tolist()
        if column.type == "points" and isinstance(cell, list):
            return to_npy(decode_points(load(cell, "points", NOWHERE), column.size))
        if column.type in MEDIA_TYPES:
            return _media(cell)
        return category(cell)
    except InputError:
        return None


def _date(seconds: float) -> str | None:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def _media(cell: Any) -> bytes | list[bytes]:
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, list):
        return [part for part in cell if isinstance(part, bytes)]
    raise CellError("bytes are expected", shown(cell))


def _objects(cells: Sequence[Any]) -> pd.Series:
    values = np.empty(len(cells), dtype=object)
    for place, cell in enumerate(cells):
        values[place] = cell
    return pd.Series(values, dtype=object)
