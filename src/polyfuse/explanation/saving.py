"""Explanations to look at: pictures, clouds, words, and all of it as JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyfuse.core.errors import InputError
from polyfuse.core.files import strict_json, whole_folder
from polyfuse.data.points import to_ply
from polyfuse.explanation.methods import Floats
from polyfuse.explanation.parts import AudioPart, CloudPart, ImagePart, Part, TextPart, resampled, rounded

if TYPE_CHECKING:
    from polyfuse.explanation.report import Explanations

#: Blue speaks against the answer, orange for it; told apart by all kinds of colour vision.
AGAINST, FOR = (0x21, 0x66, 0xAC), (0xE6, 0x61, 0x01)
_SIDE = 256  # to which small images are enlarged
_VEIL = 0.75  # of the colour over the image, at most


def check_free(folder: Path) -> None:
    """Check that explanations may be written to a folder.

    Raises:
        InputError: it exists.
    """
    if folder.exists():
        raise InputError(f"explain: {folder} exists; choose another folder")


def write(explanations: Explanations, folder: Path) -> Path:
    """Write a folder whole or not at all, and return it.

    Raises:
        InputError: it exists.
    """
    check_free(folder)
    with whole_folder(folder) as temporary:
        explanations.to_json(temporary / "explanations.json")
        for number, row in enumerate(explanations.rows):
            for place, (name, part) in enumerate(row.parts.items()):
                plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40]
                _write_part(part, temporary / f"{number:03d}-{place}-{plain}")
    return folder


def colours(weights: Floats) -> NDArray[np.uint8]:
    """Return a colour of each weight, white at 0, full at the largest in size: (…, 3) uint8."""
    share = strength(weights)[..., None]
    end = np.where(share < 0, np.array(AGAINST, dtype=np.float64), np.array(FOR, dtype=np.float64))
    found: NDArray[np.uint8] = (255 + np.abs(share) * (end - 255)).round().astype(np.uint8)
    return found


def strength(weights: Floats) -> Floats:
    """Return weights in [-1, 1]: over the largest in size, of many over their 99 % quantile, cut off there."""
    sizes = np.abs(weights)
    most = float(np.quantile(sizes, 0.99)) if sizes.size > 100 else float(sizes.max(initial=0.0))
    most = most or float(sizes.max(initial=0.0))
    found: Floats = np.clip(weights / most, -1, 1) if most > 0 else np.zeros_like(weights)
    return found


def overlay(part: ImagePart) -> Image.Image:
    """Return the image, in grey, under the colours of its weights, small ones enlarged."""
    grey = np.asarray(Image.fromarray(part.image).convert("L"), dtype=np.float64)[..., None]
    share = np.abs(strength(part.weights))[..., None] * _VEIL
    mixed = grey * (1 - share) + colours(part.weights) * share
    made = Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
    factor = max(1, _SIDE // max(made.size))
    return made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST)


def _write_part(part: Part, stem: Path) -> None:
    if isinstance(part, ImagePart):
        overlay(part).save(stem.with_name(stem.name + ".png"))
    elif isinstance(part, AudioPart):
        _draw(part, stem.with_name(stem.name + ".png"))
    elif isinstance(part, CloudPart):
        stem.with_name(stem.name + ".ply").write_bytes(to_ply(part.places, colours(part.weights)))
    elif isinstance(part, TextPart):
        words: list[dict[str, Any]] = [
            {"word": word, "column": column, "weight": rounded(weight)}
            for word, column, weight in zip(part.words, part.columns, part.weights, strict=True)
        ]
        stem.with_name(stem.name + ".json").write_text(strict_json(words), encoding="utf-8")


def _draw(part: AudioPart, path: Path) -> None:
    """Draw the waveform and the spectrogram, each bin of time in the colour of its weight."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    edges = np.linspace(0, part.seconds, len(part.weights) + 1)
    tint = colours(part.weights)
    for at, colour in enumerate(tint):
        above.axvspan(edges[at], edges[at + 1], color=tuple(colour / 255), linewidth=0)
    middle = (edges[:-1] + edges[1:]) / 2
    above.fill_between(middle, part.wave[:, 0], part.wave[:, 1], color="#1c2733", linewidth=0.5)
    above.set_ylabel("waveform")
    grey = (part.mel + 80) / 80 * 255
    frames = resampled(part.weights, part.mel.shape[1])
    share = np.abs(strength(frames))[None, :, None] * _VEIL
    picture = grey[..., None] * (1 - share) + colours(frames)[None] * share
    extent = (0.0, part.seconds, 0.0, float(len(part.mel)))
    below.imshow(picture.clip(0, 255).astype(np.uint8), origin="lower", aspect="auto", extent=extent)
    below.set_ylabel("mel band")
    below.set_xlabel("seconds")
    figure.savefig(path, dpi=100)
