"""Augmentations of images."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL import Image

from polyfuse.core.errors import InputError
from polyfuse.core.options import Share
from polyfuse.data.augmentation.contract import Aspect, Augmentation, Other, Probability
from polyfuse.data.schema import Column

# Luma, and the two axes of chroma, of R'G'B' (the YIQ of NTSC).
_YIQ: NDArray[np.float64] = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# Large photos are shrunk by a whole number first; with a factor of two left to resample, nobody sees a difference.
_REDUCING_GAP = 2.0


class ImageAugmentation(Augmentation):
    """What augmentations of images share: each image of a cell is changed by itself, with some probability.

    Args:
        column: that is changed.
        probability: that an image is changed.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})

    def __init__(self, column: Column, probability: float) -> None:
        super().__init__(column)
        self.probability = probability

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> list[Image.Image]:
        """Change some of the images of a cell."""
        images: Sequence[Image.Image] = cell
        return [self.change(image, random) if random.random() < self.probability else image for image in images]

    @abstractmethod
    def change(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Return a changed copy of an RGB image, or the image itself."""


class CropAugmentation(ImageAugmentation):
    """A random box of the image, resized to the whole (random resized crop, Szegedy et al. 2015).

    The box has a share s of the area, s ~ U(least, 1), and its sides are in the proportion r times that of the image,
    log r ~ U(-log aspect, log aspect), as far as the box fits: (W sqrt(s r), H sqrt(s / r)), somewhere inside.

    Args:
        column: that is changed.
        probability: that an image is changed.
        least: smallest share of the area that stays in view; 0.08 in the paper, where millions of images stand by.
        aspect: most that the box's proportion differs from the image's, either way; 4/3 in the paper.
        size: most pixels of the longer side of the result: what follows costs no more for a large photo.
    """

    def __init__(
        self,
        column: Column,
        *,
        probability: Probability = 1.0,
        least: Annotated[float, Ge(0.01), Le(1)] = 0.6,
        aspect: Aspect = 4 / 3,
        size: Annotated[int, Ge(8), Le(4096)] = 512,
    ) -> None:
        super().__init__(column, probability)
        self.least, self.aspect, self.size = least, aspect, size

    def change(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Crop and resize."""
        wide, high = image.size
        across, down = _sides(random.uniform(self.least, 1.0), self.aspect, random)
        left, top = random.uniform(0.0, (1 - across) * wide), random.uniform(0.0, (1 - down) * high)
        box = (left, top, min(wide, left + across * wide), min(high, top + down * high))
        scale = min(1.0, self.size / max(wide, high))
        size = (max(1, round(scale * wide)), max(1, round(scale * high)))
        return image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=_REDUCING_GAP)


class FlipAugmentation(ImageAugmentation):
    """The image as a mirror shows it, left and right exchanged.

    Not among the defaults: it makes another thing of letters and digits, of signs, maps, hands and X-rays of a chest.

    Args:
        column: that is changed.
        probability: that an image is changed.
    """

    def __init__(self, column: Column, *, probability: Probability = 0.5) -> None:
        super().__init__(column, probability)

    def change(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Mirror."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


class ColourAugmentation(ImageAugmentation):
    """Brightness, contrast, saturation and hue, all in one linear map of the colours.

    x' = c b T x + (1 - c) b m, with the image's mean luma m, the factors b ~ U(1 ± brightness), c ~ U(1 ± contrast)
    and, in T = Q⁻¹ diag(1, s R(2π h)) Q, s ~ U(1 ± saturation) and the turn h ~ U(± hue) of the plane of chroma; Q is
    the YIQ of NTSC. Grey stays grey; what leaves 0 to 255 is cut off.

    Args:
        column: that is changed.
        probability: that an image is changed.
        brightness: most that brightness changes, as a share.
        contrast: most that contrast changes, as a share.
        saturation: most that saturation changes, as a share.
        hue: most that the hue turns, as a share of the whole circle.
    """

    def __init__(
        self,
        column: Column,
        *,
        probability: Probability = 0.8,
        brightness: Share = 0.2,
        contrast: Share = 0.2,
        saturation: Share = 0.2,
        hue: Annotated[float, Ge(0), Le(0.5)] = 0.02,
    ) -> None:
        super().__init__(column, probability)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def change(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Map the colours."""
        most = (self.brightness, self.contrast, self.saturation, self.hue)
        bright, contrast, vivid, turn = (share * random.uniform(-1, 1) for share in most)
        gain = (1 + bright) * (1 + contrast)
        matrix = gain * _chroma(1 + vivid, 2 * math.pi * turn)
        offset = -contrast * (1 + bright) * (_YIQ[0] @ _mean_colour(image))
        rows = [(*(float(weight) for weight in row), float(offset)) for row in matrix]
        return image.convert("RGB", matrix=(*rows[0], *rows[1], *rows[2]))


class EraseAugmentation(ImageAugmentation):
    """A random box of the image is covered (random erasing, Zhong et al. 2020).

    Its share of the area is s ~ U(least, most), its proportion as for `crop`. A box that would cover all is left out.

    Args:
        column: that is changed.
        probability: that an image is changed.
        least: smallest share of the area that is covered.
        most: largest share of the area that is covered; 0.4 in the paper.
        aspect: most that the box's proportion differs from the image's, either way.
        fill: what covers it: "noise", every value of every pixel at random, or the image's "mean" colour.
    """

    def __init__(
        self,
        column: Column,
        *,
        probability: Probability = 0.25,
        least: Share = 0.02,
        most: Share = 0.2,
        aspect: Aspect = 3.3,
        fill: Literal["noise", "mean"] = "noise",
    ) -> None:
        super().__init__(column, probability)
        if least > most:
            raise InputError(f"erase: least={least} is more than most={most}; the smallest share comes first")
        self.least, self.most, self.aspect, self.fill = least, most, aspect, fill

    def change(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Cover a box."""
        wide, high = image.size
        across, down = _sides(random.uniform(self.least, self.most), self.aspect, random)
        width, height = round(across * wide), round(down * high)
        left, top = int(random.integers(wide - width + 1)), int(random.integers(high - height + 1))
        if width * height in (0, wide * high):
            return image
        covered = image.copy()
        if self.fill == "mean":
            red, green, blue = (round(value) for value in _mean_colour(image))
            covered.paste((red, green, blue), (left, top, left + width, top + height))
        else:
            covered.paste(Image.frombytes("RGB", (width, height), random.bytes(3 * width * height)), (left, top))
        return covered


class AffineAugmentation(ImageAugmentation):
    """The image turned, zoomed and moved a little; what comes into view has the mean colour of the border.

    For pictures with the thing in the middle of a plain ground, such as digits and products.

    Args:
        column: that is changed.
        probability: that an image is changed.
        degrees: most that it turns, either way.
        scale: most that it grows or shrinks, as a share.
        shift: most that it moves along each axis, as a share of the side.
    """

    def __init__(
        self,
        column: Column,
        *,
        probability: Probability = 1.0,
        degrees: Annotated[float, Ge(0), Le(180)] = 10.0,
        scale: Annotated[float, Ge(0), Le(0.9)] = 0.1,
        shift: Annotated[float, Ge(0), Le(0.5)] = 0.1,
    ) -> None:
        super().__init__(column, probability)
        self.degrees, self.scale, self.shift = degrees, scale, shift

    def change(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """Turn about the middle, zoom and move."""
        wide, high = image.size
        angle = math.radians(self.degrees * random.uniform(-1, 1))
        zoom = 1 + self.scale * random.uniform(-1, 1)
        across, down = wide * self.shift * random.uniform(-1, 1), high * self.shift * random.uniform(-1, 1)
        # Pillow asks where each pixel of the result comes from: the inverse of the map.
        cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
        x, y = wide / 2 + across, high / 2 + down
        back = (cosine, sine, wide / 2 - cosine * x - sine * y, -sine, cosine, high / 2 + sine * x - cosine * y)
        return image.transform(
            image.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR, fillcolor=_border_colour(image)
        )


def _sides(share: float, aspect: float, random: np.random.Generator) -> tuple[float, float]:
    """Return width and height, as shares of the picture's, of a box with a share of its area.

    The proportion is drawn only from those with which the box fits: no draw is thrown away, and the area is exact.
    """
    if share <= 0:
        return 0.0, 0.0
    bound = min(math.log(aspect), -math.log(share))
    half = bound * random.uniform(-1, 1) / 2
    side = math.sqrt(share)
    return min(1.0, side * math.exp(half)), min(1.0, side * math.exp(-half))


def _chroma(factor: float, angle: float) -> NDArray[np.float64]:
    """Return the map of RGB that scales and turns chroma and keeps luma: (3, 3)."""
    cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
    turned: NDArray[np.float64] = np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    mapped: NDArray[np.float64] = np.linalg.inv(_YIQ) @ turned @ _YIQ
    return mapped


def _mean_colour(image: Image.Image) -> NDArray[np.float64]:
    """Return the mean of each channel, within half a step of 255."""
    return np.asarray(image.resize((1, 1), Image.Resampling.BOX), dtype=np.float64).reshape(3)


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    wide, high = image.size
    boxes = [(0, 0, wide, 1), (0, high - 1, wide, high), (0, 0, 1, high), (wide - 1, 0, wide, high)]
    border = np.concatenate([np.asarray(image.crop(box)).reshape(-1, 3) for box in boxes])
    red, green, blue = (round(float(value)) for value in border.mean(0))
    return red, green, blue
