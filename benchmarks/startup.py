"""Import and help: seconds of a new process, and what a new Python takes alone.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from measure import show

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import polyfuse": [sys.executable, "-c", "import polyfuse"],
    "polyfuse --help": [sys.executable, "-m", "polyfuse", "--help"],
    "polyfuse fit --help": [sys.executable, "-m", "polyfuse", "fit", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    rows = []
    for name, command in COMMANDS.items():
        seconds = []
        for _ in range(8):
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begun)
        rows.append([name, statistics.median(seconds[1:]), max(seconds[1:])])
    show(["command", "median s", "slowest s"], rows)


if __name__ == "__main__":
    main()
