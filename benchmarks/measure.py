"""What the benchmarks share: the clock, the memory, the table that they print."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from polyfuse.core.progress import Silent


@dataclass
class Cost:
    """Seconds on the clock and of the processors."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def cost() -> Iterator[Cost]:
    """Measure a block."""
    found = Cost()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield found
    finally:
        found.wall, found.cpu = time.perf_counter() - wall, time.process_time() - cpu


class Stages(Silent):
    """Measures each piece of work of a fit: seconds on the clock by what it is called."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def bar(self, what: str, total: float | None = None) -> Iterator[Silent]:
        """Measure a block."""
        with cost() as found:
            yield self
        self.seconds[what] = self.seconds.get(what, 0.0) + found.wall


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def empty_cache() -> Iterator[Path]:
    """Let Features be kept in a new, empty folder."""
    before = os.environ.get("POLYFUSE_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["POLYFUSE_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["POLYFUSE_CACHE"]
            else:
                os.environ["POLYFUSE_CACHE"] = before


def data_folder(name: str) -> Path:
    """Return the data set's folder below the one named on the command line."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: python {sys.argv[0]} DATA   (the folder that holds {name}/)")
    folder = Path(sys.argv[1]) / name
    if not folder.is_dir():
        sys.exit(f"{folder} is missing")
    return folder


def about() -> None:
    """Print what the figures were measured on."""
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}\n")


def show(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(headings)} |\n|{' --- |' * len(headings)}")
    for row in rows:
        cells = (f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row)
        print(f"| {' | '.join(cells)} |", flush=True)
    print(flush=True)
