"""What every system does: fit and save in one process, load and answer in a second, and print one line of JSON.

python -m peer_systems.NAME fit|answer JOB.json
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
import sysconfig
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peer_systems.job import Job

if TYPE_CHECKING:
    import pandas as pd

#: Single rows that are asked, one after the other.
SINGLES = 30


class System(ABC):
    """A library under measurement.

    Attributes:
        distribution: its name where packages are installed.
        notes: what a reader of the figures must know.
    """

    distribution = ""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.notes: list[str] = []

    @abstractmethod
    def bring_in(self) -> None:
        """Import the library: what a user's first lines would import."""

    @abstractmethod
    def fit(self) -> None:
        """Fit on the training rows and save into the folder, with all that an answer needs, the encoder too."""

    @abstractmethod
    def load(self) -> None:
        """Load what was saved."""

    @abstractmethod
    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities, a column for each class; of a regression the numbers, in one column."""

    def further(self, table: pd.DataFrame) -> list[str]:
        """Return what else a reader must know; asked for once everything is measured."""
        return []


def main(kind: type[System]) -> None:
    """Do what the command line says, and print what it took; what libraries print goes to standard error."""
    what, path = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    system = kind(Job.read(Path(path)))
    found = _fit(system) if what == "fit" else _answer(system)
    found |= {"about": _about(system), "notes": system.notes}
    answer.write(json.dumps(found) + "\n")
    answer.close()


def _fit(system: System) -> dict[str, Any]:
    begun = time.perf_counter()
    _import(system)
    imported, cpu = time.perf_counter(), _cpu()
    system.fit()
    took = {"fit_wall_s": time.perf_counter() - imported, "fit_cpu_s": _cpu() - cpu}
    sizes = {"peak_bytes": _peak(), "model_bytes": size(Path(system.job.folder)), "packages": _packages()}
    return {"import_s": imported - begun, **took, **sizes}


def _answer(system: System) -> dict[str, Any]:
    begun = time.perf_counter()
    _import(system)
    imported = time.perf_counter()
    system.load()
    loaded = time.perf_counter()
    table = _questions(system.job)
    asked = time.perf_counter()
    system.scores(table.iloc[[0]])
    answered_at, first = time.time(), time.perf_counter()
    singles = [seconds(system.scores, table.iloc[[row]]) for row in spread(len(table))]
    begun_all = time.perf_counter()
    scores = system.scores(table)
    all_rows = time.perf_counter() - begun_all
    scores.to_csv(system.job.scores, index=False)
    peak = _peak()
    system.notes += system.further(table)
    return {
        "import_s": imported - begun,
        "load_s": loaded - imported,
        "first_s": first - asked,
        "answered_at": answered_at,
        "row_s": statistics.median(singles),
        "slowest_row_s": max(singles),
        "all_rows_s": all_rows,
        "peak_bytes": peak,
    }


def _import(system: System) -> None:
    """Import the library; exit with the code that says that it cannot be, and the reason on standard error."""
    try:
        system.bring_in()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(NO_IMPORT)


#: The exit code of a worker whose library cannot be imported.
NO_IMPORT = 77


def _questions(job: Job) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(job.test).drop(columns=job.target)


def spread(rows: int, most: int = SINGLES) -> Sequence[int]:
    """Return at most so many different rows, without the first, spread over the table."""
    count = min(most, max(1, rows - 1))
    return sorted({rows - 1 - index * rows // count for index in range(count)})


def seconds(ask: Callable[[pd.DataFrame], object], table: pd.DataFrame) -> float:
    """Return how long an answer takes."""
    begun = time.perf_counter()
    ask(table)
    return time.perf_counter() - begun


def _cpu() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _peak() -> int:
    """Return the most memory that this process has had: of this program alone, as Linux tells it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _about(system: System) -> dict[str, Any]:
    """Return versions, and what torch runs on."""
    found = {"version": importlib.metadata.version(system.distribution), "python": platform.python_version()}
    torch = sys.modules.get("torch")
    if torch is None:
        return found
    capability = torch.backends.cpu.get_cpu_capability()
    return {**found, "torch": str(torch.__version__), "threads": torch.get_num_threads(), "capability": capability}


def _packages() -> dict[str, int]:
    """Return how many packages the interpreter has, and what they take on the disk."""
    names = {str(known.metadata["Name"]).lower() for known in importlib.metadata.distributions()}
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    return {"count": len(names), "bytes": sum(size(Path(folder)) for folder in folders)}


def size(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk, links not followed."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        found = path.lstat()
        seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
