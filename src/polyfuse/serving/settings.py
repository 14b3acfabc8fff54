"""How a server behaves."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyfuse.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_VARIABLE = "POLYFUSE_API_KEY"
_SHORTEST_KEY = 16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server behaves; every worker has the same.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        workers: that take requests, each with a model of its own, which computes in a process beside it.
        threads: that compute, of each worker; the cores shared among the workers, when None.
        window_ms: how long a batch that is not full waits for rows of others, in milliseconds; only where the batch
            before it was of several requests.
        batch: rows computed together.
        queue: rows that may wait to be computed; beyond, a request is told to come again.
        deadline: seconds in which a request is answered or told that it took too long.
        max_body: bytes of a request's body.
        max_pixels: of one image.
        max_seconds: of one recording.
        max_points: of one cloud.
        max_letters: of one text.
        max_rows: of one request.
        memory: bytes that decoded media of all requests under way may take.
        keys: any of which opens the door; nobody is asked for one when empty.
        rate: requests a second that a client may go on with; no limit when None.
        burst: requests that a client may make at once.
        proxies: addresses whose word is taken on who the client is.
        page: whether there is a page at /; where gradio is installed, when None.
        log: folder where requests and answers are kept; nowhere when None.
        log_size: bytes that they may take.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int | None = None
    window_ms: float = 2.0
    batch: int = 32
    queue: int = 512
    deadline: float = 30.0
    max_body: int = 32 << 20
    max_pixels: int = 25_000_000
    max_seconds: float = 300.0
    max_points: int = 1_000_000
    max_letters: int = 100_000
    max_rows: int = 256
    memory: int = 1 << 30
    keys: tuple[str, ...] = ()
    rate: float | None = None
    burst: int = 20
    proxies: tuple[str, ...] = ()
    page: bool | None = None
    log: Path | None = None
    log_size: int = 1 << 30

    def __post_init__(self) -> None:
        least = {
            "workers": 1,
            "threads": 1,
            "window_ms": 0,
            "batch": 1,
            "queue": 1,
            "deadline": 0.001,
            "max_body": 1024,
            "max_pixels": 1,
            "max_seconds": 0.001,
            "max_points": 1,
            "max_letters": 1,
            "max_rows": 1,
            "memory": 1 << 20,
            "burst": 1,
            "rate": 0.001,
            "log_size": 1 << 20,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not bound <= value < float("inf"):
                raise InputError(f"{name} = {value}: give a number of at least {bound}")
        if not 0 <= self.port < 1 << 16:
            raise InputError(f"port = {self.port}: ports are 0 to 65535")
        if self.max_rows > self.queue:
            raise InputError(
                f"max_rows = {self.max_rows}: the queue holds {self.queue} rows, and a request must fit in"
            )
        if any(len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() for key in self.keys):
            raise InputError(
                f"a key has at least {_SHORTEST_KEY} printable ASCII characters; make one with  openssl rand -hex 24"
            )

    def compute_threads(self) -> int:
        """Return how many threads of a worker compute: all workers together have no more than there are cores."""
        from polyfuse.core.threads import cores

        return self.threads if self.threads is not None else max(1, cores() // self.workers)


def with_keys(settings: Settings, file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings with the keys of a file, one on each line, and of the variable POLYFUSE_API_KEY.

    Raises:
        InputError: the file cannot be read or holds no key.
    """
    keys = [environment[KEY_VARIABLE].strip()] if environment.get(KEY_VARIABLE, "").strip() else []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the key file {file} cannot be read: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise InputError(f"the key file {file} holds no key; write one on each line")
        keys += found
    return replace(settings, keys=tuple(keys))
