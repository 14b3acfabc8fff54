"""Images and recordings: every kind of cell, every mode, and nothing that is too large, cut off, or elsewhere."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyfuse.data import media as module
from polyfuse.data.cells import CellError
from polyfuse.data.images import decode_images, image_size
from polyfuse.data.media import MediaFolder, audio_size, content, decode_audio, load, resample

HERE = MediaFolder(Path())


def images(cell: Any, folder: MediaFolder = HERE) -> list[Image.Image]:
    return decode_images(load(cell, "image", folder))


def pixel(cell: Any) -> tuple[int, ...]:
    found = images(cell)[0]
    assert found.mode == "RGB"
    return found.getpixel((0, 0))  # type: ignore[return-value]


def sound(cell: Any, folder: MediaFolder = HERE) -> module.Sound:
    return decode_audio(load(cell, "audio", folder))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def recorded(samples: Any, rate: int = 8000, format: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def tone(seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


RED = Image.new("RGB", (6, 4), (255, 0, 0))
CELLS = {
    "bytes": encoded(RED),
    "struct": {"bytes": encoded(RED), "path": None},
    "pil": RED,
    "array": np.asarray(RED),
    "floats": np.asarray(RED) / 255,
}


@pytest.mark.parametrize("kind", CELLS)
def test_every_kind_of_image_cell(kind: str) -> None:
    assert pixel(CELLS[kind]) == (255, 0, 0)
    assert images([CELLS[kind], None, CELLS[kind]])[1].size == (6, 4)


def test_a_path_its_bytes_and_its_struct_are_one_content(tmp_path: Path) -> None:
    data = encoded(RED)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(data)
    folder = MediaFolder(tmp_path)
    cells = [
        "a.png",
        Path("b.png"),
        str(tmp_path / "a.png"),
        data,
        {"bytes": data, "path": "x"},
        {"path": "a.png"},
        ["b.png"],
    ]
    assert len({content(load(cell, "image", folder)) for cell in cells}) == 1
    before = content(load("a.png", "image", folder))
    (tmp_path / "a.png").write_bytes(encoded(RED.rotate(90, expand=True)))
    assert content(load("a.png", "image", folder)) != before


def test_different_content_has_different_digests() -> None:
    cells: list[Any] = [RED, RED.convert("L"), RED.resize((4, 6)), np.asarray(RED), np.asarray(RED) / 255, encoded(RED)]
    cells += [[RED, RED], np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int8), np.zeros((1, 4), np.uint8)]
    assert len({content(load(cell, "image", HERE)) for cell in cells}) == len(cells)
    turned = RED.copy()
    turned.getexif()[0x0112] = 6
    assert content(load(turned, "image", HERE)) != content(load(RED, "image", HERE))
    recordings = [(np.zeros(4, np.float32), 8000), (np.zeros(4, np.float32), 8001), (np.zeros(5, np.float32), 8000)]
    assert len({content(load(cell, "audio", HERE)) for cell in recordings}) == 3


def test_modes_become_rgb() -> None:
    assert pixel(Image.new("L", (2, 2), 100)) == (100, 100, 100)
    assert pixel(Image.new("1", (2, 2), 1)) == (255, 255, 255)
    assert pixel(Image.new("RGBA", (2, 2), (255, 0, 0, 0))) == (255, 255, 255)
    assert pixel(Image.new("LA", (2, 2), (0, 255))) == (0, 0, 0)
    assert pixel(RED.convert("P")) == (255, 0, 0)
    assert pixel(RED.convert("CMYK")) == (255, 0, 0)
    assert pixel(encoded(RED.convert("CMYK"), "TIFF")) == (255, 0, 0)
    assert pixel(encoded(Image.new("P", (2, 2)), transparency=0)) == (255, 255, 255)
    assert pixel(Image.new("F", (2, 2), 0.5)) == (128, 128, 128)


@pytest.mark.parametrize("byteorder", ["<u2", ">u2"])
def test_deep_grey_is_scaled_not_clipped(byteorder: str) -> None:
    deep = np.asarray([[32768, 65535], [0, 128]], dtype=byteorder)
    found = np.asarray(images(deep)[0])[..., 0]
    assert found.tolist() == [[128, 255], [0, 0]]
    png = encoded(Image.fromarray(deep.astype("<u2")))
    assert np.asarray(images(png)[0])[..., 0].tolist() == found.tolist()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert images(encoded(RED, "JPEG", exif=exif))[0].size == (4, 6)


def test_the_users_image_is_not_shared() -> None:
    mine = RED.copy()
    found = images(mine)[0]
    mine.putpixel((0, 0), (0, 0, 0))
    assert found.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(10_000, 10_000), (8_000, 7_000), (100_000, 100_000)])
def test_bombs_are_refused_before_decoding(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(CellError, match="at most 50 megapixels"):
        images(claiming(*size))
    assert limits == Image.MAX_IMAGE_PIXELS


def test_a_real_bomb_is_refused() -> None:
    with pytest.raises(CellError, match="10000 by 10000"):
        images(encoded(Image.new("1", (10_000, 10_000))))
    with pytest.raises(CellError, match="at most 50 megapixels"):
        images(np.broadcast_to(np.uint8(0), (10_000, 10_000)))
    with pytest.raises(CellError, match="at most 64 images"):
        images([RED] * 65)


def test_damaged_images() -> None:
    data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"))
    for broken in (data[: len(data) // 2], encoded(RED, "JPEG")[:300], claiming(40, 40)):
        with pytest.raises(CellError, match=r"damaged|no image"):
            images(broken)
    with pytest.raises(CellError, match="no image that can be read"):
        images(b"hello")
    with pytest.raises(CellError, match="no image that can be read"):
        images(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(CellError, match="the file is empty"):
        images(b"")


@pytest.mark.parametrize(
    "cell", [3, {"a": 1}, np.zeros((2, 2, 7)), np.zeros((2, 2)) - 1, np.full((2, 2), np.nan), object()]
)
def test_what_is_no_image(cell: Any) -> None:
    with pytest.raises(CellError):
        images(cell)


@settings(max_examples=60)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF....WEBP", b"II*\0"]),
)
def test_any_bytes_give_an_image_or_a_clear_error(data: bytes, magic: bytes) -> None:
    with suppress(CellError):
        images(magic + data)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.sampled_from([b"", recorded(tone(0.01))[:60], b"OggS", b"fLaC", b"ID3"]))
def test_any_bytes_give_a_recording_or_a_clear_error(data: bytes, magic: bytes) -> None:
    with suppress(CellError):
        assert np.isfinite(sound(magic + data).samples).all()


def test_paths_may_not_leave_their_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "x.png").write_bytes(encoded(RED))
    (inside / "link.png").symlink_to(outside / "x.png")
    (inside / "linked").symlink_to(outside)
    folder = MediaFolder(inside)
    assert pixel_of("x.png", folder)
    assert pixel_of("../in/x.png", folder)
    assert pixel_of(str(outside / "x.png"), folder)
    for name in ("../out/x.png", "link.png", "linked/x.png", "sub/../../out/x.png", "../missing.png"):
        with pytest.raises(CellError, match=r"leaves the folder .* set media_root"):
            images(name, folder)
    assert pixel_of("out/x.png", MediaFolder(tmp_path))


def pixel_of(name: str, folder: MediaFolder) -> bool:
    return images(name, folder)[0].size == (6, 4)


@pytest.mark.parametrize(
    "name", ["https://x.org/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA", "s3://b/a.png"]
)
def test_urls_are_never_fetched(name: str) -> None:
    with pytest.raises(CellError, match="a URL is never fetched"):
        images(name)


def test_files_that_are_none(tmp_path: Path) -> None:
    folder = MediaFolder(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (
        ("none.png", "there is no such file in"),
        ("pipe.png", "no regular file"),
        (str(tmp_path), "no regular file"),
        ("a\0b.png", "no path"),
        ("x" * 5000, "no path|no such file"),
        ("\ud800.png", "no path|no such file"),
    ):
        with pytest.raises(CellError, match=message):
            images(name, folder)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    (tmp_path / "x.png").write_bytes(b"x" * 101)
    with pytest.raises(CellError, match="at most"):
        images("x.png", MediaFolder(tmp_path))
    with pytest.raises(CellError, match="at most"):
        images(b"x" * 101)


FORMATS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III", "OPUS": "OPUS"}


@pytest.mark.parametrize("format", FORMATS)
def test_every_audio_format(format: str) -> None:
    rate = 16000 if format == "OPUS" else 8000
    samples = tone(1.0, rate)
    data = recorded(samples, rate, "OGG" if format == "OPUS" else format, FORMATS[format])
    found = sound(data)
    assert found.rate == rate
    assert found.samples.dtype == np.float32
    assert abs(len(found.samples) - len(samples)) < 0.1 * rate
    assert np.sqrt((found.samples**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.2)
    assert audio_size(load(data, "audio", HERE))[0] == rate


def test_stereo_becomes_the_mean() -> None:
    stereo = np.stack([tone(), -tone()], axis=1)
    assert np.abs(sound(recorded(stereo)).samples).max() < 1e-3
    for array in (stereo, stereo.T):
        assert np.abs(sound((array, 8000)).samples).max() < 1e-6
    half = sound((np.stack([tone(), 0 * tone()], axis=1), 8000)).samples
    np.testing.assert_allclose(half, tone() / 2, atol=1e-6)


@pytest.mark.parametrize(
    "cell", [(tone(), 8000), [tone().tolist(), 8000], {"array": tone(), "sampling_rate": 8000.0, "path": None}]
)
def test_every_kind_of_audio_cell(cell: Any) -> None:
    found = sound(cell)
    assert found.rate == 8000
    np.testing.assert_allclose(found.samples, tone(), atol=1e-6)


def test_whole_numbers_are_scaled_and_peaks_kept_in_bounds() -> None:
    assert sound((np.asarray([16384, -32768], np.int16), 8000)).samples.tolist() == [0.5, -1.0]
    assert sound((np.asarray([128, 0, 192], np.uint8), 8000)).samples.tolist() == [0.0, -1.0, 0.5]
    assert sound((np.asarray([4.0, -2.0]), 8000)).samples.tolist() == [1.0, -0.5]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_a_recording_that_is_cut_off(format: str, share: float) -> None:
    data = recorded(np.random.default_rng(0).normal(0, 0.1, 16000), 8000, format)
    with pytest.raises(CellError, match=r"cut off|no recording|empty"):
        sound(data[: int(share * len(data))])


def test_a_wav_stream_of_unknown_length_is_read() -> None:
    data = bytearray(recorded(tone()))
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert len(sound(bytes(data)).samples) == len(tone())


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        pytest.param(recorded(np.zeros(0)), "the recording is empty", id="empty file"),
        ((np.zeros(0), 8000), "the recording is empty"),
        # A file of floating point says when it was written: processes that collect the tests would not agree on it.
        pytest.param(recorded(np.asarray([0.0, np.nan]), subtype="FLOAT"), "not finite", id="file of nan"),
        ((np.asarray([0.0, np.inf]), 8000), "not finite"),
        (b"hello", "no recording"),
        (np.zeros(8), "a recording is expected"),
        ((np.zeros(8), 0), "the rate must be"),
        ((np.zeros(8), "fast"), "the rate must be"),
        ((np.zeros((2, 2, 2)), 8000), "samples are expected"),
        ((["a"], 8000), "samples are expected"),
        (7, "a recording is expected"),
        ((np.broadcast_to(np.float32(0), (3601 * 8,)), 8), "at most 3600 s"),
    ],
)
def test_what_is_no_recording(cell: Any, message: str) -> None:
    with pytest.raises(CellError, match=message):
        sound(cell)


def test_a_long_recording_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recorded(np.zeros(3601 * 100, np.float32), 100)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(CellError, match="at most 3600 s"):
        sound(data)


def test_resampling_keeps_a_tone() -> None:
    for to in (4000, 11025, 16000):
        found = resample(tone(1.0), 8000, to)
        assert found.dtype == np.float32
        assert len(found) == to
        spectrum = np.abs(np.fft.rfft(found))
        assert abs(int(spectrum.argmax()) - 440) <= 1
    assert resample(tone(), 8000, 8000) is not None
    np.testing.assert_array_equal(resample(tone(), 8000, 8000), tone())


def test_sizes_come_from_headers() -> None:
    assert image_size(load([RED, encoded(RED), np.zeros((9, 2))], "image", HERE)) == [6, 6, 9]
    assert audio_size(load(recorded(tone()), "audio", HERE)) == (8000, 0.5)
    assert audio_size(load((tone(), 8000), "audio", HERE)) == (8000, 0.5)
