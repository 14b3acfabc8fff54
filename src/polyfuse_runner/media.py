"""Images and recordings in cells: read and decoded as polyfuse does. Bounded in size, and never fetched."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import math
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from polyfuse_runner.cells import CellError, is_missing, shown

if TYPE_CHECKING:
    from PIL.Image import Image

Wave: TypeAlias = NDArray[np.float32]

MAX_BYTES = 256 << 20
MAX_IMAGES = 64
MAX_PIXELS = 50_000_000
MAX_CELL_PIXELS = 200_000_000
MAX_SECONDS = 3600
MAX_SAMPLES = 1 << 28
MAX_RATE = 1_000_000

_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")
_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_URL = re.compile(r"([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
_BLOCK = 1 << 18  # frames decoded, and samples resampled, at a time


def images(cell: Any, folder: Path) -> list[Image]:
    """Return 8-bit RGB images, upright, transparent parts white; of a list all of them.

    Args:
        cell: a path, bytes, a data URI, `{"bytes": …}` (bytes or base64), a PIL image, an array, or a list of these.
        folder: where relative paths start from, and what they may not leave.

    Raises:
        CellError: the cell holds something else, or an image that is damaged or too large.
    """
    parts = [part for part in cell if not is_missing(part)] if isinstance(cell, list | tuple) else [cell]
    if len(parts) > MAX_IMAGES:
        raise CellError(f"a cell may hold at most {MAX_IMAGES} images: {len(parts)}")
    opened = [_open_image(part, folder) for part in parts]
    total = sum(max(image.size) ** 2 for image in opened) if len(opened) > 1 else 0
    if total > MAX_CELL_PIXELS:
        raise CellError(f"the cell's images may have {total:,} pixels in all; the limit is {MAX_CELL_PIXELS:,}")
    return [_decoded(image) for image in opened]


def recording(cell: Any, folder: Path) -> tuple[Wave, int]:
    """Return samples (samples,) in mono, scaled down to [-1, 1] where they go beyond, and their rate in Hz.

    Args:
        cell: a path, bytes, a data URI, `{"bytes": …}` (bytes or base64), (array, rate), or `{"array": …,
            "sampling_rate": …}`.
        folder: where relative paths start from, and what they may not leave.

    Raises:
        CellError: the cell holds something else, or a recording that is damaged, empty or too long.
    """
    data = content(cell, folder)
    samples, rate = _samples(cell) if data is None else _decode(data)
    if len(samples) == 0:
        raise CellError("the recording is empty")
    if not np.isfinite(samples).all():
        raise CellError("the recording holds samples that are not finite")
    return (samples / max(1.0, float(np.abs(samples).max()))).astype(np.float32), rate


def resample(wave: Wave, rate: int, to: int) -> Wave:
    """Return samples at another rate: ceil(samples · to / rate) of them.

    Polyphase filtering with a windowed sinc (Kaiser, β = 5) of 20·max(up, down) + 1 taps, as scipy's `resample_poly`.
    """
    if rate == to:
        return wave
    common = math.gcd(rate, to)
    up, down = to // common, rate // common
    half = 10 * max(up, down)
    taps = np.arange(-half, half + 1)
    response = np.sinc(taps / max(up, down)) * np.kaiser(2 * half + 1, 5.0)
    response = (response / response.sum() * up).astype(np.float32)
    # y[n] = Σ_k x[k] h[n·down - k·up + half]: of a row n the k that count are neighbours, the first one at `first`.
    count, width = -(-len(wave) * up // down), 2 * half // up + 1
    padded = np.pad(response, (0, (width + 1) * up - len(response)))
    wide = sliding_window_view(np.pad(wave, (width, width + 1)), width)
    parts = []
    for start in range(0, count, _BLOCK):
        n = np.arange(start, min(count, start + _BLOCK)) * down
        first = -((half - n) // up)  # the least k with n·down - k·up + half ≤ 2·half
        at = (n - first * up + half)[:, None] - np.arange(width) * up
        parts.append(np.einsum("ij,ij->i", wide[first + width], np.where(at >= 0, padded[at], 0)))
    return np.concatenate(parts).astype(np.float32)


def content(cell: Any, folder: Path) -> bytes | None:
    """Return the bytes that a cell holds or names, None where it holds something else.

    Raises:
        CellError: there is no such file, it may not be read, or is too large; or it is no base64.
    """
    if isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell):
        data = cell.get("bytes")
        cell = cell["path"] if data is None else _base64(data) if isinstance(data, str) else data
    if isinstance(cell, str) and (head := _DATA.match(cell)):
        return _bounded(_base64(cell[head.end() :]))
    if isinstance(cell, bytes | bytearray | memoryview):
        return _bounded(bytes(cell))
    if not isinstance(cell, str | Path):
        return None
    name = str(cell)
    if _URL.match(name):
        raise CellError(f"a URL is never fetched; download the file and name its path: {shown(name)}")
    try:
        path = (folder / name).resolve()
        if not (Path(name).is_absolute() or path.is_relative_to(folder.resolve())):
            raise CellError(f"the path leaves the folder {folder}: {shown(name)}")
        if not path.is_file():
            raise CellError(f"there is no such file in {folder}: {shown(name)}")
        with path.open("rb") as file:
            return _bounded(file.read(MAX_BYTES + 1))
    except CellError:
        raise
    except (OSError, ValueError) as error:
        raise CellError(f"the file cannot be read: {shown(name)}") from error


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CellError("this is no base64") from error


def _bounded(data: bytes) -> bytes:
    if not 0 < len(data) <= MAX_BYTES:
        raise CellError(f"a file may have 1 to {MAX_BYTES:,} bytes: {len(data):,}")
    return data


def _open_image(part: Any, folder: Path) -> Image:
    from PIL import Image, UnidentifiedImageError

    image: Image.Image | None = part if isinstance(part, Image.Image) else None
    if isinstance(part, np.ndarray):
        image = _from_array(part)
    elif image is None:
        data = content(part, folder)
        if data is None:
            raise CellError(f"an image is expected: a path, bytes, a PIL image or an array: {shown(part)}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise CellError(f"this is no image that can be read: {len(data)} bytes") from error
        except Exception as error:  # Pillow's readers raise whatever a damaged header makes them raise.
            raise CellError(f"the image is damaged or too large: {str(error)[:80]}") from error
    _check_pixels(*image.size)
    return image


def _check_pixels(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise CellError(f"an image may have 1 to {MAX_PIXELS:,} pixels: {width} by {height}")


def _decoded(image: Image) -> Image:
    """Return an image as 8-bit RGB."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            with contextlib.suppress(Exception):  # Damaged EXIF data is frequent, and no reason to refuse the pixels.
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I") or image.mode == "F":
                image = _from_array(np.asarray(image))
            if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            return image.convert("RGB")
    except CellError:
        raise
    except Exception as error:  # As above; a file that is cut off ends here.
        raise CellError(f"the image is damaged: {str(error)[:80]}") from error


def _from_array(pixels: NDArray[Any]) -> Image:
    """Return an image of an array (height, width) or (height, width, 1, 3 or 4)."""
    from PIL import Image

    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise CellError(f"an image array is (height, width) or (height, width, 1, 3 or 4): shape {pixels.shape}")
    _check_pixels(pixels.shape[1], pixels.shape[0])
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind in "bf" and 0 <= low <= high <= 1:
        scale = 255.0
    elif pixels.dtype.kind != "f" and 0 <= low <= high <= 65535:
        scale = 1 / 257 if high > 255 or (pixels.dtype.kind, pixels.dtype.itemsize) == ("u", 2) else 1.0
    else:
        raise CellError(f"pixels are whole numbers from 0 to 255 (or 65535), or decimals from 0 to 1: {low} to {high}")
    eight = np.rint(pixels * scale).astype(np.uint8)
    return Image.fromarray(eight[:, :, 0] if eight.ndim == 3 and eight.shape[2] == 1 else eight)


def _samples(cell: Any) -> tuple[Wave, int]:
    """Return samples and rate of (array, rate): the mean of the channels, whole numbers scaled by their range."""
    if isinstance(cell, Mapping) and "array" in cell and "sampling_rate" in cell:
        cell = (cell["array"], cell["sampling_rate"])
    if not isinstance(cell, list | tuple) or len(cell) != 2:
        raise CellError(f"a recording is expected: a path, bytes or (array, rate): {shown(cell)}")
    array, rate = np.asarray(cell[0]), cell[1]
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2):
        raise CellError(f"samples are expected as (samples,) or (samples, channels): {array.dtype} {array.shape}")
    if not isinstance(rate, int | float | np.number) or not 1 <= rate <= MAX_RATE:
        raise CellError(f"the rate must be between 1 and {MAX_RATE:,} Hz: {shown(rate)}")
    if array.ndim == 2:
        array = array if array.shape[0] >= array.shape[1] else array.T
    _check_length(len(array), 1, int(rate))
    wide = array.astype(np.float64)
    if array.dtype.kind == "u":
        half = float(np.iinfo(array.dtype).max // 2 + 1)
        wide = (wide - half) / half
    elif array.dtype.kind == "i":
        wide = wide / float(np.iinfo(array.dtype).max + 1)
    return (wide.mean(axis=1) if wide.ndim == 2 else wide).astype(np.float32), int(rate)


def _decode(data: bytes) -> tuple[Wave, int]:
    """Return samples in mono, and the rate, of a file."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            frames, rate = file.frames, file.samplerate
            _check_length(frames, file.channels, rate)
            blocks = file.blocks(_BLOCK, frames=frames, dtype="float32", always_2d=True)
            parts = [block.mean(axis=1) for block in blocks]
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise CellError(f"this is no recording that can be read: {len(data)} bytes") from error
    samples: Wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(samples) < frames or _lacking(data):
        raise CellError("the recording is damaged or cut off")
    return samples, rate


def _check_length(frames: int, channels: int, rate: int) -> None:
    if not 1 <= rate <= MAX_RATE or frames > MAX_SECONDS * rate or frames * channels > MAX_SAMPLES:
        raise CellError(f"a recording may have at most {MAX_SECONDS} s and {MAX_SAMPLES:,} samples: {frames} at {rate}")


def _lacking(data: bytes) -> int:
    """Return how many bytes of its samples a WAV file, or of its last page an Ogg file, lacks."""
    if data[:4] == b"OggS":
        at = data.rfind(b"OggS")
        segments = data[at + 27 : at + 27 + data[at + 26]] if at + 26 < len(data) else b""
        return max(0, at + 27 + len(segments) + sum(segments) - len(data))
    at = 12
    while data[:4] == b"RIFF" and data[8:12] == b"WAVE" and at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"data":  # a stream that does not know its length says 0, or nearly the largest number
            return 0 if size in (0, 0x7FFFFFFF) or size >= 0xFFFFFF00 else max(0, size - (len(data) - at))
        at += size + size % 2
    return 0
