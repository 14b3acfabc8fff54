"""The decoded cells of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from polyfuse.core.types import Sound
from polyfuse.data.cells import embedding, is_missing
from polyfuse.data.images import decode_images
from polyfuse.data.media import MEDIA_TYPES, Loaded, MediaFolder, content, decode_audio, load
from polyfuse.data.points import decode_points
from polyfuse.data.schema import Column, Schema
from polyfuse.data.statistics import SCALARS

#: Decoded media are kept up to this size; above, they are decoded again when they are asked for.
MEMORY = 1 << 30


class Decoded(Protocol):
    """Decoded cells, each at a place: the column's name, and the position of the row in the table."""

    def __contains__(self, place: tuple[str, int]) -> bool:
        """Tell whether a cell holds something."""

    def get(self, name: str, position: int) -> Any:
        """Return a decoded cell, None where it is missing."""

    def digest(self, name: str, position: int) -> bytes:
        """Return a hash of what a cell holds."""

    def loaded(self, name: str, position: int) -> list[Loaded]:
        """Return what a cell of media holds, not decoded; see `media.load`."""


class ReplacedCells:
    """Cells of which some are others.

    Args:
        cells: those that were read.
        others: decoded cells by place, None for one that is taken away.
    """

    def __init__(self, cells: Decoded, others: Mapping[tuple[str, int], Any]) -> None:
        self._cells, self._others = cells, dict(others)

    def __contains__(self, place: tuple[str, int]) -> bool:
        return self._others[place] is not None if place in self._others else place in self._cells

    def get(self, name: str, position: int) -> Any:
        """Return a decoded cell, None where it is missing."""
        place = (name, position)
        return self._others[place] if place in self._others else self._cells.get(name, position)

    def digest(self, name: str, position: int) -> bytes:
        """Return a hash of what a cell holds: another one than that of a file with the same content."""
        place = (name, position)
        if place not in self._others:
            return self._cells.digest(name, position)
        return _digest(self._others[place])

    def loaded(self, name: str, position: int) -> list[Loaded]:
        """Return what a cell of media holds, not decoded where it was not replaced."""
        place = (name, position)
        if place not in self._others:
            return self._cells.loaded(name, position)
        value = self._others[place]
        if isinstance(value, np.ndarray):
            return [value]
        return [(value.samples, value.rate)] if isinstance(value, Sound) else list(value or ())


class JoinedCells:
    """Cells of several tables, one below the other.

    Args:
        places: of each row, where its cells stand, and its position there.
    """

    def __init__(self, places: Sequence[tuple[Decoded, int]]) -> None:
        self._places = list(places)

    def __contains__(self, place: tuple[str, int]) -> bool:
        cells, position = self._places[place[1]]
        return (place[0], position) in cells

    def get(self, name: str, position: int) -> Any:
        """Return a decoded cell, None where it is missing."""
        cells, there = self._places[position]
        return cells.get(name, there)

    def digest(self, name: str, position: int) -> bytes:
        """Return a hash of what a cell holds."""
        cells, there = self._places[position]
        return cells.digest(name, there)

    def loaded(self, name: str, position: int) -> list[Loaded]:
        """Return what a cell of media holds, not decoded."""
        cells, there = self._places[position]
        return cells.loaded(name, there)


class Cells:
    """The decoded cells of a table's columns, media kept while there is room.

    Args:
        columns: cells by the name of their column; one that the schema knows and that is not here is missing.
        media: where the files are that cells name.
        schema: how they are read.
        memory: room for what is decoded, in bytes.
    """

    def __init__(
        self, columns: Mapping[str, Sequence[Any]], media: MediaFolder, schema: Schema, memory: int = MEMORY
    ) -> None:
        self._media = media
        self._columns = {column.name: column for column in schema.columns}
        self._cells = {
            name: [None if is_missing(cell) else cell for cell in columns[name]]
            for name in self._columns
            if name in columns
        }
        self._room = memory
        self._kept: dict[tuple[str, int], Any] = {}
        self._digests: dict[tuple[str, int], bytes] = {}
        self.blank: set[tuple[str, int]] = set()
        for column in schema.columns:
            if column.type in ("number", "datetime"):
                self._blank_stragglers(column)

    def __contains__(self, place: tuple[str, int]) -> bool:
        """Tell whether a cell (column, position) holds something."""
        name, position = place
        return name in self._cells and self._cells[name][position] is not None and place not in self.blank

    def get(self, name: str, position: int) -> Any:
        """Return a decoded cell, None where it is missing.

        Raises:
            CellError: it does not hold what its column's type says.
        """
        place = (name, position)
        if place not in self:
            return None
        if place in self._kept:
            return self._kept[place]
        column, cell = self._columns[name], self._cells[name][position]
        if column.type in SCALARS:
            return SCALARS[column.type](cell)
        if column.type == "embedding":
            return embedding(cell, column.size)
        return self._decode(column, place)

    def digest(self, name: str, position: int) -> bytes:
        """Return a hash of what a cell holds; media are not decoded for it.

        Raises:
            CellError: a file cannot be read.
        """
        place = (name, position)
        if place not in self:
            return b"missing"
        if place not in self._digests:
            if self._columns[name].type in MEDIA_TYPES:
                found = content(self.loaded(name, position))
            else:
                found = _digest(self.get(name, position))
            self._digests[place] = found
        return self._digests[place]

    def loaded(self, name: str, position: int) -> list[Loaded]:
        """Return what a cell of media holds, not decoded.

        Raises:
            CellError: a file cannot be read.
        """
        if (name, position) not in self:
            return []
        return load(self._cells[name][position], MEDIA_TYPES[self._columns[name].type], self._media)

    def _decode(self, column: Column, place: tuple[str, int]) -> Any:
        loaded = self.loaded(*place)
        value: Any
        if column.type == "image":
            value = decode_images(loaded)
            size = sum(3 * image.width * image.height for image in value)
        elif column.type == "audio":
            value = decode_audio(loaded)
            size = value.samples.nbytes
        else:
            value = decode_points(loaded, column.size)
            size = value.nbytes
        # What is kept in memory is what was hashed: a file that changes later is not mistaken for it.
        self._digests[place] = content(loaded)
        if size <= self._room:
            self._room -= size
            self._kept[place] = value
        return value

    def _blank_stragglers(self, column: Column) -> None:
        """Take strings that hold no number, or no date, for missing."""
        for position, cell in enumerate(self._cells.get(column.name, [])):
            if isinstance(cell, str) and (value := SCALARS[column.type](cell)) != value:
                self.blank.add((column.name, position))


def _digest(value: Any) -> bytes:
    """Return a hash of a decoded cell."""
    if value is None:
        return b"missing"
    whole = hashlib.blake2b(digest_size=16)
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, Image.Image):
            whole.update(repr(part.size).encode() + part.tobytes())
        elif isinstance(part, Sound):
            whole.update(repr(part.rate).encode() + part.samples.tobytes())
        else:
            shape = repr(part.shape).encode() if isinstance(part, np.ndarray) and part.ndim > 1 else b""
            whole.update(shape + part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return whole.digest()
