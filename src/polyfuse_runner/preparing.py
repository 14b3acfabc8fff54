"""From values to the tensors of a graph: what each encoder's `prepare` does, in numpy, by its kind.

A value holds one decoded cell for each column of the modality, None where it is missing; an absent value is None. What
is said of the preparation stands in `preparation.json`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse_runner.clouds import drawn
from polyfuse_runner.media import Wave, resample

Array: TypeAlias = NDArray[Any]
Value: TypeAlias = "tuple[Any, ...] | None"

_MISSING, _UNKNOWN = 0, 1  # codes of a category
_LIMIT = 3.0  # of scaled numbers
_PERIODS = (365.2425 * 86_400.0, 7 * 86_400.0, 86_400.0)  # year, week, day, in seconds
_LARGEST = 1e15  # entry of a vector, or of a point


class Preparation(ABC):
    """Makes the tensors of one modality."""

    @abstractmethod
    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Return tensors, batch first. An absent value gets a placeholder."""

    def length(self, value: Value) -> int:
        """Return by what rows may be sorted, so that little is padded."""
        return 0


class Tokens(Preparation):
    """Token ids of texts: `ids` (batch, n) int64, `mask` (batch, n) bool."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        from tokenizers import Tokenizer

        self.pad = int(about["pad"])
        self.tokenizer = Tokenizer.from_file(str(folder / about["file"]))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(int(about["most"]), direction=about["cut"])

    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Tokenize; columns are joined by a newline."""
        texts = ["\n".join(cell for cell in value or () if cell is not None) for value in values]
        rows = [found.ids or [self.pad] for found in self.tokenizer.encode_batch(texts)]
        ids = np.full((len(rows), max(map(len, rows))), self.pad, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return {"ids": ids, "mask": np.arange(ids.shape[1]) < np.array([len(row) for row in rows])[:, None]}

    def length(self, value: Value) -> int:
        """Return the number of characters."""
        return sum(len(cell) for cell in value or () if cell is not None)


class Images(Preparation):
    """Pixels: `pixels` (batch, images, channels, height, width) float32 in [0, 1], `mask` (batch, images) bool."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        self.sides, self.resampling = tuple(about["sides"]), int(about["resample"])
        self.bleed, self.grey = about["bleed"], bool(about["grey"])

    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Resize, where there is a bleed after a crop to the same aspect ratio without that share of a border."""
        rows = [[image for cell in value or () for image in cell or ()] for value in values]
        height, width = self.sides
        shape = (len(rows), max([1, *map(len, rows)]))
        pixels = np.zeros((*shape, height, width, 1 if self.grey else 3), dtype=np.uint8)
        mask = np.zeros(shape, dtype=bool)
        mask[:, 0] = True
        for i, row in enumerate(rows):
            for j, image in enumerate(row):
                pixels[i, j], mask[i, j] = self._fitted(image, (width, height)), True
        return {"pixels": (pixels.transpose(0, 1, 4, 2, 3) / np.float32(255)).astype(np.float32), "mask": mask}

    def _fitted(self, image: Any, size: tuple[int, int]) -> Array:
        from PIL import Image, ImageOps

        method = Image.Resampling(self.resampling)
        if self.bleed is None:
            fitted = image.resize(size, method)
        else:
            fitted = ImageOps.fit(image, size, method, bleed=self.bleed)
        return np.asarray(fitted.convert("L"))[..., None] if self.grey else np.asarray(fitted)


class Waves(Preparation):
    """Samples at the encoder's rate: `waves` (batch, samples) float32, and where lengths differ `mask` beside it."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        self.rate, self.least, self.most = (int(about[name]) for name in ("rate", "least", "most"))
        self.fixed, self.even = self.least == self.most, bool(about["even"])

    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Cut, and pad with silence."""
        rows = [self._wave(value) for value in values]
        waves = np.zeros((len(rows), max(len(row) for row in rows)), dtype=np.float32)
        for i, row in enumerate(rows):
            waves[i, : len(row)] = row
        if self.fixed:
            return {"waves": waves}
        return {"waves": waves, "mask": np.arange(waves.shape[1]) < np.array([len(row) for row in rows])[:, None]}

    def length(self, value: Value) -> int:
        """Return the number of samples."""
        if self.fixed:
            return 0
        recordings = [cell for cell in value or () if cell is not None]
        samples: int = sum(-(-len(wave) * self.rate // rate) for wave, rate in recordings)
        return max(self.least, min(self.most, samples))

    def _wave(self, value: Value) -> Wave:
        recordings = [cell for cell in value or () if cell is not None]
        parts = [resample(wave, rate, self.rate) for wave, rate in recordings]
        wave: Wave = np.concatenate(parts)[: self.most].clip(-1, 1) if parts else np.zeros(0, dtype=np.float32)
        return np.pad(wave, (0, max(0, self.least - len(wave))))


class Table(Preparation):
    """Columns of a table: `numbers` (batch, n) float32, `missing` (batch, n) bool, `codes` (batch, m) int64."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        self.columns = about["columns"]
        self.codes = [{name: code for code, name in enumerate(c.get("levels", []), _UNKNOWN + 1)} for c in self.columns]
        self.levels = [
            len(codes) + _UNKNOWN + 1 for codes, c in zip(self.codes, self.columns, strict=True) if _coded(c)
        ]

    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Scale numbers, code categories; of a datetime its place in the year, the week and the day too."""
        rows = [value if value is not None else (None,) * len(self.columns) for value in values]
        numbers: list[Array] = []
        codes: list[list[int]] = []
        for i, (column, known) in enumerate(zip(self.columns, self.codes, strict=True)):
            cells = [row[i] for row in rows]
            if _coded(column):
                codes.append([_MISSING if cell is None else known.get(cell, _UNKNOWN) for cell in cells])
                continue
            given = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
            numbers.append(squash(given, column["center"], column["width"]))
            if column["type"] == "datetime":
                for period in _PERIODS:
                    angle = 2 * np.pi * np.mod(given, period) / period
                    numbers += [np.sin(angle), np.cos(angle)]
        table = np.stack(numbers, axis=1) if numbers else np.zeros((len(rows), 0))
        missing = np.isnan(table)
        coded = np.array(codes, dtype=np.int64).reshape(len(codes), len(rows)).T
        return {
            "numbers": np.where(missing, 0.0, table).astype(np.float32),
            "missing": missing,
            "codes": np.ascontiguousarray(coded),
        }


class Vectors(Preparation):
    """Vectors side by side: `vectors` (batch, sizes in all) float32, `missing` (batch, columns) bool."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        self.sizes = about["sizes"]

    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Concatenate."""
        vectors = np.zeros((len(values), sum(self.sizes)), dtype=np.float32)
        missing = np.ones((len(values), len(self.sizes)), dtype=bool)
        ends = np.cumsum(self.sizes)
        for i, value in enumerate(values):
            for j, cell in enumerate(value or ()):
                if cell is not None:
                    vectors[i, ends[j] - self.sizes[j] : ends[j]] = cell.clip(-_LARGEST, _LARGEST)
                    missing[i, j] = False
        return {"vectors": vectors, "missing": missing}


class Clouds(Preparation):
    """Points that are read: `points` (batch, points, numbers) float32, `mask` (batch, points) bool."""

    def __init__(self, about: Mapping[str, Any], folder: Path) -> None:
        self.most, self.size = int(about["points"]), int(about["size"])

    def prepare(self, values: Sequence[Value]) -> dict[str, Array]:
        """Draw, and pad; an absent value is one point at the origin."""
        origin = np.zeros((1, self.size), dtype=np.float32)
        clouds = [origin if value is None else drawn(value[0], self.most) for value in values]
        points = np.zeros((len(clouds), max(map(len, clouds)), self.size), dtype=np.float32)
        for i, cloud in enumerate(clouds):
            points[i, : len(cloud)] = cloud.clip(-_LARGEST, _LARGEST)
        return {"points": points, "mask": np.arange(points.shape[1]) < np.array([[len(cloud)] for cloud in clouds])}

    def length(self, value: Value) -> int:
        """Return the number of points."""
        return sum(min(self.most, len(cell)) for cell in value or () if cell is not None)


KINDS: dict[str, Any] = {
    "tokens": Tokens,
    "images": Images,
    "waves": Waves,
    "table": Table,
    "vectors": Vectors,
    "clouds": Clouds,
}


def squash(x: Array, center: float, width: float) -> Array:
    """Return z / sqrt(1 + (z / 3)²) with z = (x - center) / width, 0 for a width of 0 (Holzmüller et al. 2024)."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        z = np.clip((x - center) / width, -1e9, 1e9) if width else np.where(np.isnan(x), x, 0.0)
        squashed: Array = np.copysign(1 / np.sqrt(np.square(1 / z) + 1 / _LIMIT**2), z)
    return squashed


def _coded(column: Mapping[str, Any]) -> bool:
    return bool(column["type"] == "category")
