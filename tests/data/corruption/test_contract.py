"""The contract, over every corruption that is registered, on wild cells; and that damage grows with severity."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyfuse.core.errors import InputError
from polyfuse.core.types import Sound
from polyfuse.data.corruption import CORRUPTIONS, corruptions_for
from polyfuse.data.corruption.contract import Corruption
from polyfuse.data.schema import Column
from wild import cases, cloud, content, image, sound

SEVERITIES = (1, 2, 3, 4, 5)


def assert_well_formed(column: Column, before: Any, after: Any) -> None:
    assert type(after) is type(before)
    if column.type == "image":
        assert [(part.size, part.mode) for part in after] == [(part.size, "RGB") for part in before]
    elif column.type == "audio":
        assert (after.rate, after.samples.shape, after.samples.dtype) == (before.rate, before.samples.shape, np.float32)
        assert np.isfinite(after.samples).all()
        assert (np.abs(after.samples) <= 1).all()
    elif column.type == "points":
        assert (after.shape[1], after.dtype) == (before.shape[1], np.float32)
        assert len(after) >= 1
        assert np.isfinite(after).all()
    elif column.type == "text":
        assert bool(after.strip()) == bool(before.strip())
    elif column.type == "category":
        assert after == before or after in column.levels
    else:
        assert math.isfinite(after)


@pytest.mark.parametrize("name", CORRUPTIONS)
@given(data=st.data(), severity=st.sampled_from(SEVERITIES), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_contract(name: str, data: st.DataObject, severity: int, seed: int) -> None:
    column, cells = data.draw(cases(data.draw(st.sampled_from(sorted(CORRUPTIONS[name].reads)))))
    others = [*cells, None]
    corruption = CORRUPTIONS.build(name, {"severity": severity}, column)

    def changed(cell: Any) -> Any:
        random = np.random.default_rng(seed)
        return corruption(cell, random, lambda: others[random.integers(len(others))])

    for cell in cells:
        before = content(cell)
        first, second = changed(cell), changed(cell)
        assert content(cell) == before, "the cell that was given was written to"
        assert content(first) == content(second), "the same generator gives the same"
        if first is None:
            assert name == "missing_cells"
        else:
            assert_well_formed(column, cell, first)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if "image" in CORRUPTIONS[name].reads])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (28, 28), (300, 7)])
def test_images_of_all_proportions(name: str, size: tuple[int, int]) -> None:
    column, cell = Column(name="c", type="image"), [image(*size)]
    for severity in SEVERITIES:
        corruption = CORRUPTIONS.build(name, {"severity": severity}, column)
        assert_well_formed(column, cell, corruption(cell, np.random.default_rng(0), lambda: None))


@pytest.mark.parametrize("name", corruptions_for([Column(name="c", type="audio")]))
def test_recordings_that_cannot_be_written_to_are_read(name: str) -> None:
    frozen = sound(500, 8000, 0.3, 0)
    frozen.samples.flags.writeable = False
    CORRUPTIONS.build(name, {}, Column(name="c", type="audio"))(frozen, np.random.default_rng(0), lambda: frozen)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_is_the_only_option_and_each_has_its_setting(name: str) -> None:
    assert list(CORRUPTIONS.options(name)) == ["severity"]
    column = Column(name="c", type=sorted(CORRUPTIONS[name].reads)[0])  # type: ignore[arg-type]
    found = [CORRUPTIONS.build(name, {"severity": severity}, column).setting for severity in SEVERITIES]
    assert len(set(found)) == 5
    assert tuple(found) == CORRUPTIONS[name].settings
    # From mild to heavy, one way in each part of a setting.
    steps = np.diff(np.array(found, dtype=float).reshape(5, -1), axis=0)
    assert ((steps > 0).all(0) | (steps < 0).all(0)).all()
    assert CORRUPTIONS.build(name, {}, column).setting == found[2]


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, "3", None, float("nan")])
def test_there_are_five_severities(severity: Any) -> None:
    told = f"corruptions: FogCorruption.severity: {severity!r} given: a severity is a whole number from 1, .* to 5"
    with pytest.raises(InputError, match=told):
        CORRUPTIONS.build("fog", {"severity": severity}, Column(name="c", type="image"))


def photo(side: int = 64, seed: int = 0) -> Image.Image:
    """Return an image with large and small things, soft and hard edges, and colours that leave room on both sides."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[0:1:1j*side, 0:1:1j*side]  # fmt: skip
    pixels = 70 + 60 * down[..., None] + random.uniform(-20, 20, 3) + 15 * np.sin(40 * across + 9 * down)[..., None]
    for _ in range(12):
        x, y, radius = random.uniform((0, 0, 0.03), (1, 1, 0.2))
        pixels[(across - x) ** 2 + (down - y) ** 2 < radius**2] = random.uniform(30, 225, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def voice(seed: int) -> Sound:
    """Return half a second of a note that swells, with overtones and a breath of noise, silence before and after."""
    random, rate = np.random.default_rng(seed), 16_000
    times = np.arange(rate // 2) / rate
    swell = np.sin(np.pi * np.clip((times - 0.03) / 0.44, 0, 1)) ** 2
    tone = sum(np.sin(2 * np.pi * k * random.uniform(110, 220) * times) / k for k in range(1, 20))
    return Sound((swell * (0.12 * tone + 0.02 * random.standard_normal(len(times)))).astype(np.float32), rate)


TEXT = (
    "When the 12 ships came home, the harbour was quiet; nobody waved. \"Is this it?\" she asked, and looked at the"
    " grey water (it was cold). Then a bell rang: once, twice, three times!"
)  # fmt: skip
NUMBERS = Column(name="c", type="number", quantiles=np.linspace(-3, 5, 51).tolist())
BRANDS = Column(name="c", type="category", levels=["a", "b", "c", "d"])


def pixels_apart(before: Any, after: Any) -> float:
    new, old = (np.asarray(cell[0], dtype=float) for cell in (after, before))
    return float(np.sqrt(np.mean((new - old) ** 2)))


def samples_apart(before: Any, after: Any) -> float:
    # The spectra rather than the samples: at another speed, the waves of two recordings soon have nothing in common.
    old, new = (
        np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(sound.samples, 512)[::256] * np.hanning(512)))
        for sound in (before, after)
    )
    return float(np.linalg.norm(new - old))


def points_apart(before: Any, after: Any) -> float:
    # The mean way from a point of one to the nearest of the other, there and back (Chamfer).
    apart = np.linalg.norm(before[:, None, :3].astype(float) - after[None, :, :3], axis=2)
    return float(apart.min(0).mean() + apart.min(1).mean())


def letters_apart(before: str, after: str) -> float:
    return 1 - difflib.SequenceMatcher(None, before, after, autojunk=False).ratio()


def numbers_apart(before: Any, after: Any) -> float:
    return 10.0 if after is None else float(abs(after - before))


#: For each type, a column, a cell for each seed, how far apart two cells are, and how many seeds.
DAMAGE: dict[str, tuple[Column, Callable[[int], Any], Callable[[Any, Any], float], int]] = {
    "image": (Column(name="c", type="image"), lambda seed: [photo(seed=seed)], pixels_apart, 8),
    "audio": (Column(name="c", type="audio"), voice, samples_apart, 10),
    "points": (Column(name="c", type="points"), lambda seed: cloud(80, 4, 1.0, 0.0, seed), points_apart, 12),
    "text": (Column(name="c", type="text"), lambda _: TEXT, letters_apart, 30),
    "number": (NUMBERS, lambda seed: float(np.random.default_rng(seed).uniform(-3, 5)), numbers_apart, 600),
    "category": (BRANDS, lambda seed: "abcd"[seed % 4], lambda before, after: float(before != after), 600),
    "datetime": (Column(name="c", type="datetime"), lambda seed: 1.7e9 + 1e5 * seed, numbers_apart, 600),
}
CHANGED = [(name, type) for type in DAMAGE for name in CORRUPTIONS if type in CORRUPTIONS[name].reads]


def damaged(corruption: Corruption[Any], cells: list[Any], seed: int) -> Any:
    random = np.random.default_rng(seed)
    return corruption(cells[seed], random, lambda: cells[random.integers(len(cells))])


@pytest.mark.parametrize(("name", "type"), CHANGED)
def test_damage_grows_with_severity(name: str, type: str) -> None:
    column, drawn, apart, seeds = DAMAGE[type]
    cells = [drawn(seed) for seed in range(seeds)]

    def damage(corruption: Corruption[Any]) -> float:
        return float(np.mean([apart(cells[seed], damaged(corruption, cells, seed)) for seed in range(seeds)]))

    means = [damage(CORRUPTIONS.build(name, {"severity": severity}, column)) for severity in SEVERITIES]
    assert means[0] > 0
    # By little at last where no more can be lost: of softer recordings nothing is left, of finer textures the mean.
    assert all(worse > 1.02 * mild for mild, worse in pairwise(means)), means
    assert means[-1] > 1.5 * means[0], means


def test_there_are_names_for_every_type_but_embeddings() -> None:
    found = {type: len(corruptions_for([Column(name="c", type=type)])) for type in (*DAMAGE, "embedding")}  # type: ignore[arg-type]
    assert found == {
        "image": 16, "audio": 11, "points": 6, "text": 12, "number": 7, "category": 3, "datetime": 3, "embedding": 0,
    }  # fmt: skip
    assert corruptions_for([]) == []
    assert corruptions_for([NUMBERS, BRANDS]) == sorted({*corruptions_for([NUMBERS]), *corruptions_for([BRANDS])})
