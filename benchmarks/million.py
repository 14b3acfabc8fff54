"""A table larger than one likes to hold: 1,000,000 rows of text and numbers in Parquet, fitted and predicted.

python benchmarks/million.py [ROWS] [SECONDS]     (1,000,000 rows, a time limit of 240 s for the fit)

Fit and prediction are processes of their own, the product's commands; the most memory that each has had is printed.
Asked for: under 3 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from measure import about, show

GROUP = 100_000
NOUNS = ["coat", "dress", "shirt", "skirt", "boots", "scarf", "jacket", "jeans", "blouse", "sweater", "hat", "gloves"]
GOOD = ["lovely", "soft", "warm", "perfect", "elegant"]
BAD = ["scratchy", "torn", "faded", "flimsy", "crooked"]
OTHER = ["red", "blue", "long", "short", "old", "new", "large", "small", "plain", "striped", "green", "grey", "wide"]


def write(path: Path, rows: int) -> None:
    """Write a table whose answer follows from a word and a number, a group of rows at a time."""
    drawn = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        good = drawn.random(count) < 0.5
        word = np.where(good, drawn.choice(GOOD, count), drawn.choice(BAD, count))
        words = [drawn.choice(OTHER, count), word, drawn.choice(OTHER, count), drawn.choice(NOUNS, count)]
        parts = zip(*words, drawn.integers(100, size=count), strict=True)
        text = [f"the {' '.join(some)} {number}" for *some, number in parts]
        numbers = drawn.normal(size=(3, count))
        answer = (good * 2.0 - 1 + numbers[0] + 0.5 * drawn.normal(size=count) > 0).astype(int)
        columns = {"note": text, "a": numbers[0], "b": numbers[1], "c": numbers[2], "kept": answer}
        table = pa.table(columns)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def run(*arguments: str, cwd: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and the most memory in MB that it had."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "polyfuse", *arguments], cwd=cwd)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"polyfuse {arguments[0]} failed")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    limit = sys.argv[2] if len(sys.argv) > 2 else "240"
    about()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write(here / "rows.parquet", rows)
        size = (here / "rows.parquet").stat().st_size / 1e6
        found = [[f"fit, --time-limit {limit}s", *run(
            "fit", "rows.parquet", "--target", "kept", "--out", "model", "--time-limit", f"{limit}s", cwd=here
        )]]  # fmt: skip
        found.append(["predict", *run("predict", "model", "rows.parquet", "--out", "answers.parquet", cwd=here)])
        answers = parquet.read_table(here / "answers.parquet")
        truth = parquet.read_table(here / "rows.parquet", columns=["kept"])["kept"].to_numpy()
        name = next(column for column in answers.column_names if "kept" in column)
        right = float((answers[name].to_numpy() == truth).mean())
    print(f"{rows:,} rows, {size:.0f} MB; right answers: {right:.4f} of {len(answers):,}\n")
    show(["command", "seconds", "peak MB"], found)


if __name__ == "__main__":
    main()
