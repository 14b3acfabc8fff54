"""What is shown of one modality of a row: values that a person sees, and the weight of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.explanation.faithfulness import Faithfulness
from polyfuse.explanation.methods import Convergence, Floats

Kind: TypeAlias = Literal["image", "text", "audio", "points", "table"]
#: Cells a side that JSON has of a map.
MOST_CELLS = 64
#: Points that JSON has of a cloud.
MOST_POINTS = 2048
_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Part:
    """Why, as far as one modality is concerned. Weights are in the unit of the output, and above 0 speak for it.

    Attributes:
        method: of the attribution.
        class_specific: whether weights are of this output; where not, they only say where a model looks.
        baseline: what an attribution compares with, None where the method compares with nothing.
        convergence: of integrated gradients, None of other methods.
        faithfulness: of the weights, over each baseline.
    """

    kind: ClassVar[Kind]

    method: str
    class_specific: bool
    baseline: str | None
    convergence: Convergence | None
    faithfulness: list[Faithfulness]

    def shown(self) -> dict[str, Any]:
        """Return values and weights as JSON values, large maps made smaller."""
        raise NotImplementedError

    def ranked(self) -> list[tuple[str, float]]:
        """Name places with their weights, the largest in size first."""
        raise NotImplementedError

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "kind": self.kind,
            "method": self.method,
            "class_specific": self.class_specific,
            "baseline": self.baseline,
            "convergence": None if self.convergence is None else rounded(asdict(self.convergence)),
            "faithfulness": [rounded(asdict(one)) for one in self.faithfulness],
            **self.shown(),
        }


@dataclass(frozen=True, eq=False)
class ImagePart(Part):
    """Pixels as the encoder reads them.

    Attributes:
        image: (height, width, 3) uint8; several images of a row stand side by side.
        weights: (height, width), summed over channels.
    """

    kind: ClassVar[Kind] = "image"

    image: NDArray[np.uint8]
    weights: Floats

    def shown(self) -> dict[str, Any]:
        """Return image and weights, at most 64 cells a side: of pixels the mean, of weights the sum."""
        image = shrunk(self.image.astype(np.float64), mean=True).round().astype(int)
        return {"image": image.tolist(), "weights": rounded(shrunk(self.weights).tolist())}

    def ranked(self) -> list[tuple[str, float]]:
        """Return cells of a grid of 4 x 4."""
        cells = shrunk(self.weights, most=4)
        names = [f"row {y + 1}, column {x + 1} of 4 x 4" for y in range(cells.shape[0]) for x in range(cells.shape[1])]
        return _ranked(names, cells.ravel().tolist())


@dataclass(frozen=True, eq=False)
class TextPart(Part):
    """Words between blanks.

    Attributes:
        words: in order, of all columns.
        columns: that each word stands in.
        weights: of each word: the sum over the tokens that it is read as.
    """

    kind: ClassVar[Kind] = "text"

    words: list[str]
    columns: list[str]
    weights: list[float]

    def shown(self) -> dict[str, Any]:
        """Return words and weights."""
        return {"words": self.words, "columns": self.columns, "weights": rounded(self.weights)}

    def ranked(self) -> list[tuple[str, float]]:
        """Return words."""
        return _ranked(self.words, self.weights)


@dataclass(frozen=True, eq=False)
class AudioPart(Part):
    """A waveform as the encoder reads it, and its spectrogram.

    Attributes:
        rate: samples a second.
        seconds: length.
        wave: (bins, 2) the least and the greatest sample of each bin of time.
        mel: (mels, frames) power in dB below the loudest cell, at least -80.
        weights: (bins,) summed over the samples of a bin.
    """

    kind: ClassVar[Kind] = "audio"

    rate: int
    seconds: float
    wave: Floats
    mel: Floats
    weights: Floats

    def shown(self) -> dict[str, Any]:
        """Return envelope, spectrogram and weights."""
        mel = rounded(shrunk(self.mel, mean=True).tolist())
        about = {"rate": self.rate, "seconds": rounded(self.seconds)}
        return {**about, "wave": rounded(self.wave.tolist()), "mel": mel, "weights": rounded(self.weights.tolist())}

    def ranked(self) -> list[tuple[str, float]]:
        """Return eighths of the recording."""
        edges = np.linspace(0, len(self.weights), min(8, len(self.weights)) + 1).round().astype(int)
        sums = [float(self.weights[a:b].sum()) for a, b in itertools.pairwise(edges)]
        times = (edges / len(self.weights) * self.seconds).tolist()
        return _ranked([f"{a:.2f} to {b:.2f} s" for a, b in itertools.pairwise(times)], sums)


@dataclass(frozen=True, eq=False)
class CloudPart(Part):
    """Points as the encoder reads them.

    Attributes:
        places: (points, axes) their coordinates.
        weights: (points,).
    """

    kind: ClassVar[Kind] = "points"

    places: Floats
    weights: Floats

    def shown(self) -> dict[str, Any]:
        """Return places and weights of points, of many some of them."""
        some = np.linspace(0, len(self.places) - 1, min(MOST_POINTS, len(self.places))).astype(int)
        return {"places": rounded(self.places[some].tolist()), "weights": rounded(self.weights[some].tolist())}

    def ranked(self) -> list[tuple[str, float]]:
        """Return the octants around the middle, of two axes the quadrants."""
        upper = self.places >= (self.places.min(0) + self.places.max(0)) / 2
        found = []
        for ends in itertools.product((False, True), repeat=self.places.shape[1]):
            name = ", ".join(f"{'high' if end else 'low'} {axis}" for end, axis in zip(ends, "xyz", strict=False))
            found.append((name, float(self.weights[(upper == ends).all(1)].sum())))
        return sorted(found, key=lambda pair: -abs(pair[1]))


@dataclass(frozen=True, eq=False)
class TablePart(Part):
    """Columns.

    Attributes:
        names: of the columns.
        values: their cells as JSON values, None where one is missing.
        replaced: what the baseline has in their place; None where that is nothing.
        weights: of each column.
    """

    kind: ClassVar[Kind] = "table"

    names: list[str]
    values: list[Any]
    replaced: list[Any]
    weights: list[float]

    def shown(self) -> dict[str, Any]:
        """Return columns, values and weights."""
        cells = {"values": rounded(self.values), "replaced": rounded(self.replaced)}
        return {"names": self.names, **cells, "weights": rounded(self.weights)}

    def ranked(self) -> list[tuple[str, float]]:
        """Return columns with their values."""
        pairs = zip(self.names, self.values, strict=True)
        places = [f"{name} = {short(value)}" for name, value in pairs]
        # What is as the baseline has it has no weight by definition.
        same = [value == other for value, other in zip(self.values, self.replaced, strict=True)]
        return _ranked(
            [f"{at} (as the baseline)" if both else at for at, both in zip(places, same, strict=True)], self.weights
        )


def shrunk(cells: NDArray[Any], *, most: int = MOST_CELLS, mean: bool = False) -> Floats:
    """Return a map with at most so many cells a side: the sums, or the means, of blocks of one size.

    A cell that two blocks share counts in each by its share.

    >>> shrunk(np.ones((4, 6)), most=2).tolist()
    [[6.0, 6.0], [6.0, 6.0]]
    """
    found = np.asarray(cells, dtype=np.float64)
    for axis in (0, 1):
        size = found.shape[axis]
        if size > most:
            edges, at = np.linspace(0, size, most + 1), np.arange(size)
            shared = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
            blocks = shared.clip(min=0) * (most / size if mean else 1)
            found = np.moveaxis(np.tensordot(blocks, found, (1, axis)), 0, axis)
    return found


def resampled(weights: Floats, count: int) -> Floats:
    """Return weights of another number of cells of one size, with the same sum.

    >>> resampled(np.array([3.0, 3.0, 6.0]), 2).tolist()
    [4.5, 7.5]
    """
    total = np.concatenate([[0.0], np.cumsum(weights)])
    found: Floats = np.diff(np.interp(np.linspace(0, len(weights), count + 1), np.arange(len(weights) + 1), total))
    return found


def rounded(value: Any) -> Any:
    """Return JSON values whose numbers have at most 6 significant digits.

    >>> rounded({"a": [1 / 3, 12345678.9, 2]})
    {'a': [0.333333, 12345700.0, 2]}
    """
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def short(value: Any) -> str:
    """Return a value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def _ranked(names: Sequence[str], weights: Sequence[float]) -> list[tuple[str, float]]:
    return sorted(zip(names, map(float, weights), strict=True), key=lambda pair: -abs(pair[1]))
