"""What is measured of a cell is what its name says; and media drift is seen in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import polyfuse as pf
from polyfuse.core.types import Sound
from polyfuse.data.keypad import keypad_moved, keypad_split
from polyfuse.drift.measures import MEASURES, level_code, level_codes, measured


def one(type: Any, cell: Any) -> dict[str, float]:
    found = measured(type, [cell, None])
    assert all(np.isnan(values[1]) for values in found.values())
    assert tuple(found) == MEASURES[type]
    return {name: float(values[0]) for name, values in found.items()}


def test_numbers_texts_and_vectors() -> None:
    assert one("number", 3) == {"values": 3.0}
    assert one("number", float("inf"))["values"] == 1e300
    assert one("text", "ab 1") == {"length": 4.0, "share of letters": 0.5}
    assert one("text", "") == {"length": 0.0, "share of letters": 0.0}
    assert one("embedding", np.array([3.0, 4.0])) == {"norm": 5.0}
    assert measured("datetime", [1.0]) == measured("category", ["a"]) == {}


def test_images() -> None:
    halves = np.zeros((40, 40), dtype=np.uint8)
    halves[:, 20:] = 255
    found = one("image", [Image.fromarray(halves).convert("RGB")])
    # One of 39 steps to the right is 1, none of those down.
    expected = {"brightness": 0.5, "contrast": 0.5, "detail": 0.5 / 39, "size": 40.0}
    assert found == pytest.approx(expected)
    large = one("image", [Image.new("RGB", (640, 480), "white")])
    assert large == pytest.approx({"brightness": 1.0, "contrast": 0.0, "detail": 0.0, "size": 640.0})


def test_recordings() -> None:
    time = np.arange(8000) / 8000
    tone = Sound(np.sin(2 * np.pi * 100 * time + 0.1).astype(np.float32), 8000)
    found = one("audio", tone)
    # The root mean square of a sine is 1/√2, 3 dB below full scale; it changes its sign twice a period.
    assert found == pytest.approx({"duration": 1.0, "loudness": -3.01, "crossings": 200.0}, abs=1.0)
    assert one("audio", Sound(np.zeros(80, dtype=np.float32), 8000))["loudness"] == pytest.approx(-100)
    assert one("audio", Sound(np.zeros(0, dtype=np.float32), 8000))["duration"] == 0


def test_clouds() -> None:
    # A plate of 4 by 2, of its corners: the mean distances along its axes are 2, 1 and 0.
    plate = np.array([[x, y, 5.0] for x in (-2, 2) for y in (-1, 1)], dtype=np.float32)
    assert one("points", plate) == pytest.approx({"points": 4.0, "spread": 5**0.5, "flatness": 0.0}, abs=1e-6)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    box = np.concatenate([plate, plate + np.array([0, 0, 2])])
    found = one("points", np.concatenate([box @ turn + 7, np.ones((8, 2))], axis=1).astype(np.float32))
    assert found == pytest.approx({"points": 8.0, "spread": 6**0.5, "flatness": 6**-0.5}, rel=1e-4)
    assert one("points", np.ones((1, 2), dtype=np.float32)) == {"points": 1.0, "spread": 0.0, "flatness": 0.0}
    assert one("points", np.float32([[0, 0, 0], [2, 0, 0]])) == {"points": 2.0, "spread": 1.0, "flatness": 0.0}


def test_levels_have_hashes_of_their_own() -> None:
    codes = level_codes(["a", None, "b", "a"])
    assert codes.tolist() == [level_code("a"), -1, level_code("b"), level_code("a")]
    assert len({level_code(str(i)) for i in range(1000)}) == 1000


def test_media_that_moved_are_found() -> None:
    train, new = keypad_split(500, 200, seed=3)
    modalities = {"image": {"columns": ["image"]}, "audio": {"columns": ["audio"]}}
    settings: dict[str, Any] = {"modalities": modalities, "fusion": "concat", "training": {"epochs": 1, "trackers": []}}
    predictor = pf.Predictor("key", **settings).fit(train, progress=False)
    assert not predictor.drift(new, progress=False).found
    dark = [None if cell is None else (cell * 0.6).astype(np.uint8) for cell in new["image"]]
    noise = np.random.default_rng(0)
    loud = [
        None
        if cell is None
        else (np.clip(cell[0] + noise.normal(0, 0.1, len(cell[0])), -1, 1).astype(np.float32), 8000)
        for cell in new["audio"]
    ]
    report = predictor.drift(new.assign(image=dark), progress=False)
    assert report["image: brightness"] <= 0.05 < report["audio: loudness"]
    report = predictor.drift(new.assign(audio=loud), progress=False)
    assert report["audio: loudness"] <= 0.05 < report["image: brightness"]
    assert report["audio: features"] <= 0.05


def test_the_moved_keypad_has_moved_and_means_the_same() -> None:
    table, again = keypad_moved(120, seed=3), keypad_moved(120, seed=3)
    assert table["hold_ms"].equals(again["hold_ms"])
    _, before = keypad_split(10, 120, seed=3)
    bright = [np.mean([cell.mean() for cell in some["image"] if cell is not None]) for some in (before, table)]
    assert bright[1] > bright[0] + 30
    assert table["hold_ms"].median() > before["hold_ms"].median()
    assert (table["finger"] == "thumb").mean() > (before["finger"] == "thumb").mean()
    assert sorted(set(table["key"])) == list("0123456789")
