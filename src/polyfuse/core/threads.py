"""How many threads compute."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_SWITCH = 0.001  # seconds; Python's own are 0.005
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Return how many cores this process may keep busy: those it may run on, less what a quota withholds."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return count


def wait_briefly() -> None:
    """Let threads of OpenMP that wait for each other give their core away soon, unless the user says how long.

    It holds where torch is loaded afterwards. Beside other work on the machine, a thread that waits keeps the core from
    what it waits for: a small step of training with two threads took up to 39 times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Compute with so many threads, as long as the block runs: in torch and in the libraries under numpy."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as long as the block runs: small work gains nothing from a second.

    Beside other work on the machine, threads that wait for each other at every step were many times slower than one.
    """
    with computing_threads(1):
        yield


@contextmanager
def side_by_side(count: int) -> Iterator[Executor]:
    """Give so many threads that compute with one thread each, and no more in the libraries under them.

    Two small works beside each other take little longer than one, while a second thread for each step gains little.
    """
    import torch
    from threadpoolctl import threadpool_limits

    def begin() -> None:
        # OpenMP counts for each thread apart, the libraries under numpy for all.
        torch.set_num_threads(1)
        threadpool_limits(1)

    before = sys.getswitchinterval()
    # A thread whose product of matrices is done waits for Python as long as another one is in it.
    sys.setswitchinterval(min(before, _SWITCH))
    try:
        with one_thread(), ThreadPoolExecutor(count, initializer=begin) as workers:
            yield workers
    finally:
        sys.setswitchinterval(before)
