"""Bad input, as a hostile user would try it: one clear error or an answer, no traceback, no half artifact."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cli_runner import polyfuse

ROWS = 60


def plain(**columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=ROWS), "y": rng.choice(["a", "b"], ROWS)})
    return frame.assign(**columns)


def csv(frame: pd.DataFrame) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frame.to_csv(folder / "t.csv", index=False)
        return folder / "t.csv"

    return write


def text(content: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / "t.csv"

    return write


def bomb(folder: Path) -> Path:
    """A PNG of a few hundred bytes whose header promises 100 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    png = b"\x89PNG\r\n\x1a\n" + parts
    return files(folder, "png", png)


def files(folder: Path, ending: str, data: bytes | None) -> Path:
    """Two files with the same content, or none, and a table that names each of them in every other row."""
    for name in ("one", "two") if data is not None else ():
        (folder / f"{name}.{ending}").write_bytes(data or b"")
    return csv(plain(media=[f"one.{ending}", f"two.{ending}"] * (ROWS // 2)))(folder)


def truncated_wav(folder: Path) -> Path:
    import soundfile

    soundfile.write(folder / "s.wav", np.zeros(8000, dtype=np.float32), 8000)
    return files(folder, "wav", (folder / "s.wav").read_bytes()[:5000])


def duplicate_columns(folder: Path) -> Path:
    return text("x,x,y\n" + "1,2,a\n2,1,b\n" * 30)(folder)


REFUSED = {
    "broken CSV": (text('x,y\n1,a\n2,"b\n3,c,d\n'), ""),
    "not text": (text(bytes(range(256)) * 20), ""),
    "a directory": (lambda folder: folder, "is a folder"),
    "an empty file": (text(""), "t.csv"),
    "0 rows": (text("x,y\n"), "no rows"),
    "1 row": (text("x,y\n1,a\n"), "row"),
    "a constant target": (csv(plain(y="a")), "nothing to tell apart"),
    "a target of NaN": (csv(plain(y=np.nan)), "y"),
    "nothing but NaN beside the target": (csv(plain(x=np.nan)), "nothing"),
    "10,000 classes": (csv(pd.DataFrame({"x": range(20_000), "y": [f"c{i // 2}" for i in range(20_000)]})), "classes"),
    "infinite numbers": (csv(plain(x=[np.inf, *np.random.default_rng(0).normal(size=ROWS - 1)])), "finite"),
    "duplicate column names": (duplicate_columns, "'x'"),
    "a 100 MP PNG": (bomb, "megapixel"),
    "a truncated WAV": (truncated_wav, "cut off"),
    "a missing image": (lambda folder: files(folder, "png", None), "no such file"),
    "a path that climbs out": (csv(plain(media=["../../a.png", "../b.png"] * (ROWS // 2))), "media_root"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_clear_error(tmp_path: Path, name: str) -> None:
    make, expected = REFUSED[name]
    folder = tmp_path / "in"
    folder.mkdir()
    out, told = polyfuse("fit", make(folder), "--target", "y", "--out", "runs/out", cwd=tmp_path, code=2)
    assert out == ""
    assert told.count("error: ") == 1
    assert expected in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


HANDLED = {
    "a column of NaN": plain(z=np.nan),
    "emoji and NUL in categories": plain(z=["🙂\0", "é\u202e"] * (ROWS // 2)),
    "huge numbers": plain(z=[-1e308, 1e308, 0.5] * (ROWS // 3)),
    "names that are odd": plain().rename(columns={"x": "forward 🙂 | <b>"}),
    "a name that torch uses": plain().rename(columns={"x": "training"}),
}


@pytest.mark.parametrize("name", HANDLED)
def test_handled(tmp_path: Path, name: str) -> None:
    HANDLED[name].to_parquet(tmp_path / "t.parquet")
    polyfuse("fit", "t.parquet", "--target", "y", "--out", "runs/out", "--set", "training.epochs=1", cwd=tmp_path)
    out, _ = polyfuse("predict", "runs/out", "t.parquet", cwd=tmp_path)
    assert len(out.strip().splitlines()) == ROWS + 1


def test_emoji_and_nul_in_text_are_read(tmp_path: Path, tiny_model: Callable[[str], str]) -> None:
    notes = [f"word{i} 🙂\0 {i}" for i in range(ROWS)]
    plain(note=pd.Series(notes, dtype=object)).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    encoder = f"{{name: transformer, checkpoint: {tiny_model('bert')}}}"
    settings = f"modalities={{text: {{columns: [note], encoder: {encoder}}}}}"
    polyfuse("fit", "t.jsonl", "-t", "y", "-o", "out", "-s", settings, "-s", "training.epochs=1", cwd=tmp_path)


def test_a_loop_of_aliases_in_a_recipe(tmp_path: Path) -> None:
    plain().to_csv(tmp_path / "t.csv", index=False)
    for loop in ("target: &a [*a]", "a: &a [x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\ntarget: y"):
        (tmp_path / "r.yaml").write_text(loop)
        _, told = polyfuse("fit", "t.csv", "--recipe", "r.yaml", cwd=tmp_path, code=2)
        assert "alias" in told
