"""Columns and decoded cells of all kinds, for contracts to be held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from polyfuse.core.types import Sound
from polyfuse.data.schema import Column


def image(wide: int, high: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8))


def sound(samples: int, rate: int, level: float, seed: int) -> Sound:
    noise = level * np.random.default_rng(seed).standard_normal(samples)
    return Sound(noise.clip(-1, 1).astype(np.float32), rate)


def cloud(points: int, size: int, wide: float, far: float, seed: int) -> NDArray[np.float32]:
    places = far + wide * np.random.default_rng(seed).uniform(-1, 1, (points, size))
    return places.clip(-3.4e38, 3.4e38).astype(np.float32)


finite = st.floats(allow_nan=False, allow_infinity=False)
sides = st.integers(1, 40)
images = st.lists(st.builds(image, sides, sides, st.integers(0, 9)), max_size=3)
rates = st.sampled_from([1, 100, 8000, 11_025, 44_100])
sounds = st.builds(
    sound, st.integers(0, 3000), rates, st.sampled_from([0.0, 1e-30, 1e-3, 0.3, 50.0]), st.integers(0, 9)
)
WORDS = [
    "",
    " ",
    "\n\t ",
    "word",
    "I",
    "👩‍👩‍👧 🇪🇺 👍🏽",
    "naïve cafe\u0301 \u0301",
    "\ud800 \x00",
    "字字字 字",
    "a" * 500,
    " b  c\n\nd ",
]
clouds = st.builds(
    cloud,
    st.integers(1, 40),
    st.integers(2, 6),
    st.sampled_from([0.0, 1e-30, 1.0, 1e4, 1e38]),
    st.sampled_from([0.0, 1.0, 1e6, 3e38]),
    st.integers(0, 9),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=60))
levels = st.lists(st.text(max_size=3), unique=True, max_size=3)
quantiles: st.SearchStrategy[list[float]] = st.one_of(
    st.just([]),
    finite.map(lambda value: [value] * 51),
    finite.map(lambda value: [value]),
    st.lists(finite, min_size=2, max_size=51).map(sorted),
)


@st.composite
def cases(draw: st.DrawFn, type: Any) -> tuple[Column, list[Any]]:
    """Draw a column of a type and some of its cells."""

    def some(cells: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(cells, min_size=1, max_size=4))

    if type == "category":
        known = draw(levels)
        return Column(name="c", type=type, levels=known), some(st.sampled_from([*known, "never seen"]))
    if type in ("number", "datetime"):
        return Column(name="c", type=type, quantiles=draw(quantiles)), some(finite)
    cells: dict[str, st.SearchStrategy[Any]] = {"image": images, "audio": sounds, "points": clouds, "text": texts}
    return Column(name="c", type=type), some(cells[type])


def content(cell: Any) -> Any:
    """Return something to compare cells by."""
    if isinstance(cell, list):
        return [(part.size, part.mode, part.tobytes()) for part in cell]
    if isinstance(cell, Sound):
        return cell.rate, cell.samples.dtype, cell.samples.tobytes()
    if isinstance(cell, np.ndarray):
        return cell.shape, cell.dtype, cell.tobytes()
    return cell
