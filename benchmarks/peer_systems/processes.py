"""Run a process to its end, and measure it with its children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds between two looks at the memory.
LOOK = 0.2


class WorkerError(Exception):
    """A worker did not come to its end; `absent` where its library could not even be imported."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


@dataclass
class Outcome:
    """What a process printed, and what it took.

    Attributes:
        said: its line of JSON.
        begun_at: when it was started, as `time.time()`.
        wall_s: from its start to its end.
        cpu_s: processor seconds, with its children's.
        peak_bytes: the most memory that it and its children had at one time, what they share counted once.
    """

    begun_at: float
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    said: dict[str, Any] = field(default_factory=dict)


def measured(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, folder: Path, limit: float, no_import: int
) -> Outcome:
    """Run a command in a folder.

    Args:
        command: that prints one line of JSON.
        environment: variables of the process, all of them.
        log: what it writes to standard error.
        folder: where it runs.
        limit: seconds after which it is ended.
        no_import: the exit code that means that its library is not there.

    Raises:
        WorkerError: it ended with an error, or was ended at the limit.
    """
    answer = log.with_suffix(".json")
    with log.open("wb") as errors, answer.open("wb") as out:
        outcome = Outcome(begun_at=time.time())
        process = subprocess.Popen(
            command, stdout=out, stderr=errors, env=dict(environment), cwd=folder, start_new_session=True
        )
        try:
            code = _watch(process, outcome, limit)
        finally:
            _end(process)
    if code == no_import:
        raise WorkerError(_last_line(log), absent=True)
    if code != 0:
        reason = f"ended after {limit:.0f} s" if code == -signal.SIGKILL else f"exit code {code}"
        raise WorkerError(f"{reason}: {_last_line(log)} (all of it in {log})")
    outcome.said = json.loads(answer.read_text().splitlines()[-1])
    outcome.peak_bytes = max(outcome.peak_bytes, outcome.said["peak_bytes"])
    return outcome


def _watch(process: subprocess.Popen[bytes], outcome: Outcome, limit: float) -> int:
    """Look at a process until it ends, fill in what it took, and return its exit code."""
    begun = time.perf_counter()
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        outcome.wall_s = time.perf_counter() - begun
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            outcome.cpu_s = used.ru_utime + used.ru_stime
            return process.returncode
        outcome.peak_bytes = max(outcome.peak_bytes, tree_bytes(process.pid))
        if outcome.wall_s > limit:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(LOOK)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if process.returncode is None:
        process.wait()


def tree_bytes(pid: int) -> int:
    """Return the memory of a process and all below it, shared pages shared out; 0 where the system does not tell."""
    tree = _tree(pid)
    if len(tree) < 2:
        return 0  # a process alone tells its own peak, exactly
    return sum(map(_proportional, tree))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was said"
