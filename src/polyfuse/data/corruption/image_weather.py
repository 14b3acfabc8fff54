"""Weather in images."""

from __future__ import annotations

import math

import numpy as np

from polyfuse.data.corruption.image import Floats, ImageCorruption, reach, smooth_noise, veiled
from polyfuse.data.corruption.image_blur import convolved, disc, line, spread

# Layers of clouds, each of half the size and half the weight of the one before.
_OCTAVES = 5


class SnowCorruption(ImageCorruption[tuple[float, float]]):
    """Falling snow: a light haze, and before it white flakes, drawn out along a random direction near the vertical.

    Setting: the share of the picture that flakes cover, and the share of the light that the haze hides.
    """

    settings = ((0.02, 0.04), (0.05, 0.09), (0.09, 0.15), (0.14, 0.22), (0.2, 0.3))

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Let it snow."""
        cover, haze = self.setting
        x, y = line(0.02 * reach(pixels), math.pi / 2 + random.uniform(-0.5, 0.5))
        right, down = disc(0.003 * reach(pixels))
        flake = spread(np.add.outer(x, right), np.add.outer(y, down))
        flake /= flake.max()
        # The sum of a flake is its area in pixels.
        falls = random.random((*pixels.shape[:2], 1), dtype=np.float32) < cover / flake.sum()
        shines = random.uniform(0.6, 1, falls.shape).astype(np.float32)
        flakes = np.clip(convolved(falls * shines, flake), 0, 1)
        return veiled(veiled(pixels, haze, 0.8), flakes, 1.0)


class FogCorruption(ImageCorruption[float]):
    """Fog: x' = (1 - t) x + 0.9 t, in swathes, t = d (1 + c) / 2 with clouds c in [0, 1]. Setting: d."""

    settings = (0.2, 0.35, 0.5, 0.65, 0.8)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Veil."""
        return veiled(pixels, np.float32(self.setting / 2) * (1 + _clouds(pixels, 2, random)), 0.9)


class FrostCorruption(ImageCorruption[float]):
    """Ice on the pane: x' = (1 - t) x + t c of a bluish white c, whole at the border and in veins over the middle.

    t = d (1 - (1 - v) (1 - b²)), with b from 0 in the middle to 1 at the border, and v the ridges between clouds.
    Setting: d.
    """

    settings = (0.18, 0.31, 0.44, 0.57, 0.7)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Freeze."""
        veins = (1 - np.abs(2 * _clouds(pixels, 4, random) - 1)) ** 3
        down, across = (np.abs(np.linspace(-1, 1, side, dtype=np.float32)) for side in pixels.shape[:2])
        border = np.maximum.outer(down, across)[..., None]
        colour = np.array([0.85, 0.92, 1.0], dtype=np.float32)
        return veiled(pixels, self.setting * (1 - (1 - veins) * (1 - border**2)), colour)


def _clouds(pixels: Floats, cells: int, random: np.random.Generator) -> Floats:
    """Return noise of several sizes, the coarsest with so many cells along the longer side: (high, wide, 1), 0 to 1."""
    high, wide, _ = pixels.shape
    total: Floats = np.sum([smooth_noise((high, wide), cells * 2**i, random) / 2**i for i in range(_OCTAVES)], axis=0)
    scaled: Floats = (total - total.min()) / max(np.ptp(total), np.float32(1e-6))
    return scaled[..., None]
