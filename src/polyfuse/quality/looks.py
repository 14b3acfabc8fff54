"""What is seen of an image or a recording: small enough to be kept of every row, and alike where content is alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from polyfuse.core.types import Sound
from polyfuse.data.media import resample
from polyfuse.encoders.spectrogram import mel_filters, power_spectrum

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]

#: Pixels on a side of a picture, and bands and steps in time of a recording's.
SIDE = 32
_COLOURS = 8
_RATE, _FFT, _SECONDS = 8000, 512, 30
#: Below this a recording's rate says nothing about what is heard, so that resampling would only cost.
_LEAST_RATE = 1000
_RANGE = 6.0  # powers of ten from the loudest to what counts as silence
_CELL, _BINS = 4, 8  # pixels on a side, and directions, of a histogram of gradients


@dataclass(frozen=True)
class Look:
    """What is seen of one cell.

    Attributes:
        digest: of the decoded content: the same for a PNG and a BMP of the same pixels.
        pictures: of each image its grey values, of a recording its log-mel spectrogram: (SIDE, SIDE).
        colour: the images' mean colours (8, 8, 3), black of a recording.
        seconds: length of a recording, 0 of an image.
    """

    digest: bytes
    pictures: tuple[Bytes, ...]
    colour: Bytes
    seconds: float


def look(cell: Any) -> Look:
    """Look at a decoded cell: a list of RGB images, or a `Sound`."""
    whole = hashlib.blake2b(digest_size=16)
    if isinstance(cell, Sound):
        whole.update(f"{cell.rate} ".encode() + cell.samples.tobytes())
        black = np.zeros((_COLOURS, _COLOURS, 3), dtype=np.uint8)
        return Look(whole.digest(), (_heard(cell),), black, len(cell.samples) / cell.rate)
    pictures, colours = [], []
    for image in cell:
        whole.update(f"{image.size} ".encode() + image.tobytes())
        pictures.append(np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
        colours.append(np.asarray(image.resize((_COLOURS, _COLOURS), Image.Resampling.BILINEAR), dtype=np.float32))
    mean = np.mean(colours, axis=0) if colours else np.zeros((_COLOURS, _COLOURS, 3))
    return Look(whole.digest(), tuple(pictures), mean.astype(np.uint8), 0.0)


def _heard(sound: Sound) -> Bytes:
    """Return a recording's log-mel spectrogram, stretched to SIDE steps: (SIDE, SIDE)."""
    samples = sound.samples[: _SECONDS * max(sound.rate, _LEAST_RATE)]
    if sound.rate >= _LEAST_RATE:
        samples = resample(samples, sound.rate, _RATE)
    waves = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    waves = torch.nn.functional.pad(waves, (0, max(0, _FFT - len(waves))))
    power = power_spectrum(waves[None], torch.hann_window(_FFT), _FFT, _FFT // 4)[0]
    mel = (mel_filters(_RATE, _FFT, SIDE) @ power).numpy()
    loudest = float(mel.max())
    if loudest <= 0:
        return np.zeros((SIDE, SIDE), dtype=np.uint8)
    level = 1 + np.log10(np.maximum(mel / loudest, 10**-_RANGE)) / _RANGE
    stretched = Image.fromarray(level.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (255 * np.asarray(stretched)).clip(0, 255).astype(np.uint8)


def vectors(looks: Sequence[Look | None]) -> Floats:
    """Return gradients, grey values and colours of each cell as a vector, nan where there is none: (rows, n).

    Gradients are histograms of 8 directions in cells of 4 × 4 pixels, normalised over blocks of 2 × 2
    cells (Dalal and Triggs 2005). Of several images in a cell, the mean.
    """
    known = [i for i, found in enumerate(looks) if found is not None and found.pictures]
    some = [found for found in (looks[i] for i in known) if found is not None]
    if not some:
        return np.full((len(looks), 1), np.nan, dtype=np.float32)
    grey = np.stack([np.mean(found.pictures, axis=0, dtype=np.float32) for found in some]) / np.float32(255)
    colour = np.stack([found.colour for found in some]).reshape(len(some), -1).astype(np.float32) / 255
    gradients = np.concatenate([_gradients(grey[i : i + 1024]) for i in range(0, len(grey), 1024)])
    small = grey.reshape(len(grey), SIDE // _CELL, _CELL, SIDE // _CELL, _CELL).mean((2, 4)).reshape(len(grey), -1)
    # A block's histograms have length 1, of 49 blocks; the rest is to weigh about as much as a tenth of them.
    whole = np.concatenate([gradients, small * 0.3, colour * 0.2], axis=1)
    found = np.full((len(looks), whole.shape[1]), np.nan, dtype=np.float32)
    found[known] = whole
    return found


def _gradients(pictures: Floats) -> Floats:
    """Return the normalised histograms of gradients of pictures (rows, SIDE, SIDE): (rows, n)."""
    down, across = np.gradient(pictures, axis=(1, 2))
    size = np.hypot(across, down)
    angle = (np.arctan2(down, across) % np.pi) / np.pi * _BINS
    lower = np.floor(angle).astype(int)
    upper_share = angle - lower
    cells = SIDE // _CELL
    counts = np.zeros((len(pictures), _BINS, cells, cells), dtype=np.float32)
    for bin in range(_BINS):
        part = size * ((lower % _BINS == bin) * (1 - upper_share) + ((lower + 1) % _BINS == bin) * upper_share)
        counts[:, bin] = part.reshape(len(pictures), cells, _CELL, cells, _CELL).sum((2, 4))
    last = cells - 1
    corners = [counts[:, :, i : last + i, j : last + j] for i in (0, 1) for j in (0, 1)]
    blocks = np.concatenate(corners, axis=1)
    blocks = np.minimum(blocks / np.sqrt((blocks**2).sum(1, keepdims=True) + 1e-2), 0.2)
    blocks /= np.sqrt((blocks**2).sum(1, keepdims=True) + 1e-4)
    found: Floats = blocks.reshape(len(pictures), -1).astype(np.float32)
    return found
