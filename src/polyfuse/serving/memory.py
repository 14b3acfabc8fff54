"""The memory of this process: how much it has, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
        return most if sys.platform == "darwin" else most * 1024


def give_back() -> None:
    """Give free memory back to the system, where the C library can; a few milliseconds.

    glibc keeps what was freed for the next request: after a few of the largest images that is hundreds of megabytes.
    """
    if _TRIM is not None:
        _TRIM(0)


def _trim() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library, such as musl
        return None


_TRIM = _trim()
