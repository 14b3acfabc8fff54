"""The memory of the server: how much it has, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import sys
import threading
from pathlib import Path

_TIDY = 5.0  # seconds after which memory that is free is given back to the system


def resident() -> int:
    """Return the resident memory of this process in bytes; on Linux, with that of the processes it has begun."""
    try:
        return sum(map(_of, [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]))
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
        return most if sys.platform == "darwin" else most * 1024


def keep_tidy(ended: threading.Event) -> None:
    """Give free memory back every few seconds, on a thread of its own, until something has ended."""

    def tidy() -> None:
        while not ended.wait(_TIDY):
            give_back()

    threading.Thread(target=tidy, name="tidy", daemon=True).start()


def give_back() -> None:
    """Give free memory back to the system, where the C library can; a few milliseconds.

    glibc keeps what was freed for the next request: after a few of the largest images that is hundreds of megabytes.
    """
    if _TRIM is not None:
        _TRIM(0)


def _of(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _trim() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library, such as musl
        return None


_TRIM = _trim()
