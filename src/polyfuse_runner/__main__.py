"""Answers the rows of a table:  python -m polyfuse_runner FOLDER ROWS [--proba] [--json] [--verify]."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import warnings
from typing import Any

from polyfuse_runner.runner import Runner


def main() -> int:
    """Run the command line. Exit codes: 0 done, 2 the call or its input is wrong."""
    parser = argparse.ArgumentParser("polyfuse_runner", description="Answers the rows of a table, without torch.")
    parser.add_argument("folder", help="what  polyfuse export  wrote")
    parser.add_argument("rows", help="CSV, TSV or JSON Lines")
    parser.add_argument("--proba", action="store_true", help="add the probability of each label")
    parser.add_argument("--json", action="store_true", help="print JSON in place of CSV")
    parser.add_argument("--threads", type=int, help="that the graph is computed with")
    parser.add_argument("--verify", action="store_true", help="compare the hash of every file first")
    given = parser.parse_args()
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        runner = Runner(given.folder, threads=given.threads, verify=given.verify)
        scores = runner.scores(given.rows)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    answers = runner.decode(scores)
    several = len(runner.parts) > 1
    rows: list[dict[str, Any]] = [dict(a) if several else {runner.parts[0].name: a} for a in answers]
    for part in runner.parts if given.proba else ():
        for row, said in zip(rows, scores[:, part.columns].tolist(), strict=True):
            row |= {
                f"p:{part.name + ':' if several else ''}{level}": p for level, p in zip(part.levels, said, strict=False)
            }
    if given.json:
        json.dump({"rows": len(rows), "predictions": rows}, sys.stdout, ensure_ascii=False)
        print()
        return 0
    names = list(rows[0]) if rows else [part.name for part in runner.parts]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for k, v in row.items()} for row in rows
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
