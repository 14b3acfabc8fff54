"""Blurs of images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

from polyfuse.data.corruption.image import Floats, ImageCorruption, as_image, as_pixels, displaced, reach

# More steps between the ends of a zoom are not seen.
_MOST_STEPS = 24


class DefocusBlurCorruption(ImageCorruption[float]):
    """A lens out of focus: each point becomes a disc. Setting: its radius, a share of `reach`."""

    settings = (0.008, 0.014, 0.021, 0.03, 0.04)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Blur."""
        return convolved(pixels, spread(*disc(self.setting * reach(pixels))))


class MotionBlurCorruption(ImageCorruption[float]):
    """A camera that moved: each point becomes a line in a random direction. Setting: its length, a share of `reach`."""

    settings = (0.02, 0.035, 0.055, 0.08, 0.11)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Blur."""
        return convolved(pixels, spread(*line(self.setting * reach(pixels), random.uniform(0, math.pi))))


class ZoomBlurCorruption(ImageCorruption[float]):
    """A camera that came nearer: the mean of the image enlarged about its middle, 1 to 1 + z times. Setting: z."""

    settings = (0.04, 0.08, 0.14, 0.22, 0.32)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Blur."""
        image = as_image(pixels)
        wide, high = image.size
        steps = min(_MOST_STEPS, 2 + math.ceil(self.setting * max(wide, high) / 2))
        total = np.zeros_like(pixels)
        for zoom in np.linspace(1, 1 + self.setting, steps):
            left, upper = wide * (1 - 1 / zoom) / 2, high * (1 - 1 / zoom) / 2
            box = (left, upper, wide - left, high - upper)
            total += as_pixels(image.resize(image.size, Image.Resampling.BILINEAR, box=box))
        return total / np.float32(steps)


class GlassBlurCorruption(ImageCorruption[float]):
    """Frosted glass: each pixel is what lies up to d from it, either way, then blurred a little (Gaussian, σ = d / 4).

    Setting: d, a share of `reach`.
    """

    settings = (0.005, 0.009, 0.014, 0.021, 0.029)

    def change(self, pixels: Floats, random: np.random.Generator) -> Floats:
        """Scatter."""
        most = self.setting * reach(pixels)
        down, across = (most * (2 * random.random((2, *pixels.shape[:2]), dtype=np.float32) - 1)).astype(np.float32)
        blurred: Floats = ndimage.gaussian_filter(displaced(pixels, down, across), (most / 4, most / 4, 0))
        return blurred


def disc(radius: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points evenly spread over a disc about 0: x and y, (points,) each."""
    x, y = np.meshgrid(_steps(2 * radius), _steps(2 * radius))
    inside = x**2 + y**2 <= radius**2
    return x[inside], y[inside]


def line(length: float, angle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points evenly spread over a line about 0, at an angle to the x axis: x and y, (points,) each."""
    steps = _steps(length)
    return steps * math.cos(angle), steps * math.sin(angle)


def _steps(length: float) -> NDArray[np.float64]:
    """Return the middles of equal parts of a length about 0, each of half a pixel at most: (an odd number,)."""
    count = 2 * math.ceil(length) + 9
    return length * ((np.arange(count) + 0.5) / count - 0.5)


def spread(x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """Return what becomes of a point that shows at all of some places: (2 n + 1, 2 n + 1), its sum 1.

    Each place gives its four nearest pixels their bilinear shares, so that it need not lie in the middle of one.
    """
    middle = int(max(np.abs(x).max(), np.abs(y).max())) + 1
    kernel = np.zeros((2 * middle + 1, 2 * middle + 1))
    left, upper = np.floor(x).astype(int), np.floor(y).astype(int)
    for right in (0, 1):
        for lower in (0, 1):
            share = np.abs(1 - right - (x - left)) * np.abs(1 - lower - (y - upper))
            np.add.at(kernel, (upper + lower + middle, left + right + middle), share)
    shares: Floats = (kernel / kernel.sum()).astype(np.float32)
    return shares


def convolved(pixels: Floats, kernel: Floats) -> Floats:
    """Return the convolution with a kernel of odd sides, beyond the border with the mirror image: (high, wide, …)."""
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(pixels, ((down, down), (across, across), (0, 0)), mode="symmetric")
    found: Floats = signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return found
