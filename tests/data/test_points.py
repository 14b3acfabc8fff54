"""Point clouds: every kind of cell and file, against files written by hand; nothing that is too large or cut off."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import shapes
from polyfuse.core.errors import DataError
from polyfuse.data import points as module
from polyfuse.data.cells import CellError
from polyfuse.data.inference import infer_schema
from polyfuse.data.kinds import guess_type
from polyfuse.data.media import MediaFolder, content, load
from polyfuse.data.points import Cloud, decode_points
from polyfuse.data.portable import portable_row, portable_table
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows

HERE = MediaFolder(Path())
CLOUD = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
WIDE = np.concatenate([CLOUD, np.random.default_rng(1).integers(0, 256, (9, 3))], axis=1).astype(np.float32)


def cloud(cell: Any, size: int | None = None, folder: MediaFolder = HERE) -> Cloud:
    return decode_points(load(cell, "points", folder), size)


def numpy_file(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "cell",
    [
        CLOUD,
        CLOUD.astype(np.float64),
        np.asfortranarray(CLOUD),
        torch.from_numpy(CLOUD),
        CLOUD.tolist(),
        tuple(map(tuple, CLOUD.tolist())),
        np.array([*map(np.array, CLOUD.tolist()), None], dtype=object)[:-1],
        json.dumps(CLOUD.tolist()),
        shapes.npy(CLOUD),
        numpy_file(np.asfortranarray(CLOUD)),
        shapes.ply(CLOUD, "x y z"),
        shapes.ply(CLOUD, "x y z", big=True),
        shapes.ply(CLOUD, "x y z", text=True),
        bytearray(shapes.ply(CLOUD, "x y z")),
        shapes.ply(WIDE, "x y z a b c"),
        shapes.xyz(CLOUD),
        shapes.xyz(CLOUD, counted=True),
        b"# a comment\n\n" + shapes.xyz(CLOUD),
        {"bytes": shapes.xyz(CLOUD), "path": None},
    ],
)
def test_every_kind_of_cell(cell: Any) -> None:
    found = cloud(cell)
    assert found.dtype == np.float32
    assert np.array_equal(found, CLOUD)


def test_files_by_their_path(tmp_path: Path) -> None:
    for name, data in {
        "a.npy": shapes.npy(CLOUD),
        "b.ply": shapes.ply(CLOUD, "x y z"),
        "c.pts": shapes.xyz(CLOUD),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(cloud(name, folder=MediaFolder(tmp_path)), CLOUD)
        assert np.array_equal(cloud({"bytes": None, "path": name}, folder=MediaFolder(tmp_path)), CLOUD)
        assert content(load(name, "points", MediaFolder(tmp_path))) == content(load(data, "points", HERE))


@pytest.mark.parametrize("text", [False, True])
def test_normals_and_colours_of_a_ply_file(text: bool) -> None:
    assert np.array_equal(cloud(shapes.ply(WIDE, "x y z nx ny nz", text=text)), WIDE)
    coloured = cloud(shapes.ply(WIDE, "x y z red green blue", text=text, colours=True))
    assert np.allclose(coloured, WIDE / np.array([1, 1, 1, 255, 255, 255]))
    assert np.array_equal(cloud(shapes.ply(WIDE, "nx ny nz x y z", text=text)), np.roll(WIDE, 3, axis=1))
    # Colours as decimals stay what they are.
    assert np.array_equal(cloud(shapes.ply(WIDE, "x y z red green blue", text=text)), WIDE)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (5, "a point cloud is expected: a path"),
        ("", "is no regular file|there is no such file"),
        ("nowhere.ply", "there is no such file"),
        ("https://example.org/a.ply", "a URL is never fetched"),
        ([[1.0, 2.0], [1.0]], "a list of points is expected, each as many numbers"),
        ([[1.0, "a"]], "a list of points is expected"),
        ([[1.0, 10**400]], "a list of points is expected"),
        ([[1.0, None]], "not finite"),
        ([1.0, 2.0], r"a point cloud is \(points, numbers\): .*: shape \(2,\)"),
        (np.zeros((4, 1)), r"2 to 6 numbers each: shape \(4, 1\)"),
        (np.zeros((4, 7)), r"2 to 6 numbers each: shape \(4, 7\)"),
        (np.zeros((0, 3)), "at least one point"),
        (np.zeros((3, 3), dtype=complex), "the numbers of a point are expected: complex128"),
        (np.array([[1.0, np.nan]]), "not finite; leave such points out"),
        (np.array([[1.0, 1e300]]), "not finite"),
        (b"", "the file is empty"),
        (b"hello there", "a point a line"),
        (b"1 2 3\n4 5\n", "a point a line"),
        (b"1 2 3 4 5 6 7\n", "2 to 6 numbers each"),
        (b"4\n1 2 3\n4 5 6\n", "the points are damaged or cut off: 2 lines"),
        (shapes.npy(CLOUD)[:-1], "the NPY file is damaged or cut off"),
        (numpy_file(np.zeros((3, 3), dtype=object)), "an NPY file of numbers is expected"),
        (numpy_file(np.zeros((3, 3), dtype=bool)), "an NPY file of numbers is expected"),
        (b"\x93NUMPY\x01\x00\x05\x00{}\n", "no NPY file that can be read"),
        (shapes.ply(CLOUD, "x y z")[:-20], "the PLY file is damaged or cut off"),
        (shapes.ply(CLOUD, "x y z", text=True)[:-60], "damaged or cut off|a point a line"),
        (shapes.ply(CLOUD, "x y w"), "the vertices of a PLY file have x, y and z: x, y, w"),
        (shapes.ply(CLOUD, "x x z"), "plain numbers, each under its own name"),
        (shapes.ply(CLOUD, "x y z").replace(b"vertex 9", b"point 9", 1), "whose vertices come first"),
        (shapes.ply(CLOUD, "x y z").replace(b"1.0", b"9.9", 1), "no PLY file that can be read"),
        (shapes.ply(CLOUD, "x y z").replace(b"end_header", b"", 1), "its header has no end"),
    ],
)
def test_what_is_no_cloud(cell: Any, message: str) -> None:
    with pytest.raises(CellError, match=message):
        cloud(cell)


def test_all_points_of_a_column_have_as_many_numbers() -> None:
    with pytest.raises(CellError, match="a cloud of 4 numbers a point is expected: one of 3"):
        cloud(CLOUD, 4)


def test_too_many_points_are_refused_before_there_is_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POINTS", 8)
    for cell in (CLOUD, CLOUD.tolist(), shapes.npy(CLOUD), shapes.ply(CLOUD, "x y z"), shapes.xyz(CLOUD)):
        with pytest.raises(CellError, match="a cloud may have at most 8 points: 9"):
            cloud(cell)
    monkeypatch.undo()
    huge = shapes.npy(CLOUD).replace(b"(9, 3)", b"(9999999999999, 3)")
    with pytest.raises(CellError, match=r"at most 4,194,304 points: 9,999,999,999,999"):
        cloud(huge)
    with pytest.raises(CellError, match="at most 4,194,304 points: 99,999,999,999"):
        cloud(shapes.ply(CLOUD, "x y z").replace(b"vertex 9", b"vertex 99999999999", 1))


MAGICS = [b"", b"ply\n", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"3\n1 2 3\n", shapes.ply(CLOUD, "x y z")[:150]]


@given(data=st.binary(max_size=300), magic=st.sampled_from(MAGICS))
def test_any_bytes_give_a_cloud_or_a_clear_error(data: bytes, magic: bytes) -> None:
    try:
        found = cloud(magic + data)
    except CellError:
        return
    assert found.ndim == 2
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "whole", [shapes.npy(CLOUD), shapes.ply(CLOUD, "x y z"), shapes.ply(CLOUD, "x y z", text=True)]
)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_byte_that_flipped_gives_a_cloud_or_a_clear_error(whole: bytes, place: int, byte: int) -> None:
    place %= len(whole)
    try:
        found = cloud(whole[:place] + bytes([byte]) + whole[place + 1 :])
    except CellError:
        return
    assert found.ndim == 2
    assert np.isfinite(found).all()


cells = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=12,
)


@given(cell=cells)
def test_any_cell_gives_a_cloud_or_a_clear_error(cell: Any) -> None:
    try:
        found = cloud(cell)
    except CellError:
        return
    assert np.isfinite(found).all()


def test_types_are_inferred() -> None:
    rows = [CLOUD + i for i in range(12)]
    lists = [row.tolist() for row in rows]
    for kind in (rows, lists, [json.dumps(row) for row in lists], [*rows[:-1], None]):
        assert guess_type("cloud", kind).type == "points"
    assert guess_type("cloud", [f"scans/{i}.ply" for i in range(12)]).type == "points"
    assert guess_type("cloud", [{"bytes": None, "path": f"{i}.xyz"} for i in range(12)]).type == "points"
    assert guess_type("cloud", [shapes.npy(row) for row in rows]).type == "points"
    assert guess_type("cloud", [shapes.ply(row, "x y z") for row in rows]).type == "points"
    # What was read otherwise before is read so still.
    assert guess_type("photo", [np.zeros((8, 8), np.float32)] * 12).type == "image"
    assert guess_type("photo", [np.zeros((28, 4), np.uint8)] * 12).type == "image"
    assert guess_type("vector", [[1.0, 2.0, 3.0]] * 12).type == "embedding"
    assert guess_type("vector", ["[1.0, 2.0, 3.0]"] * 12).type == "embedding"
    assert guess_type("many", [[[1.0] * 9, [2.0] * 9]] * 12).type is None


def read(frame: pd.DataFrame) -> Rows:
    table = read_table(frame)
    return read_rows(table, infer_schema(table, "y"), training=False, answers=True)


def test_a_table_of_clouds(tmp_path: Path) -> None:
    frame = pd.DataFrame({"cloud": pd.Series([WIDE + i for i in range(12)], dtype=object), "y": ["a", "b"] * 6})
    frame.loc[3, "cloud"] = None
    rows = read(frame)
    [column] = rows.schema.columns
    assert (column.type, column.size, rows.schema.modalities) == ("points", 6, {"points": ["cloud"]})
    numbers = np.concatenate([cell[:, 3:] for cell in frame["cloud"] if cell is not None])
    assert np.allclose(column.scales, np.sqrt(np.square(numbers, dtype=np.float64).mean(0)))
    assert rows.present[:, 0].tolist() == [row != 3 for row in range(12)]
    # The same as Parquet, as CSV with JSON, and as files that stand for themselves.
    plain = frame.assign(cloud=[None if cell is None else cell.tolist() for cell in frame["cloud"]])
    plain.to_parquet(tmp_path / "rows.parquet")
    texts = plain.assign(cloud=[None if cell is None else json.dumps(cell) for cell in plain["cloud"]])
    texts.to_csv(tmp_path / "rows.csv", index=False)
    moved = portable_table([portable_row(rows, row)[0] for row in range(12)], rows.schema)
    moved.to_parquet(tmp_path / "moved.parquet")
    for name in ("rows.parquet", "rows.csv", "moved.parquet"):
        table = read_table(tmp_path / name)
        again = read_rows(table, infer_schema(table, "y"), training=False, answers=True)
        assert again.schema.columns[0].type == "points"
        for row in range(12):
            known, found = rows.value("points", row), again.value("points", row)
            assert (known is None) == (found is None)
            assert known is None or found is None or np.array_equal(known[0], found[0])


def test_digests_tell_clouds_apart() -> None:
    frame = pd.DataFrame({"cloud": pd.Series([CLOUD, CLOUD.copy(), CLOUD + 1, CLOUD[:5]] * 3, dtype=object)})
    rows = read(frame.assign(y=["a", "b"] * 6))
    digests = [rows.digest("points", row) for row in range(4)]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    six = np.arange(12, dtype=np.float32)
    others = [
        rows.replaced({("cloud", 0): cell}).digest("points", 0) for cell in (six.reshape(6, 2), six.reshape(4, 3))
    ]
    assert others[0] != others[1]
    assert np.array_equal(rows.replaced({("cloud", 0): CLOUD + 2}).loaded("cloud", 0)[0], CLOUD + 2)  # type: ignore[arg-type]


def test_problems_are_reported_with_their_rows() -> None:
    clouds: list[Any] = [CLOUD + i for i in range(12)]
    clouds[2], clouds[5], clouds[7] = CLOUD[:, :2], np.full((3, 3), np.inf), CLOUD[:, :2]
    frame = pd.DataFrame({"cloud": pd.Series(clouds, dtype=object), "y": ["a", "b"] * 6})
    with pytest.raises(DataError) as error:
        read(frame)
    assert "a cloud of 3 numbers a point is expected" in str(error.value)
    assert "not finite" in str(error.value)
