"""Images, decoded at the door: bounded in size before anything is decoded, and all alike afterwards."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.cells import CellError

if TYPE_CHECKING:
    from PIL.Image import Image

    from polyfuse.data.media import Loaded

MAX_PIXELS = 50_000_000

#: Pixels of all images of one cell, each counted as a square of its longer side.
MAX_CELL_PIXELS = 200_000_000

# Pillow's other formats are not wanted here; one of them (EPS) runs a program.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")


def decode_images(loaded: list[Loaded]) -> list[Image]:
    """Return 8-bit RGB images, upright as EXIF says; transparent parts are white. A moving one is its first frame.

    Raises:
        CellError: one cannot be decoded, or has more than MAX_PIXELS; or they have too many together.
    """
    total = sum(side * side for side in image_size(loaded)) if len(loaded) > 1 else 0
    if total > MAX_CELL_PIXELS:
        raise CellError(f"the cell's images may have {total:,} pixels in all; the limit is {MAX_CELL_PIXELS:,}")
    return [_decode_image(part) for part in loaded]


def image_size(loaded: list[Loaded]) -> list[int]:
    """Return the longer side of each image in pixels, from its header.

    Raises:
        CellError: a header cannot be read.
    """
    return [max(size) for size in image_shapes(loaded)]


def image_shapes(loaded: list[Loaded]) -> list[tuple[int, int]]:
    """Return width and height of each image in pixels, from its header.

    Raises:
        CellError: a header cannot be read.
    """
    shapes: list[tuple[int, int]] = []
    for part in loaded:
        if isinstance(part, np.ndarray):
            shapes.append((part.shape[1], part.shape[0]))
        else:
            assert not isinstance(part, tuple)
            shapes.append((_open_image(part) if isinstance(part, bytes) else part).size)
    return shapes


def _open_image(data: bytes) -> Image:
    """Open an image without decoding it.

    Raises:
        CellError: it is none, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise CellError(f"an image may have at most {MAX_PIXELS // 1_000_000} megapixels", "far more") from error
    except UnidentifiedImageError as error:
        raise CellError("this is no image that can be read", f"{len(data)} bytes") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged header makes them raise.
        raise CellError("the image is damaged", str(error)[:80]) from error
    _check_pixels(*image.size)
    return image


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise CellError(
            f"an image may have at most {MAX_PIXELS // 1_000_000} megapixels", f"{width} by {height} pixels"
        )
    if width * height == 0:
        raise CellError("the image has no pixels", f"{width} by {height}")


def _decode_image(part: Loaded) -> Image:
    if isinstance(part, np.ndarray):
        return _from_array(part)
    assert not isinstance(part, tuple)
    image = _open_image(part) if isinstance(part, bytes) else part
    _check_pixels(*image.size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return _to_rgb(_upright(image))
    except CellError:
        raise
    except Exception as error:  # As above; a file that is cut off ends here.
        raise CellError("the image is damaged", str(error)[:80]) from error


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Damaged EXIF data is frequent, and no reason to refuse the pixels.
        return image


def _to_rgb(image: Image) -> Image:
    """Return 8-bit RGB, deeper greys scaled and transparent parts white."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    # A copy, so that what the user holds and what is kept here do not change each other.
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _from_array(pixels: NDArray[Any]) -> Image:
    """Return an image of an array (height, width) or (height, width, 1, 3 or 4)."""
    from PIL import Image

    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        rule = "an image array is (height, width) or (height, width, 1, 3 or 4)"
        raise CellError(rule, f"shape {pixels.shape}")
    _check_pixels(pixels.shape[1], pixels.shape[0])
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind in "bf" and 0 <= low <= high <= 1:
        scale = 255.0
    elif pixels.dtype.kind != "f" and low >= 0 and (high <= 255 or high <= 65535):
        scale = 1 / 257 if high > 255 or (pixels.dtype.kind, pixels.dtype.itemsize) == ("u", 2) else 1.0
    else:
        rule = "pixels are whole numbers from 0 to 255 (or 65535), or decimals from 0 to 1"
        raise CellError(rule, f"{pixels.dtype} from {low:g} to {high:g}")
    eight = np.rint(pixels * scale).astype(np.uint8)
    return _to_rgb(Image.fromarray(eight[:, :, 0] if eight.ndim == 3 and eight.shape[2] == 1 else eight))
