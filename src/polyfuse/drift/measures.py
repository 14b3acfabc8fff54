"""What is measured of a cell, so that two tables can be compared column by column: few numbers, cheap to get."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polyfuse.core.types import Sound
from polyfuse.data.points import Cloud, coordinates
from polyfuse.data.schema import ColumnType
from polyfuse.metrics.metric import Array

#: Pixels on the longer side of an image that is measured.
_SIDE = 128
_SILENCE = 1e-5
_MOST_NUMBER = 1e300

#: Names of what is measured of a cell of each type; of a category that is its level, and of a date nothing.
MEASURES: Mapping[ColumnType, tuple[str, ...]] = {
    "number": ("values",),
    "text": ("length", "share of letters"),
    "image": ("brightness", "contrast", "detail", "size"),
    "audio": ("duration", "loudness", "crossings"),
    "points": ("points", "spread", "flatness"),
    "embedding": ("norm",),
    "category": (),
    "datetime": (),
}


def measured(type: ColumnType, cells: Sequence[Any]) -> dict[str, Array]:
    """Return each measure of some decoded cells (rows,) float64, nan where a cell is missing.

    Of a text its characters and the share of letters among them; of images mean, standard deviation and mean difference
    of neighbours of the grey values in [0, 1], and the longer side in pixels; of a recording seconds, decibels of full
    scale and changes of sign a second; of a cloud its points, the root mean square of their distances to the mean in
    their own unit, and the share of that along the axis on which it is least; of a vector its Euclidean length.
    """
    names = MEASURES[type]
    if not names:
        return {}
    measure = _OF[type]
    found = [(np.nan,) * len(names) if cell is None else measure(cell) for cell in cells]
    table = np.asarray(found, dtype=np.float64).reshape(len(cells), len(names))
    return {name: table[:, i].copy() for i, name in enumerate(names)}


def level_codes(cells: Sequence[Any]) -> Array:
    """Return a hash of each level (rows,) int64, 0 or more; -1 where it is missing."""
    return np.array([-1 if cell is None else level_code(cell) for cell in cells], dtype=np.int64)


def level_code(level: str) -> int:
    """Return the hash of a level, from 0 to 2⁶² - 1."""
    return int.from_bytes(hashlib.blake2b(level.encode(), digest_size=8).digest()) >> 2


def _number(cell: Any) -> tuple[float, ...]:
    return (min(max(float(cell), -_MOST_NUMBER), _MOST_NUMBER),)


def _text(cell: Any) -> tuple[float, ...]:
    return float(len(cell)), sum(map(str.isalpha, cell)) / max(len(cell), 1)


def _image(cell: Any) -> tuple[float, ...]:
    seen = []
    for image in cell:
        grey = image.convert("L")
        grey.thumbnail((_SIDE, _SIDE))
        pixels = np.asarray(grey, dtype=np.float64) / 255
        steps = [np.abs(np.diff(pixels, axis=axis)) for axis in (0, 1) if pixels.shape[axis] > 1]
        detail = float(np.mean([step.mean() for step in steps])) if steps else 0.0
        seen.append((float(pixels.mean()), float(pixels.std()), detail, float(max(image.size))))
    return tuple(np.mean(seen, axis=0).tolist()) if seen else (np.nan,) * 4


def _audio(cell: Sound) -> tuple[float, ...]:
    samples, seconds = cell.samples, len(cell.samples) / cell.rate
    if not len(samples):
        return 0.0, np.nan, np.nan
    loud = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), _SILENCE))
    changes = int(np.count_nonzero(np.diff(np.signbit(samples))))
    return seconds, loud, changes / seconds


def _points(cell: Cloud) -> tuple[float, ...]:
    places = cell[:, : coordinates(cell.shape[1])].astype(np.float64)
    # By its singular values: how far points lie along three axes of the cloud's own, whatever way it is turned.
    along = np.linalg.svd(places - places.mean(0), compute_uv=False) / np.sqrt(len(places))
    spread = float(np.sqrt(np.square(along).sum()))
    least = float(along[-1]) if len(places) >= places.shape[1] else 0.0
    return float(len(cell)), spread, least / spread if spread else 0.0


def _embedding(cell: Any) -> tuple[float, ...]:
    return (float(np.linalg.norm(np.asarray(cell, dtype=np.float64))),)


_OF: Mapping[ColumnType, Callable[[Any], tuple[float, ...]]] = {
    "number": _number,
    "text": _text,
    "image": _image,
    "audio": _audio,
    "points": _points,
    "embedding": _embedding,
}
