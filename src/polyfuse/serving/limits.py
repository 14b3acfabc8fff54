"""What a row may hold: checked before anything is decoded. Nothing in a row names a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyfuse.core.errors import DataError, Problem, nearest
from polyfuse.data.cells import CellError, is_missing, shown
from polyfuse.data.images import image_shapes
from polyfuse.data.media import MAX_IMAGES, MediaFolder, audio_size, load
from polyfuse.data.points import WIDEST, count_points
from polyfuse.data.schema import Column, Schema
from polyfuse.serving.settings import Settings

#: Where no file is: cells of requests hold media themselves.
NOWHERE = MediaFolder(Path("/nonexistent"))
_RGB, _SAMPLE, _POINT = 3, 4, 4 * WIDEST  # bytes of a decoded pixel, of a sample, and of a point
_CODECS = {"image": "an image", "audio": "a recording", "points": "a point cloud"}


class Limits:
    """Bounds on the cells of a request.

    Args:
        schema: of the model.
        settings: which bounds.
    """

    def __init__(self, schema: Schema, settings: Settings) -> None:
        self._settings = settings
        self._columns = {column.name: column for column in schema.columns}

    def check(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Return how many bytes media of some rows take once they are decoded.

        Raises:
            DataError: with every cell that is over a limit, is of no column of the model, or is a medium that is not
                given as bytes; or there are too many rows, or none.
        """
        if not 1 <= len(rows) <= self._settings.max_rows:
            raise DataError([Problem(f"a request has 1 to {self._settings.max_rows} rows, and this one {len(rows)}")])
        problems, size = [], 0
        for at, row in enumerate(rows):
            for name, cell in row.items():
                column = self._columns.get(name)
                if column is None:
                    problems.append(
                        Problem(f"the model has no such column; {nearest(name, self._columns)}", name, (at,))
                    )
                elif not is_missing(cell):
                    try:
                        size += self._size(column, cell)
                    except CellError as error:
                        problems.append(Problem(str(error), name, (at,)))
        if not problems and size > self._settings.memory:
            limit = f"the limit is {self._settings.memory >> 20} MiB"
            problems.append(Problem(f"images, recordings and clouds take {size >> 20} MiB decoded; {limit}"))
        if problems:
            raise DataError(problems)
        return size

    def _size(self, column: Column, cell: Any) -> int:
        if column.type == "image":
            parts = cell if isinstance(cell, list) else [cell]
            if len(parts) > MAX_IMAGES:
                raise CellError(f"a cell may hold at most {MAX_IMAGES} images", f"{len(parts)}")
            return sum(self._image(part) for part in parts)
        if column.type == "audio":
            return self._audio(cell)
        if column.type == "points":
            return self._points(cell)
        if column.type == "text" and isinstance(cell, str) and len(cell) > self._settings.max_letters:
            raise CellError(f"a text may have at most {self._settings.max_letters:,} characters", f"{len(cell):,}")
        return 0

    def _image(self, cell: Any) -> int:
        [(width, height)] = image_shapes(load(_bytes(cell, "image"), "image", NOWHERE))
        if width * height > self._settings.max_pixels:
            limit = f"an image may have at most {self._settings.max_pixels:,} pixels"
            raise CellError(limit, f"{width} by {height}")
        return _RGB * width * height

    def _audio(self, cell: Any) -> int:
        rate, seconds = audio_size(load(_bytes(cell, "audio"), "audio", NOWHERE))
        if not seconds <= self._settings.max_seconds:
            limit = f"a recording may have at most {self._settings.max_seconds:g} seconds"
            raise CellError(limit, f"{seconds:.1f}")
        return round(_SAMPLE * rate * seconds)

    def _points(self, cell: Any) -> int:
        count = len(cell) if isinstance(cell, list) else count_points([_bytes(cell, "points")])
        if count > self._settings.max_points:
            raise CellError(f"a cloud may have at most {self._settings.max_points:,} points", f"{count:,}")
        return _POINT * count


def _bytes(cell: Any, kind: str) -> bytes:
    """Return a medium; a path or an address would make the server read what its caller may not."""
    if not isinstance(cell, bytes):
        raise CellError(f"{_CODECS[kind]} is given as its bytes", shown(cell))
    return cell
