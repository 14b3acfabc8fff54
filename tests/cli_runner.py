"""Runs the command line as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def polyfuse(*arguments: object, cwd: Path, code: int = 0) -> tuple[str, str]:
    """Run a command and return what it printed on both outputs; nothing ever prints a traceback."""
    command = [sys.executable, "-m", "polyfuse", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr
