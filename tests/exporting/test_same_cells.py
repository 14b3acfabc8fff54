"""What the runner reads is what polyfuse reads: both are given the same, wild cells."""

from __future__ import annotations

import ast
import base64
import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import polyfuse_runner
import shapes
from polyfuse.data import cells as ours
from polyfuse.data.images import decode_images
from polyfuse.data.media import MediaFolder, decode_audio, load
from polyfuse.data.media import resample as our_resample
from polyfuse.data.points import decode_points
from polyfuse.data.reading import read_table
from polyfuse.encoders.pointnet import drawn as our_drawn
from polyfuse_runner import RowError, Runner, TableError, cells, clouds, media, tables

WILD = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["1,234", "1,23", "1e400", "-inf", " 7 ", "1_0", "NA", "nan", "2020-02-30", "2020/01/02", "٣", "\ud800"]
    ),
    st.from_regex(r"\A[+-]?\d{1,4}(,\d{3}){0,2}(\.\d{0,2})?\Z"),
    st.datetimes(),
    st.dates(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.decimals(allow_nan=True),
    st.timedeltas(),
    st.lists(st.one_of(st.floats(width=32), st.none()), max_size=3),
    st.binary(max_size=4),
    st.sampled_from([np.float32(3), np.int64(4), np.bool_(True), np.datetime64("2020-01-01"), np.timedelta64(5, "M")]),
)


def outcome(read: Callable[..., Any], *given: Any) -> Any:
    """Return what a reader gives, or that it refuses."""
    try:
        found = read(*given)
    except ValueError:
        return "refused"
    return "nan" if isinstance(found, float) and math.isnan(found) else found


@settings(max_examples=300)
@given(WILD)
def test_cells(cell: Any) -> None:
    assert cells.is_missing(cell) == ours.is_missing(cell)
    for name in ("number", "moment", "category"):
        assert outcome(getattr(cells, name), cell) == outcome(getattr(ours, name), cell), name
    assert outcome(cells.category, cell) == outcome(ours.text, cell)


@pytest.mark.parametrize(
    "cell", ["[1, 2]", "[1", "x", [1, 2], [1, 2, 3], [1, math.inf], (1.5, 1e39), [["a"]], b"ab", None]
)
def test_vectors(cell: Any) -> None:
    found, expected = outcome(cells.embedding, cell, 2), outcome(ours.embedding, cell, 2)
    assert np.array_equal(found, expected)


FIELD = st.one_of(
    st.sampled_from(
        [
            "",
            "NA",
            "None",
            "1",
            "-2",
            "+3",
            "2.50",
            "1e3",
            "007",
            " 4",
            "5 ",
            "inf",
            "True",
            "false",
            "x",
            "1,000",
            "nan",
        ]
    ),
    st.integers(min_value=-(2**65), max_value=2**65).map(str),
    st.text(alphabet='ab" ,\t\né0.', max_size=5),
)


@settings(max_examples=80)
@example([("9223372036854775809", "NA"), ("NA", "-1"), ("", "9223372036854775809")], ".csv")
@example([("18446744073709551617", "9223372036854775809"), ("", "")], ".csv")
@example([("18446744073709551617", "2.50"), ("2.50", "18446744073709551617")], ".csv")
@given(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5), st.sampled_from([".csv", ".tsv"]))
def test_tables_are_read_as_pandas_reads_them(tmp_path_factory: pytest.TempPathFactory, rows: Any, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"wild{ending}"
    pd.DataFrame(rows, columns=["a", "b"]).to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    expected = read_table(path).frame
    found = tables.read_rows(path)
    assert len(found) == len(expected)
    for name in ("a", "b"):
        for row, cell in zip(found, expected[name].tolist(), strict=True):
            assert cells.is_missing(row[name]) == ours.is_missing(cell)
            if not ours.is_missing(cell):
                assert cells.category(row[name]) == ours.category(cell)
                assert outcome(cells.number, row[name]) == outcome(ours.number, cell)


def test_tables_that_are_broken_are_refused(tmp_path: Path) -> None:
    for name, text in {
        "a.csv": "a,b\n1,2,3\n",
        "b.csv": "",
        "c.jsonl": "[1]\n",
        "d.txt": "a\n1\n",
        "e.csv": "a,a\n1,2\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(TableError, match=name):
            tables.read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("rate", "to"), [(8000, 16000), (44100, 16000), (16000, 8000), (11025, 8000), (22050, 48000), (7, 7)]
)
def test_resampling(rate: int, to: int) -> None:
    for length in (1, 2, 50, 1000):
        wave = np.random.default_rng(length).normal(size=length).astype(np.float32)
        found, expected = media.resample(wave, rate, to), our_resample(wave, rate, to)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 2e-6


def image(mode: str) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    if mode in ("I;16", "F"):
        return Image.fromarray(
            noise[..., 0].astype(np.uint16) * 257 if mode == "I;16" else noise[..., 0] / np.float32(255)
        )
    return Image.fromarray(noise, "RGBA").convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "image", "array"])
def test_images(mode: str, form: str, tmp_path: Path) -> None:
    picture: Any = image(mode)
    if form == "array":
        picture = np.asarray(picture)
    elif form != "image":
        data = io.BytesIO()
        try:
            picture.save(data, form)
        except (OSError, ValueError):
            pytest.skip(f"{form} holds no {mode}")
        picture = data.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = outcome(lambda: [np.asarray(one) for one in media.images(picture, tmp_path)])
        expected = outcome(
            lambda: [np.asarray(one) for one in decode_images(load(picture, "image", MediaFolder(tmp_path)))]
        )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("channels", [1, 2])
def test_recordings(form: str, channels: int, tmp_path: Path) -> None:
    import soundfile

    samples = np.random.default_rng(0).uniform(-1, 1, (800, channels))
    soundfile.write(tmp_path / "a", samples, 8000, format=form)
    data = (tmp_path / "a").read_bytes()
    for cell in (
        "a",
        data,
        {"bytes": data, "path": None},
        (samples, 8000),
        (np.int16(samples * 3e4), 8000),
        data[:-400],
        b"RIFF",
    ):
        found = outcome(media.recording, cell, tmp_path)
        expected = outcome(lambda: decode_audio(load(cell, "audio", MediaFolder(tmp_path))))  # noqa: B023
        if expected == "refused":
            assert found == "refused"
        else:
            assert found[1] == expected.rate
            assert np.array_equal(found[0], expected.samples)


CLOUD = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
WIDE = np.concatenate([CLOUD, np.random.default_rng(1).integers(0, 256, (9, 3))], axis=1).astype(np.float32)
CLOUDS: list[Any] = [
    CLOUD,
    CLOUD.tolist(),
    str(CLOUD.tolist()),
    np.array([*map(np.array, CLOUD.tolist()), None], dtype=object)[:-1],
    "a.ply",
    shapes.npy(CLOUD),
    shapes.ply(CLOUD, "x y z"),
    shapes.ply(CLOUD, "x y z", big=True),
    shapes.ply(CLOUD, "x y z", text=True),
    {"bytes": shapes.ply(WIDE, "x y z nx ny nz"), "path": None},
    shapes.ply(WIDE, "x y z red green blue", colours=True),
    shapes.ply(WIDE, "red green blue x y z"),
    shapes.xyz(CLOUD),
    shapes.xyz(CLOUD, counted=True),
    *(
        b"",
        b"hello",
        b"1 2\n",
        b"1 2 3\n4 5",
        b"3\n1 2 3",
        "[1",
        "[[1, 2, 3]]",
        "nowhere.ply",
        "../x.ply",
        3,
        None,
        [],
        [[]],
    ),
    *(
        [1, 2, 3],
        [[1, 2, "x"]],
        [[1, 2, math.nan]],
        [[1, 2, 1e39]],
        [[1, 2, 10**400]],
        [[1, 2, None]],
        [["1", "2", "3"]],
        np.zeros((3, 3), complex),
        np.zeros((1, 9)),
    ),
]


def both(cell: Any, size: int, folder: Path) -> tuple[Any, Any]:
    """Return what the runner reads, and what polyfuse reads."""
    found = outcome(clouds.points, cell, size, folder)
    return found, outcome(lambda: decode_points(load(cell, "points", MediaFolder(folder)), size))


@pytest.mark.parametrize("cell", CLOUDS)
def test_clouds(cell: Any, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(shapes.ply(CLOUD, "x y z"))
    for size in (2, 3, 6):
        found, expected = both(cell, size, tmp_path)
        assert type(found) is type(expected)
        assert np.array_equal(found, expected)


@settings(max_examples=200)
@given(
    st.sampled_from([cell for cell in CLOUDS if isinstance(cell, bytes) and cell]),
    st.integers(0),
    st.binary(max_size=2),
)
def test_clouds_that_are_damaged(whole: bytes, place: int, bytes_: bytes) -> None:
    place %= len(whole)
    found, expected = both(whole[:place] + bytes_ + whole[place + 1 :], 3, Path())
    assert type(found) is type(expected)
    assert np.array_equal(found, expected)


@given(st.integers(1, 300), st.integers(1, 200), st.integers(2, 6))
def test_the_same_points_are_drawn(count: int, most: int, size: int) -> None:
    cloud = np.random.default_rng(count).integers(-3, 3, (count, size)).astype(np.float32)
    assert np.array_equal(clouds.drawn(cloud, most), our_drawn(cloud, most))


@pytest.mark.parametrize(
    "cell", ["http://x/a.png", "../secret.png", "missing.png", "data:image/png;base64,????", "\0", 3, b""]
)
def test_what_is_no_picture_is_refused(cell: Any, tmp_path: Path) -> None:
    (tmp_path.parent / "secret.png").write_bytes(b"x")
    with pytest.raises(cells.CellError):
        media.images(cell, tmp_path)


def test_media_in_json(tmp_path: Path) -> None:
    import soundfile

    png, wav = io.BytesIO(), io.BytesIO()
    image("RGB").save(png, "PNG")
    soundfile.write(wav, np.linspace(-1, 1, 800), 8000, format="WAV")
    for data, kind, read in ((png, "image/png", media.images), (wav, "audio/wav", media.recording)):
        text = base64.b64encode(data.getvalue()).decode()
        expected = outcome(read, data.getvalue(), tmp_path)
        for cell in ({"bytes": text}, {"bytes": text, "path": None}, f"data:{kind};base64,{text}"):
            found = outcome(read, cell, tmp_path)
            assert np.array_equal(np.asarray(found[0]), np.asarray(expected[0]))
        with pytest.raises(cells.CellError, match="base64"):
            read({"bytes": "a.png"}, tmp_path)


def test_the_runner_imports_nothing_but_its_five_packages() -> None:
    known = {"PIL", "numpy", "onnxruntime", "polyfuse_runner", "soundfile", "tokenizers", "torch"}
    import sys

    for path in Path(str(polyfuse_runner.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] in known | sys.stdlib_module_names, f"{path.name} imports {name}"
    assert issubclass(RowError, ValueError)
    assert Runner.__doc__
