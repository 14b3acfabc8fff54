"""Point clouds, decoded at the door: arrays, and files in NPY, PLY and plain text. Bounded before anything is read."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from polyfuse.data.cells import CellError, shown

if TYPE_CHECKING:
    from polyfuse.data.media import Loaded

Cloud: TypeAlias = NDArray[np.float32]

#: Points of one cloud: 96 MiB of float32 with six numbers each.
MAX_POINTS = 1 << 22
#: Numbers of a point: coordinates, and what is known of it beside them.
FEWEST, WIDEST = 2, 6

_NPY, _PLY = b"\x93NUMPY", b"ply"
_HEADER = 1 << 16  # most bytes of the header of a PLY file
_LONGEST = 12  # digits of a number of points
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_CHANNELS = (("nx", "ny", "nz"), ("red", "green", "blue"))


def coordinates(size: int) -> int:
    """Return how many of a point's numbers are coordinates: x and y, and from three numbers on z.

    >>> coordinates(2), coordinates(6)
    (2, 3)
    """
    return min(size, 3)


def decode_points(loaded: list[Loaded], size: int | None = None) -> Cloud:
    """Return a cloud (points, numbers): coordinates first, then normals, colours and so on, as they were given.

    Of a PLY file x, y and z are read, then nx, ny, nz and red, green, blue where it has them, colours of 8 bits as
    shares of 255; of text a point a line.

    Args:
        loaded: see `media.load`.
        size: numbers of a point; any from 2 to 6 when left out.

    Raises:
        CellError: it is no cloud, cut off, too large, or not finite; or a point has another number of numbers.
    """
    [part] = loaded
    found = _file(part) if isinstance(part, bytes) else part
    assert isinstance(found, np.ndarray)
    _check(found.shape)
    if size is not None and found.shape[1] != size:
        raise CellError(f"a cloud of {size} numbers a point is expected", f"one of {found.shape[1]}")
    with np.errstate(over="ignore"):
        cloud: Cloud = np.ascontiguousarray(found, dtype=np.float32)
    if not np.isfinite(cloud).all():
        raise CellError("a point cloud holds numbers that are not finite; leave such points out")
    return cloud


def count_points(loaded: list[Loaded]) -> int:
    """Return how many points a cloud has, by the header of a file, or at most by the lines of text.

    Raises:
        CellError: a header cannot be read.
    """
    [part] = loaded
    if not isinstance(part, bytes):
        assert isinstance(part, np.ndarray)
        return len(part)
    if part.startswith(_NPY):
        return int(_npy_header(part)[0][0])
    return _ply_header(part)[1] if part.startswith(_PLY) else part.count(b"\n") + 1


def to_npy(cloud: Cloud) -> bytes:
    """Return an NPY file of a cloud (points, numbers)."""
    buffer = io.BytesIO()
    np.save(buffer, cloud, allow_pickle=False)
    return buffer.getvalue()


def to_ply(cloud: NDArray[Any], colours: NDArray[np.uint8]) -> bytes:
    """Return a PLY file (binary, little endian) of coloured points, to be looked at; z = 0 where there is none.

    Args:
        cloud: (points, numbers), of which the coordinates are written.
        colours: (points, 3).
    """
    kind = [*((name, "<f4") for name in "xyz"), *((name, "u1") for name in _CHANNELS[1])]
    rows = np.zeros(len(cloud), dtype=kind)
    for axis in range(coordinates(cloud.shape[1])):
        rows["xyz"[axis]] = cloud[:, axis]
    for name, shade in zip(_CHANNELS[1], colours.T, strict=True):
        rows[name] = shade
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}"]
    lines += [f"property {'float' if type == '<f4' else 'uchar'} {name}" for name, type in kind]
    return "\n".join([*lines, "end_header\n"]).encode() + rows.tobytes()


def points_array(cell: Any) -> NDArray[Any] | None:
    """Return what an array, a tensor, or a list of points holds as it stands, not checked; None for anything else.

    Raises:
        CellError: the points have different numbers of numbers, or hold what is none.
    """
    if hasattr(cell, "detach"):
        cell = cell.detach().cpu().numpy()
    if not isinstance(cell, list | tuple | np.ndarray):
        return None
    if len(cell) > MAX_POINTS:
        _check((len(cell), FEWEST))
    if isinstance(cell, np.ndarray) and cell.dtype != object:
        if cell.dtype.kind not in "iuf":
            raise CellError("the numbers of a point are expected", f"{cell.dtype}")
        return cell
    try:
        return np.asarray(list(cell), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CellError("a list of points is expected, each as many numbers", shown(cell)) from error


def _check(shape: Sequence[int]) -> None:
    if len(shape) != 2 or not FEWEST <= shape[1] <= WIDEST or not shape[0]:
        rule = f"a point cloud is (points, numbers): at least one point, and {FEWEST} to {WIDEST} numbers each"
        raise CellError(rule, f"shape {tuple(shape)}")
    if shape[0] > MAX_POINTS:
        raise CellError(f"a cloud may have at most {MAX_POINTS:,} points", f"{shape[0]:,}")


def _file(data: bytes) -> NDArray[Any]:
    if data.startswith(_NPY):
        return _of_npy(data)
    return _of_ply(data) if data.startswith(_PLY) else _of_text(data)


def _of_npy(data: bytes) -> NDArray[Any]:
    """Read an array of numbers; what the header promises has to be there, before any room is made for it."""
    _, size = _npy_header(data)
    if len(data) != size:
        raise CellError("the NPY file is damaged or cut off", f"{len(data):,} bytes, and {size:,} are expected")
    found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def _npy_header(data: bytes) -> tuple[tuple[int, ...], int]:
    """Return the shape, and how many bytes the file has to have."""
    file = io.BytesIO(data)
    try:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        shape, _, kind = read(file)
    except Exception as error:  # a damaged header is tokenized, and raises whatever that raises
        raise CellError("this is no NPY file that can be read", f"{len(data)} bytes") from error
    if kind.kind not in "iuf":
        raise CellError("an NPY file of numbers is expected", str(kind)[:60])
    _check(shape)
    return shape, file.tell() + shape[0] * shape[1] * kind.itemsize


def _of_ply(data: bytes) -> NDArray[Any]:
    """Read the vertices of a PLY file, which have to come first; what follows them is passed over."""
    order, count, vertex, start = _ply_header(data)
    names = [name for name, _ in vertex]
    beside = [name for some in _CHANNELS if set(some) <= set(names) for name in some]
    wanted = ["x", "y", "z", *beside][:WIDEST]
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise CellError("the vertices of a PLY file have x, y and z", f"{', '.join(names)}")
    _check((count, len(wanted)))
    if order is None:
        table = _numbers(data[start:], count, len(names))
        columns = [table[:, names.index(name)] for name in wanted]
    else:
        kind = np.dtype([(name, order + type) for name, type in vertex])
        if len(data) - start < count * kind.itemsize:
            raise CellError("the PLY file is damaged or cut off", f"{len(data) - start} bytes for {count} points")
        rows = np.frombuffer(data, kind, count, start)
        columns = [rows[name].astype(np.float64) for name in wanted]
    types = dict(vertex)
    bytewise = [types[name] == "u1" and name in _CHANNELS[1] for name in wanted]
    return np.stack([part / 255 if byte else part for part, byte in zip(columns, bytewise, strict=True)], axis=1)


def _ply_header(data: bytes) -> tuple[str | None, int, list[tuple[str, str]], int]:
    """Return the order of bytes (None for text), how many vertices, name and type of what each has, their start."""
    end = data.find(b"end_header", 0, _HEADER)
    start = data.find(b"\n", end) + 1
    if end < 0 or start == 0:
        raise CellError("this is no PLY file that can be read", "its header has no end")
    form, count = "", -1
    vertex: list[tuple[str, str]] = []
    inside = False
    for line in data[:end].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", form, "1.0"]:
                pass
            case ["element", name, number]:
                if count < 0 and name != "vertex":
                    raise CellError("a PLY file whose vertices come first is expected", shown(name))
                inside = name == "vertex" and count < 0
                count = int(number) if inside and number.isdecimal() and len(number) < _LONGEST else count
            case ["property", type, name] if inside and type in _TYPES and name not in dict(vertex):
                vertex.append((name, _TYPES[type]))
            case ["property", *_] if inside:
                raise CellError("the vertices of a PLY file hold plain numbers, each under its own name", shown(line))
    if count < 0 or form not in (*_ORDERS, "ascii"):
        raise CellError("this is no PLY file that can be read", shown(f"format {form}, {count} vertices"))
    return _ORDERS.get(form), count, vertex, start


def _of_text(data: bytes) -> NDArray[Any]:
    """Read a point a line; a first line of one whole number says how many there are."""
    head, _, rest = data.lstrip().partition(b"\n")
    count = int(head) if head.strip().isdigit() and len(head) < _LONGEST else None
    body = data if count is None else rest
    lines = [line.split() for line in body[:_HEADER].splitlines() if not line.lstrip().startswith(b"#")]
    wide = len(next(filter(None, lines), []))
    _check((max(1, body.count(b"\n")) if count is None else count, wide))
    return _numbers(body, count, wide)


def _numbers(data: bytes, count: int | None, wide: int) -> NDArray[np.float64]:
    """Return numbers between blanks, (lines, wide). count: of the lines that are read, all when left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lines that are blank, which the shape tells too
            table = np.loadtxt(islice(io.BytesIO(data), count), encoding="ascii", ndmin=2)
    except ValueError as error:
        raise CellError(
            "text is read as a point a line, each as many numbers between blanks", str(error)[:80]
        ) from error
    if table.shape[1] != wide or (count is not None and len(table) != count):
        raise CellError("the points are damaged or cut off", f"{len(table)} lines of {table.shape[1]} numbers")
    return table
