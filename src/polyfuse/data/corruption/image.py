"""What corruptions of images share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from polyfuse.data.augmentation.contract import Other
from polyfuse.data.corruption.contract import Corruption, P

Floats: TypeAlias = NDArray[np.float32]


class ImageCorruption(Corruption[P]):
    """What corruptions of images share: each image of a cell is changed by itself, what leaves 0 to 255 is cut off."""

    reads: ClassVar[frozenset[str]] = frozenset({"image"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> list[Image.Image]:
        """Change the images of a cell."""
        images: Sequence[Image.Image] = cell
        return [as_image(self.change(as_pixels(image), random)) for image in images]

    @abstractmethod
    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Return changed red, green and blue, (high, wide, 3). pixels: of the same shape, in [0, 1]."""


def as_pixels(image: Image.Image) -> Floats:
    """Return red, green and blue in [0, 1]: (high, wide, 3)."""
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def as_image(pixels: Floats) -> Image.Image:
    """Return the image of red, green and blue, cut off at 0 and 1 and rounded to whole steps of 255."""
    return Image.fromarray(np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8))


def reach(pixels: Floats) -> float:
    """Return the unit, in pixels, of lengths in a picture: its longer side and 16 more.

    What a small picture shows takes up more of it: a digit of 8 pixels bears a blur of one, a photo of 800 not of 100.
    """
    high, wide, _ = pixels.shape
    return float(max(high, wide) + 16)


def veiled(pixels: Floats, thickness: Floats | float, colour: Floats | float) -> Floats:
    """Return what is seen through something of a colour, that hides a share of the light: (1 - t) x + t c."""
    return pixels + np.asarray(thickness, dtype=np.float32) * (np.asarray(colour, dtype=np.float32) - pixels)


def displaced(pixels: Floats, down: Floats, across: Floats) -> Floats:
    """Return each pixel as what lies so far from it, bilinear, beyond the border the mirror image: (high, wide, 3)."""
    rows, columns = np.indices(pixels.shape[:2], dtype=np.float32)
    places = np.stack([rows + down, columns + across])
    channels = [ndimage.map_coordinates(pixels[..., i], places, order=1, mode="reflect") for i in range(3)]
    return np.stack(channels, axis=-1)


def smooth_noise(shape: tuple[int, int], cells: float, random: np.random.Generator) -> Floats:
    """Return normal noise on a grid, so many cells along the longer side, and bicubic between them: (high, wide)."""
    high, wide = shape
    scale = min(1.0, cells / max(shape))
    grid = random.standard_normal((round(scale * high) + 1, round(scale * wide) + 1), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((wide, high), Image.Resampling.BICUBIC))
