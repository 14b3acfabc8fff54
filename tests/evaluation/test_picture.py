from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from polyfuse.core.errors import InputError
from polyfuse.evaluation.picture import Score, comparison_picture
from polyfuse.metrics.bootstrap import Interval

SCORES = [
    Score("image", "one modality", Interval(0.6, 0.55, 0.65)),
    Score("cost in $ and $", "fusion", Interval(0.9, 0.88, 0.92)),
    Score("undefined", "fusion", Interval(math.nan, math.nan, math.nan)),
]


def draw(path: Path, **options: object) -> Path:
    panels = {"Alone and fused": SCORES, "Taken away": SCORES[:1], "Empty": []}
    return comparison_picture(panels, path, title="Keypad", axis="accuracy", **options)  # type: ignore[arg-type]


def test_picture_is_drawn_without_touching_the_backend(tmp_path: Path) -> None:
    before = matplotlib.rcParams["backend"]
    path = draw(tmp_path / "made" / "scores.png")
    assert matplotlib.rcParams["backend"] == before
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[1] > 1000
    # Both groups' colours are there.
    for colour in ((0x8A, 0x97, 0xA6), (0x1F, 0x6F, 0xEB)):
        assert (pixels == colour).all(axis=-1).any()


def test_baseline_is_drawn_and_text_can_be_found(tmp_path: Path) -> None:
    plain = draw(tmp_path / "a.svg").read_text(encoding="utf-8")
    marked = draw(tmp_path / "b.svg", baseline=0.1).read_text(encoding="utf-8")
    assert marked.count("stroke-dasharray") > plain.count("stroke-dasharray")
    assert "Alone and fused" in plain
    assert "cost in $ and $" in plain
    assert "Empty" not in plain


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no score"):
        comparison_picture({"Empty": []}, tmp_path / "a.png", title="", axis="")
    with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
        draw(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []
