"""Noise in images."""

from __future__ import annotations

import numpy as np

from polyfuse.data.corruption.image import Floats, ImageCorruption


class GaussianNoiseCorruption(ImageCorruption[float]):
    """Noise of an amplifier: x' = x + σ z, z ~ N(0, 1) for each value. Setting: σ."""

    settings = (0.03, 0.06, 0.1, 0.16, 0.24)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Add noise."""
        return pixels + np.float32(self.setting) * random.standard_normal(pixels.shape, dtype=np.float32)


class ShotNoiseCorruption(ImageCorruption[float]):
    """Noise of little light: x' = k / n, k ~ Poisson(n x) photons. Setting: n, those that make a value of 1."""

    settings = (250.0, 100.0, 45.0, 20.0, 10.0)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Count photons."""
        return (random.poisson(self.setting * pixels) / self.setting).astype(np.float32)


class ImpulseNoiseCorruption(ImageCorruption[float]):
    """Salt and pepper: some pixels are white or black, both alike. Setting: their share."""

    settings = (0.01, 0.03, 0.06, 0.11, 0.18)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Strike pixels."""
        drawn = random.random((*pixels.shape[:2], 1), dtype=np.float32)
        salt = (drawn < self.setting / 2).astype(np.float32)
        return np.where(drawn < self.setting, salt, pixels)
