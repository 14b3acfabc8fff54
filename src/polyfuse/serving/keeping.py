"""Hands requests to the request log, behind the answer: nobody waits for a disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from polyfuse.serving.engine import Answered
from polyfuse.serving.journal import Journal
from polyfuse.serving.logs import Logs

_MOST_PENDING = 64 << 20  # bytes of media that wait for the disk


class Keeper:
    """Writes to a request log, on one thread of its own and in the order of the requests.

    Args:
        journal: the log.
        logs: are told of what could not be kept.
    """

    def __init__(self, journal: Journal, logs: Logs) -> None:
        self._journal, self._logs = journal, logs
        self._writer = ThreadPoolExecutor(1, "journal")
        self._lock, self._pending = threading.Lock(), 0

    def keep(self, request_id: str, rows: Sequence[Mapping[str, Any]], answered: Answered) -> None:
        """Keep a request, or say that it is not kept where the disk is too slow."""
        size = 1000 + sum(_size(cell) for row in rows for cell in row.values())
        with self._lock:
            full = self._pending + size > _MOST_PENDING
            if not full:
                self._pending += size
        if full:
            self._logs.write("warning", "not kept", id=request_id, reason="the disk is too slow")
        else:
            self._writer.submit(self._keep, request_id, rows, answered, size)

    async def feedback(self, request_id: str, row: int, truth: Mapping[str, Any]) -> bool:
        """Keep what turned out to be true; return whether the log has the row."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._journal.feedback, request_id, row, truth)

    def close(self) -> None:
        """Write what waits, and end."""
        self._writer.shutdown(wait=True)
        self._journal.close()

    def _keep(self, request_id: str, rows: Sequence[Mapping[str, Any]], answered: Answered, size: int) -> None:
        try:
            self._journal.add(request_id, rows, answered.answers)
        except Exception as error:  # An answer was given; that it could not be kept must not end the thread.
            self._logs.failure(request_id, error)
        finally:
            with self._lock:
                self._pending -= size


def _size(cell: Any) -> int:
    if isinstance(cell, bytes | str):
        return len(cell)
    return sum(map(_size, cell)) if isinstance(cell, list) else 8
