"""From pixels and waveforms, as encoders read them, back to cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from polyfuse.core.types import Sound


def pixels_of_images(pixels: Tensor, mask: Tensor) -> Tensor:
    """Return which pixels are of an image: bool (batch, images, channels, height, width). mask: (batch, images)."""
    return mask[:, :, None, None, None].expand_as(pixels)


def images_of(
    pixels: Tensor, values: Sequence[tuple[Any, ...] | None], border: tuple[int, int] = (0, 0)
) -> list[tuple[Any, ...] | None]:
    """Return values with as many images in each cell as before, of these pixels.

    Args:
        pixels: (batch, images, channels, height, width) in [0, 1], of one channel or three; rounded to 8 bits.
        values: that they were prepared from.
        border: rows and columns to add on each side, of the colours at the edge.
    """
    whole = (pixels.detach().cpu() * 255).round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2).numpy()
    if whole.shape[-1] == 1:
        whole = np.repeat(whole, 3, axis=-1)
    wide = [(0, 0), (border[0],) * 2, (border[1],) * 2, (0, 0)]
    made: list[tuple[Any, ...] | None] = []
    for row, value in zip(whole, values, strict=True):
        if value is None:
            made.append(None)
            continue
        images = iter(np.pad(row, wide, mode="edge"))
        made.append(tuple(None if cell is None else [Image.fromarray(next(images)) for _ in cell] for cell in value))
    return made


def sound_of(wave: Tensor, rate: int, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Return a value whose first recording is all of a waveform, and whose others are empty.

    Args:
        wave: (samples,) in [-1, 1].
        rate: samples a second.
        value: that it was prepared from.
    """
    if value is None:
        return None
    samples = wave.detach().cpu().numpy().astype(np.float32)
    first = next(i for i, cell in enumerate(value) if cell is not None)
    return tuple(Sound(samples, rate) if i == first else None for i in range(len(value)))
