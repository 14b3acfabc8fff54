"""Ten thousand hostile requests over real HTTP: no 5xx, no leak, no file.

python benchmarks/hostile.py RUN [--count 10000] [--seed 0]

Bodies are cut off, huge, of wrong types, nested, lying about their length, bombs that decode to far more than they are,
media with bytes turned over; names are long, unknown, or paths. Asked for: no answer of 500 or above (503 and 504 too),
the server still answers an ordinary row, its memory at rest grows by at most 50 MB after the first tenth, and no file
stands anywhere that was not there before in the folder of the run, the temporary folder and the working directory.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import socket
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import polyfuse as pf
from measure import show
from polyfuse.data.schema import Schema
from polyfuse.serving.cells import tiny_png, tiny_wav
from serving import family, served

_REST = 6.0  # seconds after which the server has given back what is free

Maker = Callable[[random.Random], bytes]


def http(body: bytes, kind: str = "application/json", path: str = "/predict", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return head.encode() + f"Content-Length: {size}\r\n\r\n".encode() + body


def said(value: bytes) -> str:
    return base64.b64encode(value).decode()


def bomb_png(side: int) -> bytes:
    """Return a small file that decodes to side² pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeezed = zlib.compressobj(9)
    lines = b"".join(squeezed.compress(b"\0" * (side + 1)) for _ in range(side)) + squeezed.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def media() -> dict[str, list[bytes]]:
    """Return files that are whole, or nearly so, to be damaged."""
    import soundfile

    images, sounds = [tiny_png()], [tiny_wav()]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        picture.save(buffer, form)
        images.append(buffer.getvalue())
    tone = np.sin(np.arange(8000) / 5).astype(np.float32)
    for form, kind in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("WAV", "FLOAT"), ("MP3", None)):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone, 8000, format=form, subtype=kind)
        sounds.append(buffer.getvalue())
    return {"image": images, "audio": sounds}


class Hostile:
    """Makes requests that are wrong in many ways, for the columns of a schema."""

    def __init__(self, schema: Schema) -> None:
        self.columns = {column.name: column.type for column in schema.columns}
        self.files = media()
        self.bombs = [said(bomb_png(side)) for side in (4_900, 9_000, 20_000)]
        self.long = said(tiny_wav(samples=8000 * 400))
        self.makers: list[Maker] = [
            self.wrong_types, self.cut_off, self.damaged, self.noise, self.bomb, self.paths, self.form, self.deep,
            self.names, self.lying, self.huge, self.numbers, self.many, self.odd_requests,
        ]  # fmt: skip

    def __call__(self, chance: random.Random) -> tuple[bytes, float]:
        """Return a request, and for how many seconds to wait: what says that more is to come may get no answer."""
        maker = chance.choice(self.makers)
        return maker(chance), 0.3 if maker == self.lying else 30.0

    def row(self, chance: random.Random) -> dict[str, Any]:
        cells: dict[str, Any] = {
            "image": said(chance.choice(self.files["image"])), "audio": said(chance.choice(self.files["audio"])),
            "text": "a few words", "category": "index", "number": 0.4, "datetime": "2020-01-01", "embedding": [0.0],
        }  # fmt: skip
        return {name: cells[kind] for name, kind in self.columns.items() if chance.random() < 0.8}

    def one(self, chance: random.Random, kinds: tuple[str, ...] = ()) -> str:
        fitting = [name for name, kind in self.columns.items() if not kinds or kind in kinds]
        return chance.choice(fitting or list(self.columns))

    def wrong_types(self, chance: random.Random) -> bytes:
        wild = [None, True, -1, 1e308, "", " ", "NaN", [], {}, [[]], {"bytes": "x", "path": "/etc/passwd"}, [None] * 99]
        row = {name: chance.choice(wild) for name in self.columns}
        return http(json.dumps(row if chance.random() < 0.7 else chance.choice(wild)).encode())

    def cut_off(self, chance: random.Random) -> bytes:
        body = json.dumps(self.row(chance)).encode()
        return http(body[: chance.randrange(len(body))])

    def damaged(self, chance: random.Random) -> bytes:
        kind = chance.choice(["image", "audio"])
        data = bytearray(chance.choice(self.files[kind]))
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = data[: chance.randrange(1, len(data))]
        return http(json.dumps({**self.row(chance), self.one(chance, (kind,)): said(bytes(data))}).encode())

    def noise(self, chance: random.Random) -> bytes:
        return http(
            chance.randbytes(chance.randrange(2000)), chance.choice(["application/json", "text/html", "", "\u00ff"])
        )

    def bomb(self, chance: random.Random) -> bytes:
        name = self.one(chance, ("image",))
        cell = chance.choice([*self.bombs, self.bombs[1:] * 3, self.long, [self.bombs[0]] * 40])
        return http(json.dumps({name: cell}).encode())

    def paths(self, chance: random.Random) -> bytes:
        wild = [
            "/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "https://example.org/a.png", "a.png", "~",
            "\\\\host\\x", "/dev/zero", "/proc/self/environ", "data:image/png;base64,/etc/passwd", "data:,x",
        ]  # fmt: skip
        return http(json.dumps({self.one(chance, ("image", "audio")): chance.choice(wild)}).encode())

    def form(self, chance: random.Random) -> bytes:
        parts = b""
        for _ in range(chance.randrange(1, 80)):
            name = chance.choice([*self.columns, "../x", 'a"b', "x" * 500]).encode()
            file = chance.choice([b"", b'; filename="../../etc/cron.d/x"', b'; filename="a.png"'])
            data = chance.choice([b"", b"x", b"1e400", chance.choice(self.files["image"]), chance.randbytes(50)])
            parts += (
                b'--b\r\nContent-Disposition: form-data; name="' + name + b'"' + file + b"\r\n\r\n" + data + b"\r\n"
            )
        if chance.random() < 0.7:
            parts += b"--b--\r\n"
        return http(
            parts,
            chance.choice(["multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary="]),
        )

    def deep(self, chance: random.Random) -> bytes:
        depth = chance.choice([10, 1000, 100_000])
        return http(chance.choice([b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth]))

    def names(self, chance: random.Random) -> bytes:
        wild = [
            "x" * 100_000,
            "\u0000",
            "__class__",
            "__proto__",
            "model_config",
            "request_id",
            *(str(i) for i in range(500)),
        ]
        return http(json.dumps(dict.fromkeys(chance.sample(wild, chance.randrange(1, len(wild))), 1)).encode())

    def lying(self, chance: random.Random) -> bytes:
        if chance.random() < 0.5:  # chunked, with broken chunks
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += b"Transfer-Encoding: chunked\r\n\r\n"
            return head + chance.choice(
                [b"ffffffffffffffff\r\n{}", b"2\r\n{}\r\n0\r\n\r\n", b"-1\r\n", b"x\r\n", b"5\r\n{}"]
            )
        return http(b"{}", length=chance.choice([0, 1, 3, 10**12, 10**30, -1]))

    def huge(self, chance: random.Random) -> bytes:
        text = {
            self.one(chance, ("text",)): chance.choice("a\u4e2d\u0300 ") * chance.choice([99_000, 101_000, 900_000])
        }
        return http(json.dumps(text).encode())

    def numbers(self, chance: random.Random) -> bytes:
        wild = [
            "1e999",
            "-1e999",
            "NaN",
            "Infinity",
            "1" * 5000,
            "1e308",
            "-1.7976931348623157e308",
            "5e-324",
            "0x1",
            "1_0",
        ]
        body = ",".join(f"{json.dumps(name)}:{chance.choice(wild)}" for name in self.columns)
        return http(f"{{{body}}}".encode())

    def many(self, chance: random.Random) -> bytes:
        rows = [{}] * chance.choice([0, 1, 256, 257, 100_000])
        path = chance.choice(["/predict/batch", "/predict/batch?level=0.9", "/predict/batch?level=nan", "/explain"])
        return http(json.dumps({"rows": rows}).encode(), path=path)

    def odd_requests(self, chance: random.Random) -> bytes:
        path = chance.choice(
            ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/docs/..", "/feedback", "/\u00e9", "//", "*"]
        )
        method = chance.choice(["GET", "PUT", "TRACE", "OPTIONS", "POST", "X" * 50])
        head = chance.choice(
            [
                "",
                "X-Request-ID: a\tb\r\n",
                "X-API-Key: \u00ff\r\n",
                "Authorization: Basic !!!\r\n",
                "Expect: 100-continue\r\n",
            ]
        )
        return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode("latin-1")


def ask(port: int, request: bytes, patience: float = 30.0) -> int:
    """Return the status of an answer; 0 where the connection was closed without one, 1 where none came."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.settimeout(patience)
        with suppress(OSError):  # it may have been refused before all of it was there
            connection.sendall(request)
        try:
            answer = connection.recv(4096)
        except TimeoutError:
            return 1  # it waits for a body that does not come
        except OSError:
            return 0
        return int(answer.split(b" ", 2)[1]) if answer else 0


def memory(process: int) -> float:
    """Return the resident memory of a process and of those that it has begun in MB, on Linux."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(process))
    return pages * 4096 / 1e6


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


def main() -> None:
    """Attack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, hostile = random.Random(given.seed), Hostile(pf.load(given.run).schema)
    with tempfile.TemporaryDirectory() as own:
        watched = (given.run, Path(own))
        server, port = served(given.run, [], cwd=Path(own), TMPDIR=own)
        before, statuses, at, most = files(*watched), Counter[int](), list[float](), 0.0
        for i in range(given.count):
            statuses[ask(port, *hostile(chance))] += 1
            most = max(most, memory(server.pid))
            if (i + 1) % (given.count // 10) == 0:
                time.sleep(_REST)
                at.append(memory(server.pid))
        ordinary = ask(port, http(json.dumps(hostile.row(chance)).encode()))
        growth, left = at[-1] - at[0], files(*watched) - before
        server.terminate()
        code = server.wait(60)
    show(["status", "requests"], sorted(statuses.items()))
    show(
        ["MB after each tenth", "growth", "most", "files left", "an ordinary row", "exit code"],
        [[" ".join(f"{one:.0f}" for one in at), growth, most, len(left), ordinary, code]],
    )
    if any(status >= 500 for status in statuses) or growth > 50 or left or ordinary != 200 or code:
        sys.exit("the server does not stand it")


if __name__ == "__main__":
    main()
