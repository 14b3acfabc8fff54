"""What is kept of a column of the training table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.cells import CellError, category, embedding, is_missing, moment, number, shown, text
from polyfuse.data.images import image_size
from polyfuse.data.media import MediaFolder, audio_size, load
from polyfuse.data.points import Cloud, coordinates, decode_points
from polyfuse.data.schema import Column, ColumnType

#: A category that occurs less often is treated like one that was never seen.
MIN_COUNT = 2
MAX_LEVELS = 1000
QUANTILES = 51
#: So many files are looked into for their size.
PROBES = 200

#: How a cell of one word or number is read; NaN where a string holds no number, or no date.
SCALARS: Mapping[ColumnType, Callable[[Any], Any]] = {
    "text": text,
    "category": category,
    "number": number,
    "datetime": moment,
}


def describe(name: str, type: ColumnType, cells: Sequence[Any], folder: MediaFolder) -> tuple[Column, list[str]]:
    """Return a column with its statistics, and notes on how it was read. Cells that cannot be read are passed over."""
    found = [cell for cell in cells if not is_missing(cell)]
    missing = (len(cells) - len(found)) / max(1, len(cells))
    if type == "image":
        sides = [side for cell in _some(found) for side in _try(lambda c: image_size(load(c, "image", folder)), cell)]
        return Column(name=name, type=type, missing=missing, size=round(float(np.median(sides))) if sides else None), []
    if type == "audio":
        sizes = [size for cell in _some(found) for size in _try(lambda c: [audio_size(load(c, "audio", folder))], cell)]
        if not sizes:
            return Column(name=name, type=type, missing=missing), []
        rate, duration = int(np.median([rate for rate, _ in sizes])), float(np.quantile([s for _, s in sizes], 0.95))
        return Column(name=name, type=type, missing=missing, size=rate, duration=duration), []
    if type == "points":
        clouds = [
            cloud for cell in _some(found) for cloud in _try(lambda c: [decode_points(load(c, "points", folder))], cell)
        ]
        return _points(Column(name=name, type=type, missing=missing), clouds), []
    if type == "embedding":
        lengths = Counter(len(vector) for cell in found for vector in _try(lambda c: [embedding(c)], cell))
        size = lengths.most_common(1)[0][0] if lengths else None
        return Column(name=name, type=type, missing=missing, size=size), []
    read = SCALARS[type]
    pairs = [(cell, value) for cell in found for value in _try(lambda c: [read(c)], cell)]
    values = [value for _, value in pairs]
    if type == "category":
        return Column(name=name, type=type, missing=missing, levels=_levels(values)), []
    if type == "text":
        return Column(name=name, type=type, missing=missing), []
    stragglers = [cell for cell, value in pairs if value != value]
    missing = (len(cells) - len(pairs) + len(stragglers)) / max(1, len(cells))
    notes = []
    if stragglers:
        what = "numbers" if type == "number" else "dates"
        notes.append(
            f"column {name!r}: {len(stragglers)} of {len(found)} values are no {what} and are taken as missing, "
            f"e.g. {shown(stragglers[0])}"
        )
    whole = type == "number" and all(float(value).is_integer() for value in values if math.isfinite(value))
    return Column(name=name, type=type, missing=missing, quantiles=quantiles(values), whole=whole), notes


def _points(column: Column, clouds: Sequence[Cloud]) -> Column:
    """Return a column of points with the usual numbers of each, and how large they are beside the coordinates."""
    if not clouds:
        return column
    size = Counter(cloud.shape[1] for cloud in clouds).most_common(1)[0][0]
    squares = [
        np.square(cloud[:, coordinates(size) :], dtype=np.float64).mean(0) for cloud in clouds if cloud.shape[1] == size
    ]
    return column.model_copy(update={"size": size, "scales": np.sqrt(np.mean(squares, axis=0)).tolist()})


def quantiles(values: Sequence[float]) -> list[float]:
    """Return the 0 %, 2 %, …, 100 % quantiles of the finite ones among some numbers.

    >>> quantiles([float("nan"), 0.0, 100.0])[25]
    50.0
    """
    every: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    finite = every[np.isfinite(every)]
    if len(finite) == 0:
        return []
    shares = np.linspace(0, 1, QUANTILES)
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.quantile(finite, shares)
    # Between numbers near the largest double, interpolation overflows.
    between = found if np.isfinite(found).all() else np.quantile(finite, shares, method="nearest")
    return [float(value) for value in between]


def _levels(names: Sequence[str]) -> list[str]:
    counts = Counter(names)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return [name for name in ordered if counts[name] >= MIN_COUNT][:MAX_LEVELS]


def _some(cells: Sequence[Any]) -> list[Any]:
    """Return at most PROBES cells, evenly spread."""
    return [cells[i] for i in np.linspace(0, len(cells) - 1, min(PROBES, len(cells))).astype(int)]


def _try(read: Callable[[Any], Sequence[Any]], cell: Any) -> Sequence[Any]:
    try:
        return read(cell)
    except CellError:
        return []
