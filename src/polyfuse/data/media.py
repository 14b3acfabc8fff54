"""Media in cells: found, read, told apart; recordings decoded. Bounded in size, and never fetched."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.types import Sound
from polyfuse.data.cells import CellError, is_missing, json_list, shown
from polyfuse.data.points import points_array

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 256 << 20
MAX_IMAGES = 64
MAX_SECONDS = 3600
#: Frames times channels of one recording: 1 GiB of float32.
MAX_SAMPLES = 1 << 28
MAX_RATE = 1_000_000

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
AUDIO_ENDINGS = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus"})
POINTS_ENDINGS = frozenset({".npy", ".ply", ".xyz", ".pts"})

MediaType: TypeAlias = Literal["image", "audio", "points"]
_TYPES_OF_ENDINGS: dict[str, MediaType] = {
    **dict.fromkeys(IMAGE_ENDINGS, "image"),
    **dict.fromkeys(AUDIO_ENDINGS, "audio"),
    **dict.fromkeys(POINTS_ENDINGS, "points"),
}
#: Column types whose cells may be files.
MEDIA_TYPES: Mapping[str, MediaType] = {"image": "image", "audio": "audio", "points": "points"}
Loaded: TypeAlias = "bytes | Image | NDArray[Any] | tuple[NDArray[Any], int]"

_URL = re.compile(r"([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
_BLOCK = 1 << 18  # frames decoded at a time


@dataclass(frozen=True)
class MediaFolder:
    """Where relative paths in cells start from, and what they may not leave. An absolute path is the user's own."""

    folder: Path

    def find(self, name: str | Path) -> Path:
        """Return the file that a cell names.

        Raises:
            CellError: the path leaves the folder, names no regular file, or is a URL.
        """
        if _URL.match(str(name)):
            raise CellError("a URL is never fetched; download the file and name its path", shown(str(name)))
        try:
            path = (self.folder / name).resolve()
            inside = Path(name).is_absolute() or path.is_relative_to(self.folder.resolve())
            found = path.is_file()
            special = not found and path.exists()
        except (OSError, ValueError) as error:
            raise CellError("this is no path", shown(str(name))) from error
        if not inside:
            rule = f"the path leaves the folder {self.folder}; set media_root to a folder that holds all the files"
            raise CellError(rule, shown(str(name)))
        if special:
            raise CellError("this is no regular file", shown(str(name)))
        if not found:
            where = "" if Path(name).is_absolute() else f" in {self.folder}"
            raise CellError(f"there is no such file{where}", shown(str(name)))
        return path

    def read(self, name: str | Path) -> bytes:
        """Return a file's bytes, at most MAX_BYTES.

        Raises:
            CellError: see `find`; or the file is too large, or may not be read.
        """
        path = self.find(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise CellError("the file cannot be read", f"{shown(str(name))}: {error.strerror}") from error
        return _bounded(data, shown(str(name)))


def load(cell: Any, type: MediaType, folder: MediaFolder) -> list[Loaded]:
    """Return what a cell holds, files read but nothing decoded: several things for a list of images.

    Args:
        cell: a path, bytes, `{"bytes": …, "path": …}`; of an image also a PIL image, an array, or a list of any of
            these; of audio also (array, rate) or `{"array": …, "sampling_rate": …}`; of points also an array, a list of
            points, or JSON text of one.
        type: of the column.
        folder: where relative paths start from.

    Raises:
        CellError: the cell holds something else, or a file cannot be read.
    """
    if type == "audio":
        return [_load_audio(cell, folder)]
    if type == "points":
        return [_load_points(cell, folder)]
    if isinstance(cell, list | tuple) or (isinstance(cell, np.ndarray) and cell.dtype == object):
        parts = [part for part in cell if not is_missing(part)]
        if len(parts) > MAX_IMAGES:
            raise CellError(f"a cell may hold at most {MAX_IMAGES} images", f"{len(parts)}")
        return [_load_image(part, folder) for part in parts]
    return [_load_image(cell, folder)]


def content(loaded: list[Loaded]) -> bytes:
    """Return a hash (16 bytes) of what a cell holds: equal for a file and its bytes, new when the file changes."""
    whole = hashlib.blake2b(digest_size=16)
    for part in loaded:
        one = hashlib.blake2b(digest_size=16)
        if isinstance(part, bytes):
            one.update(b"file ")
            one.update(part)
        elif isinstance(part, np.ndarray | tuple):
            array, rate = part if isinstance(part, tuple) else (part, 0)
            one.update(f"array {array.dtype.str} {array.shape} {rate} ".encode())
            one.update(np.ascontiguousarray(array).tobytes())
        else:
            palette = part.getpalette("RGBA") if part.mode in ("P", "PA") else None
            about = (part.mode, part.size, palette, part.getexif().get(0x0112), part.info.get("transparency"))
            one.update(f"image {about} ".encode())
            one.update(part.tobytes())
        whole.update(one.digest())
    return whole.digest()


def decode_audio(loaded: list[Loaded]) -> Sound:
    """Return a recording in mono, the mean of its channels; one that goes beyond [-1, 1] is scaled down to it.

    Raises:
        CellError: it cannot be decoded, is cut off, empty, too long, or holds samples that are not finite.
    """
    part = loaded[0]
    if isinstance(part, bytes):
        samples, rate = _decode_file(part)
    else:
        assert isinstance(part, tuple)
        samples, rate = _mono(part[0]), part[1]
        _check_length(len(samples), 1, rate)
    if len(samples) == 0:
        raise CellError("the recording is empty")
    if not np.isfinite(samples).all():
        raise CellError("the recording holds samples that are not finite")
    peak = float(np.abs(samples).max())
    return Sound((samples / max(1.0, peak)).astype(np.float32), rate)


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """Return samples (samples,) at another rate, by polyphase filtering; ceil(samples · to / rate) of them."""
    from scipy.signal import resample_poly

    if rate == to:
        return samples
    common = math.gcd(rate, to)
    found: NDArray[np.float32] = resample_poly(samples, to // common, rate // common).astype(np.float32)
    return found


def audio_size(loaded: list[Loaded]) -> tuple[int, float]:
    """Return rate in Hz and length in seconds, from the header.

    Raises:
        CellError: the header cannot be read.
    """
    part = loaded[0]
    if not isinstance(part, bytes):
        assert isinstance(part, tuple)
        return part[1], max(part[0].shape, default=0) / part[1]
    with _open_audio(part) as file:
        return file.samplerate, file.frames / file.samplerate


def sniff(data: bytes) -> MediaType | None:
    """Tell by its first bytes whether a file is an image, a recording or a point cloud.

    >>> sniff(b"\\x89PNG\\r\\n\\x1a\\n"), sniff(b"OggS"), sniff(b"hello")
    ('image', 'audio', None)
    """
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
        return "image"
    if data[:4] == b"RIFF":
        return "image" if data[8:12] == b"WEBP" else "audio"
    if data.startswith((b"fLaC", b"OggS", b"ID3", b"FORM")) or (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):
        return "audio"
    return "points" if data.startswith((b"\x93NUMPY", b"ply\n", b"ply\r")) else None


def named_type(name: str) -> MediaType | None:
    """Tell by its ending whether a path names an image, a recording or a point cloud.

    >>> named_type("a/b.PNG"), named_type("c.wav"), named_type("see a.png.")
    ('image', 'audio', None)
    """
    if len(name) > 1024 or "\n" in name:
        return None
    # Asked of every cell of a column of text, where to make a Path takes most of the time.
    return _TYPES_OF_ENDINGS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122


def _bounded(data: bytes, example: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise CellError(f"a file may have at most {MAX_BYTES >> 20} MiB", example)
    if not data:
        raise CellError("the file is empty", example)
    return data


def _load_file(cell: Any, folder: MediaFolder) -> bytes | None:
    """Return the bytes of a path, bytes or `{bytes, path}`, None for anything else."""
    if isinstance(cell, Mapping) and ("bytes" in cell or "path" in cell):
        data, path = cell.get("bytes"), cell.get("path")
        cell = path if data is None else data
    if isinstance(cell, str | Path):
        return folder.read(cell)
    if isinstance(cell, bytes | bytearray | memoryview):
        return _bounded(bytes(cell), f"{len(cell)} bytes")
    return None


def _load_image(cell: Any, folder: MediaFolder) -> Loaded:
    from PIL.Image import Image

    data = _load_file(cell, folder)
    if data is not None:
        return data
    if isinstance(cell, Image):
        return cell
    array = _array(cell)
    if array is None:
        raise CellError("an image is expected: a path, bytes, a PIL image or an array", shown(cell))
    return array


def _load_audio(cell: Any, folder: MediaFolder) -> Loaded:
    data = _load_file(cell, folder)
    if data is not None:
        return data
    if isinstance(cell, Mapping) and "array" in cell and "sampling_rate" in cell:
        cell = (cell["array"], cell["sampling_rate"])
    if not isinstance(cell, list | tuple | np.ndarray) or len(cell) != 2:
        raise CellError("a recording is expected: a path, bytes or (array, rate)", shown(cell))
    array, rate = np.asarray(cell[0]), cell[1]
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2):
        raise CellError("samples are expected as (samples,) or (samples, channels)", f"{array.dtype} {array.shape}")
    if not np.isscalar(rate) or not isinstance(rate, int | float | np.number) or not 1 <= rate <= MAX_RATE:
        raise CellError(f"the rate must be between 1 and {MAX_RATE:,} Hz", shown(rate))
    return array, int(rate)


def _load_points(cell: Any, folder: MediaFolder) -> Loaded:
    if isinstance(cell, str) and (listed := json_list(cell)) is not None:
        cell = listed
    data = _load_file(cell, folder)
    if data is not None:
        return data
    array = points_array(cell)
    if array is None:
        raise CellError("a point cloud is expected: a path, bytes, an array or a list of points", shown(cell))
    return array


def _array(cell: Any) -> NDArray[Any] | None:
    """Return pixels as they stand in an array or a tensor, None for anything else."""
    if hasattr(cell, "detach"):
        cell = cell.detach().cpu().numpy()
    return cell if isinstance(cell, np.ndarray) and cell.dtype.kind in "buif" else None


def _check_length(frames: int, channels: int, rate: int) -> None:
    if frames > MAX_SECONDS * rate or frames * channels > MAX_SAMPLES:
        limit = f"a recording may have at most {MAX_SECONDS} s and {MAX_SAMPLES:,} samples"
        raise CellError(limit, f"{frames / rate:,.0f} s at {rate} Hz, {channels} channels")


def _open_audio(data: bytes) -> Any:
    """Open a recording without decoding it.

    Raises:
        CellError: it is none.
    """
    import soundfile

    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise CellError("this is no recording that can be read", f"{len(data)} bytes") from error


def _decode_file(data: bytes) -> tuple[NDArray[np.float32], int]:
    """Return samples in mono, and the rate."""
    import soundfile

    with _open_audio(data) as file:
        frames, rate = file.frames, file.samplerate
        _check_length(frames, file.channels, rate)
        if not 1 <= rate <= MAX_RATE:
            raise CellError(f"the rate must be between 1 and {MAX_RATE:,} Hz", str(rate))
        try:
            blocks = file.blocks(_BLOCK, frames=frames, dtype="float32", always_2d=True)
            parts = [block.mean(axis=1) for block in blocks]
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise CellError("the recording is damaged or cut off", f"{len(data)} bytes") from error
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if len(samples) < frames:
        raise CellError("the recording is damaged or cut off", f"{len(samples)} of {frames} frames")
    # soundfile shortens the length to what is there, so the file's own word on it is read here too.
    if lacking := _lacking(data):
        raise CellError("the recording is damaged or cut off", f"{lacking} bytes are missing")
    return samples, rate


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
        if name == b"data":
            # A stream that does not know its length says 0, or nearly the largest number.
            return 0 if size in (0, 0x7FFFFFFF) or size >= 0xFFFFFF00 else max(0, size - (len(data) - at))
        at += size + size % 2
    return 0


def _mono(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean of the channels, the shorter axis; whole numbers are scaled by their type's range."""
    if array.ndim == 2:
        array = array if array.shape[0] >= array.shape[1] else array.T
    if array.dtype.kind == "u":
        half = float(np.iinfo(array.dtype).max // 2 + 1)
        scaled = (array.astype(np.float64) - half) / half
    elif array.dtype.kind == "i":
        scaled = array.astype(np.float64) / float(np.iinfo(array.dtype).max + 1)
    else:
        scaled = array.astype(np.float64)
    return (scaled.mean(axis=1) if scaled.ndim == 2 else scaled).astype(np.float32)
