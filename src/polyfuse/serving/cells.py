"""Cells of a request: what JSON or a form may say in each kind of column, and what it becomes."""

from __future__ import annotations

import base64
import io
import math
import re
import struct
import wave
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyfuse.data.cells import json_list, parse_moment, parse_number
from polyfuse.data.media import MAX_IMAGES
from polyfuse.data.points import FEWEST
from polyfuse.data.schema import Column, ColumnType
from polyfuse.serving.settings import Settings

_DATA_URI = re.compile(r"data:(?P<type>[a-z]+/[a-zA-Z0-9.+-]+)?(;[a-zA-Z0-9=.+-]+)*;base64,", re.ASCII)
_LARGEST = 3.4028234e38  # a float32
_MOST_LABEL = 1 << 63


@dataclass(frozen=True)
class Cell:
    """One column as a request gives it.

    Attributes:
        column: which.
        schema: JSON Schema of what may be given.
        example: something that may be given.
        limits: of the server.
    """

    column: Column
    schema: dict[str, Any]
    example: Any
    limits: Settings

    def read(self, value: Any) -> Any:
        """Return a cell as the engine takes it; None where it is missing.

        Raises:
            ValueError: it is none.
        """
        return None if value is None else _READERS[self.column.type](value, self)

    def of_form(self, values: list[str | bytes]) -> Any:
        """Return what the fields of a form say in the words of JSON; a file is bytes, an empty field is missing."""
        found = [value for value in values if value]
        if len(found) > 1 and self.column.type == "image":
            return found
        if len(found) > 1:
            raise ValueError("it is given more than once")
        if not found:
            return None
        [value] = found
        if isinstance(value, str) and self.column.type in ("number", "datetime"):
            number = parse_number(value)
            return number if number == number else value
        if isinstance(value, str) and self.column.type in ("embedding", "points"):
            return json_list(value) or value
        return value


def cell_of(column: Column, settings: Settings) -> Cell:
    """Return how a column is given; its example is of the training rows where the schema knows one."""
    kind, middle = column.type, column.quantiles[len(column.quantiles) // 2] if column.quantiles else 0.0
    about = f"A {kind}."
    schema: dict[str, Any]
    example: Any
    if kind == "text":
        schema, example = {"type": "string", "maxLength": settings.max_letters}, "a few words"
    elif kind == "category":
        schema = {"anyOf": [{"type": "string", "maxLength": settings.max_letters}, *_PLAIN]}
        example = column.levels[0] if column.levels else "a"
        about = f"A category: {', '.join(column.levels[:20])}{' …' if len(column.levels) > 20 else ''}."
    elif kind == "number":
        schema, example = {"type": "number"}, int(middle) if column.whole else float(f"{middle:.6g}")
        about = (
            f"A number, in training from {column.quantiles[0]:g} to {column.quantiles[-1]:g}."
            if column.quantiles
            else about
        )
    elif kind == "datetime":
        schema = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}, _NUMBER]}
        example, about = "2026-01-31T12:00:00Z", "A date or time (ISO 8601), or seconds since 1970."
    elif kind == "embedding":
        schema, example, about = _vector(column), [0.0] * (column.size or 1), f"{column.size} numbers."
    elif kind == "points":
        many = {"type": "array", "items": _vector(column), "minItems": 1, "maxItems": settings.max_points}
        schema = {"anyOf": [many, {"type": "string", "format": kind, "contentEncoding": "base64"}]}
        example = np.eye(4, column.size or FEWEST).tolist()
        about = f"A list of points, {column.size} numbers each; or an NPY, PLY or XYZ file as base64; never a path."
    else:
        one = {"type": "string", "format": kind, "contentEncoding": "base64"}
        schema = {"anyOf": [one, {"type": "array", "items": one, "maxItems": MAX_IMAGES}]} if kind == "image" else one
        example = _uri("image/png", tiny_png()) if kind == "image" else _uri("audio/wav", tiny_wav())
        about = f"{'An image' if kind == 'image' else 'A recording'} as base64 or as a data URI; never a path."
    return Cell(column, {**_or_null(schema), "title": column.name, "description": about}, example, settings)


def medium(value: Any, kind: str) -> bytes:
    """Return the bytes of a medium that is given as base64 or as a data URI, or that came as a file.

    Raises:
        ValueError: it is something else, such as a path or an address.
    """
    if isinstance(value, bytes):
        return value
    rule = f"{kind} is given as base64 or as a data URI (data:{_URIS[kind]};base64,…)"
    if not isinstance(value, str):
        raise ValueError(rule)
    start = _DATA_URI.match(value[:200])
    try:
        data = base64.b64decode(value[start.end() if start else 0 :], validate=True)
    except ValueError:
        raise ValueError(f"{rule}; a path or an address is never read") from None
    if not data:
        raise ValueError(f"{kind} is empty; leave it out, or give null, where there is none")
    return data


def tiny_png(side: int = 16) -> bytes:
    """Return a small grey image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    lines = zlib.compress((b"\0" + b"\x80" * side) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def tiny_wav(rate: int = 8000, samples: int = 160) -> bytes:
    """Return a short tone."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        tone = [round(8000 * math.sin(2 * math.pi * 440 * i / rate)) for i in range(samples)]
        file.writeframes(struct.pack(f"<{samples}h", *tone))
    return buffer.getvalue()


_URIS = {"an image": "image/png", "a recording": "audio/wav", "a point cloud": "application/octet-stream"}
_NUMBER = {"type": "number"}
_PLAIN = [{"type": "number"}, {"type": "boolean"}]


def _vector(column: Column) -> dict[str, Any]:
    """Return the schema of an embedding, or of one point."""
    item = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}
    size = {} if column.size is None else {"maxItems": column.size}
    return {"type": "array", "items": item, "minItems": column.size or 1, **size}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}


def _uri(type: str, data: bytes) -> str:
    return f"data:{type};base64,{base64.b64encode(data).decode()}"


def _text(value: Any, cell: Cell) -> str:
    if not isinstance(value, str):
        raise ValueError("text is expected")
    if len(value) > cell.limits.max_letters:
        raise ValueError(f"a text may have at most {cell.limits.max_letters:,} characters, and this one {len(value):,}")
    return value


def _category(value: Any, cell: Cell) -> Any:
    if isinstance(value, str):
        return _text(value, cell)
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < _MOST_LABEL):
        return value
    if isinstance(value, int | float):
        return _number(value, cell)
    raise ValueError("a word, a number or a boolean is expected")


def _number(value: Any, cell: Cell) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a finite number is expected")
    return number


def _moment(value: Any, cell: Cell) -> Any:
    if not isinstance(value, str):
        return _number(value, cell)
    found = parse_moment(value)
    if found != found:
        raise ValueError("a date or time is expected, e.g. 2026-01-31T12:00:00Z, or seconds since 1970")
    return found


def _embedding(value: Any, cell: Cell) -> list[float]:
    size = cell.column.size
    if not isinstance(value, list) or not value or (size is not None and len(value) != size):
        raise ValueError(f"a list of {size if size is not None else 'some'} numbers is expected")
    numbers = [_number(item, cell) for item in value]
    if max(map(abs, numbers)) > _LARGEST:
        raise ValueError(f"the numbers of a vector are at most {_LARGEST:g}")
    return numbers


def _image(value: Any, cell: Cell) -> Any:
    if isinstance(value, list):
        if len(value) > MAX_IMAGES:
            raise ValueError(f"a cell may hold at most {MAX_IMAGES} images")
        return [medium(part, "an image") for part in value] or None
    return medium(value, "an image")


def _audio(value: Any, cell: Cell) -> bytes:
    return medium(value, "a recording")


def _points(value: Any, cell: Cell) -> Any:
    if not isinstance(value, list):
        return medium(value, "a point cloud")
    if not 1 <= len(value) <= cell.limits.max_points:
        raise ValueError(f"a cloud has 1 to {cell.limits.max_points:,} points, and this one {len(value):,}")
    return [_embedding(point, cell) for point in value]


_READERS: Mapping[ColumnType, Callable[[Any, Cell], Any]] = {
    "text": _text,
    "category": _category,
    "number": _number,
    "datetime": _moment,
    "embedding": _embedding,
    "image": _image,
    "audio": _audio,
    "points": _points,
}
