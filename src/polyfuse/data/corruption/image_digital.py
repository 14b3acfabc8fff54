"""What light, storage and transport do to images."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from polyfuse.data.corruption.image import (
    Floats,
    ImageCorruption,
    as_image,
    as_pixels,
    displaced,
    reach,
    smooth_noise,
    veiled,
)

# Weights of red, green and blue in luma (ITU-R BT.601).
_LUMA: Floats = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class BrightnessCorruption(ImageCorruption[float]):
    """Too much light: x' = x + b. Setting: b."""

    settings = (0.08, 0.16, 0.25, 0.35, 0.45)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Brighten."""
        return pixels + np.float32(self.setting)


class ContrastCorruption(ImageCorruption[float]):
    """Flat light: x' = m + c (x - m), m the mean colour. Setting: c."""

    settings = (0.75, 0.55, 0.4, 0.27, 0.17)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Flatten."""
        return veiled(pixels, 1 - self.setting, pixels.mean((0, 1)))


class SaturateCorruption(ImageCorruption[float]):
    """Loud colours: x' = y + s (x - y), y the luma. Setting: s."""

    settings = (1.4, 1.9, 2.6, 3.6, 5.0)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Saturate."""
        grey: Floats = (pixels @ _LUMA)[..., None]
        return veiled(pixels, 1 - self.setting, grey)


class PixelateCorruption(ImageCorruption[float]):
    """Few pixels: means over blocks of 1 + b pixels a side. Setting: b, a share of `reach`."""

    settings = (0.002, 0.005, 0.008, 0.012, 0.018)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Shrink and enlarge."""
        image, block = as_image(pixels), 1 + self.setting * reach(pixels)
        small = (max(1, round(image.width / block)), max(1, round(image.height / block)))
        return as_pixels(image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST))


class JpegCorruption(ImageCorruption[int]):
    """Saved as JPEG and read again. Setting: the quality."""

    settings = (80, 45, 25, 14, 8)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Save and read."""
        file = io.BytesIO()
        as_image(pixels).save(file, "JPEG", quality=self.setting)
        return as_pixels(Image.open(file))


class ElasticCorruption(ImageCorruption[float]):
    """Stretched and squeezed (after Simard et al. 2003): moved by smooth noise of five cells along the longer side.

    Setting: how far, the standard deviation on the grid, a share of `reach`.
    """

    settings = (0.005, 0.01, 0.016, 0.022, 0.029)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Displace."""
        shape, far = (pixels.shape[0], pixels.shape[1]), np.float32(self.setting * reach(pixels))
        return displaced(pixels, far * smooth_noise(shape, 5, random), far * smooth_noise(shape, 5, random))
