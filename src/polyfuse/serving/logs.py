"""The server's own log: a JSON object on each line of standard error. No body, no key, no address stands in it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

_SHOWN = 200  # characters of a path


class Logs:
    """Writes lines.

    Args:
        stream: where to; standard error, as it is at the time, when None.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream

    def request(
        self, request_id: str, method: str, path: str, status: int, seconds: float, told: Mapping[str, Any]
    ) -> None:
        """Write the line of a request. told: its rows, and how many were computed together."""
        level = "error" if status >= 500 else "info"
        line = {"id": request_id, "method": method[:20], "path": path[:_SHOWN], "status": status}
        self.write(level, "request", **line, ms=round(1000 * seconds, 2), **told)

    def failure(self, request_id: str, error: Exception) -> None:
        """Write what went wrong, and where; of what was sent, nothing."""
        where = [*traceback.format_tb(error.__traceback__), *getattr(error, "__notes__", ())]
        self.write("error", "failure", id=request_id, error=type(error).__name__, trace="".join(where))

    def write(self, level: str, event: str, **about: Any) -> None:
        """Write a line."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "level": level, "event": event, **about, "pid": os.getpid()})
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()


@contextmanager
def libraries_heard(logs: Logs) -> Iterator[None]:
    """Write what libraries log and warn of as lines of the same kind, as long as the block runs."""
    handler = _Forward(logs)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)


class _Forward(logging.Handler):
    """Writes what libraries log."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        trace = {} if record.exc_info is None else {"trace": "".join(traceback.format_tb(record.exc_info[2]))}
        self._logs.write(record.levelname.lower(), "log", logger=record.name, message=record.getMessage(), **trace)
