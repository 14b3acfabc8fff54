"""Point clouds in cells: read as polyfuse does, bounded before anything is read."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from polyfuse_runner.cells import CellError, shown
from polyfuse_runner.media import content

Cloud: TypeAlias = NDArray[np.float32]

MAX_POINTS = 1 << 22
_FEWEST, _WIDEST = 2, 6  # numbers of a point
_HEADER, _LONGEST = 1 << 16, 12  # bytes of a header, digits of a number of points
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_CHANNELS = (("nx", "ny", "nz"), ("red", "green", "blue"))
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def points(cell: Any, size: int, folder: Path) -> Cloud:
    """Return a cloud (points, size).

    Args:
        cell: an array, a list of points, JSON text of one, a path, bytes, a data URI, `{"bytes": …}` (bytes or base64);
            files are NPY, PLY, or a point a line.
        size: numbers of a point.
        folder: where relative paths start from, and what they may not leave.

    Raises:
        CellError: the cell holds something else, or a cloud that is damaged, too large or not finite.
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):  # a path may start so
            cell = json.loads(cell)
    data = content(cell, folder)
    found = _array(cell) if data is None else _file(data)
    _check(found.shape)
    if found.shape[1] != size:
        raise CellError(f"a cloud of {size} numbers a point is expected: one of {found.shape[1]}")
    with np.errstate(over="ignore"):
        cloud: Cloud = np.ascontiguousarray(found, dtype=np.float32)
    if not np.isfinite(cloud).all():
        raise CellError("a point cloud holds numbers that are not finite; leave such points out")
    return cloud


def drawn(cloud: Cloud, most: int) -> Cloud:
    """Return the points with the least hashes, each once and in their order, of a cloud that has more than `most`."""
    if len(cloud) <= most:
        return cloud
    hashes: NDArray[np.uint64] = np.zeros(len(cloud), dtype=np.uint64)
    for bits in (cloud + np.float32(0)).T.copy().view(np.uint32):
        hashes ^= bits
        for shift, factor in zip((30, 27), _MULTIPLIERS, strict=True):
            hashes = (hashes ^ (hashes >> np.uint64(shift))) * factor
        hashes ^= hashes >> np.uint64(31)
    _, first = np.unique(hashes, return_index=True)
    return cloud[np.sort(first[:most])]


def _array(cell: Any) -> NDArray[Any]:
    if not isinstance(cell, list | tuple | np.ndarray):
        raise CellError(f"a point cloud is expected: a path, bytes, an array or a list of points: {shown(cell)}")
    if len(cell) > MAX_POINTS:
        _check((len(cell), _FEWEST))
    if isinstance(cell, np.ndarray) and cell.dtype != object:
        if cell.dtype.kind not in "iuf":
            raise CellError(f"the numbers of a point are expected: {cell.dtype}")
        return cell
    try:
        return np.asarray(list(cell), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CellError(f"a list of points is expected, each as many numbers: {shown(cell)}") from error


def _check(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or not _FEWEST <= shape[1] <= _WIDEST or not 0 < shape[0] <= MAX_POINTS:
        rule = f"1 to {MAX_POINTS:,} points, and {_FEWEST} to {_WIDEST} numbers each"
        raise CellError(f"a point cloud is (points, numbers): {rule}: shape {shape}")


def _file(data: bytes) -> NDArray[Any]:
    if data.startswith(b"\x93NUMPY"):
        return _of_npy(data)
    return _of_ply(data) if data.startswith(b"ply") else _of_text(data)


def _of_npy(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    try:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        shape, _, kind = read(file)
    except Exception as error:  # a damaged header is tokenized, and raises whatever that raises
        raise CellError(f"this is no NPY file that can be read: {len(data)} bytes") from error
    if kind.kind not in "iuf":
        raise CellError(f"an NPY file of numbers is expected: {str(kind)[:60]}")
    _check(shape)
    if len(data) != file.tell() + shape[0] * shape[1] * kind.itemsize:
        raise CellError(f"the NPY file is damaged or cut off: {len(data):,} bytes")
    found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def _of_ply(data: bytes) -> NDArray[Any]:
    """Read the vertices: x, y and z, then nx, ny, nz and red, green, blue where there are some."""
    order, count, vertex, start = _ply_header(data)
    names = [name for name, _ in vertex]
    wanted = ["x", "y", "z", *(name for some in _CHANNELS if set(some) <= set(names) for name in some)][:_WIDEST]
    if not set(wanted) <= set(names):
        raise CellError(f"the vertices of a PLY file have x, y and z: {', '.join(names)}")
    _check((count, len(wanted)))
    if order is None:
        table = _numbers(data[start:], count, len(names))
        columns = [table[:, names.index(name)] for name in wanted]
    else:
        kind = np.dtype([(name, order + type) for name, type in vertex])
        if len(data) - start < count * kind.itemsize:
            raise CellError(f"the PLY file is damaged or cut off: {len(data) - start} bytes for {count} points")
        rows = np.frombuffer(data, kind, count, start)
        columns = [rows[name].astype(np.float64) for name in wanted]
    types = dict(vertex)
    bytewise = [types[name] == "u1" and name in _CHANNELS[1] for name in wanted]
    return np.stack([part / 255 if byte else part for part, byte in zip(columns, bytewise, strict=True)], axis=1)


def _ply_header(data: bytes) -> tuple[str | None, int, list[tuple[str, str]], int]:
    """Return the order of bytes (None for text), how many vertices, name and type of what each has, their start."""
    end = data.find(b"end_header", 0, _HEADER)
    start = data.find(b"\n", end) + 1
    form, count, inside = "", -1, False
    vertex: list[tuple[str, str]] = []
    for line in data[: max(0, end)].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", form, "1.0"]:
                pass
            case ["element", name, number]:
                if count < 0 and name != "vertex":
                    raise CellError(f"a PLY file whose vertices come first is expected: {shown(name)}")
                inside = name == "vertex" and count < 0
                count = int(number) if inside and number.isdecimal() and len(number) < _LONGEST else count
            case ["property", type, name] if inside and type in _TYPES and name not in dict(vertex):
                vertex.append((name, _TYPES[type]))
            case ["property", *_] if inside:
                raise CellError(
                    f"the vertices of a PLY file hold plain numbers, each under its own name: {shown(line)}"
                )
    if end < 0 or start == 0 or count < 0 or form not in (*_ORDERS, "ascii"):
        raise CellError(f"this is no PLY file that can be read: {shown(f'format {form}, {count} vertices')}")
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lines that are blank, which the shape tells too
            table = np.loadtxt(islice(io.BytesIO(data), count), encoding="ascii", ndmin=2)
    except ValueError as error:
        raise CellError(f"text is read as a point a line, each as many numbers: {str(error)[:80]}") from error
    if table.shape[1] != wide or (count is not None and len(table) != count):
        raise CellError(f"the points are damaged or cut off: {len(table)} lines of {table.shape[1]} numbers")
    return table
