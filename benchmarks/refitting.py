"""The old model, a refit, and a fit from nothing on old and new rows: on the keypad table, and on one that has moved.

python benchmarks/refitting.py

Since the old rows were taken, the light has become worse, keys are held longer, and people have learned to press with
another finger. Each way has the same 1,000 old rows and 600 new ones to learn from (a refit holds out a part of both);
all are measured on the same 400 old and 400 new rows, which none has learned from.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import polyfuse as pf
from measure import Cost, cost, empty_cache, show
from polyfuse.data.keypad import keypad_split

OLD, NEW, TEST = 1000, 600, 400
NEXT_FINGER = {"thumb": "index", "index": "middle", "middle": "thumb"}
WAYS: dict[str, dict[str, Any]] = {
    "concat, trained as a whole": {"fusion": "concat"},
    "note and table, found by auto": {
        "modalities": {
            "text": {"columns": ["note"]},
            "table": {"columns": ["pressure", "hold_ms", "finger"], "encoder": {"name": "ft_transformer"}},
        },
        "fusion": {"name": "auto", "folds": 3},
    },
}


def moved(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it would be now."""
    darker = [None if cell is None else (0.3 * cell).astype(np.uint8) for cell in table["image"]]
    return table.assign(
        image=pd.Series(darker, table.index, dtype=object),
        hold_ms=1.6 * table["hold_ms"],
        finger=table["finger"].map(NEXT_FINGER),
    )


def figures(name: str, predictor: pf.Predictor, tests: list[pd.DataFrame], spent: Cost) -> list[Any]:
    found = [predictor.evaluate(test, progress=False) for test in tests]
    return [name, *(report[metric] for report in found for metric in ("log_loss", "accuracy")), spent.wall, spent.cpu]


def main() -> None:
    train, test = keypad_split(OLD + NEW, 2 * TEST, seed=0)
    old, new = train.iloc[:OLD], moved(train.iloc[OLD:])
    tests = [moved(test.iloc[:TEST]), test.iloc[TEST:]]
    headings = ["model", "new: log loss", "accuracy", "old: log loss", "accuracy", "wall s", "CPU s"]
    for name, settings in WAYS.items():
        print(f"\n{name}\n")
        with empty_cache(), tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            with cost() as first:
                pf.Predictor("key", **settings).fit(old, out=run, progress=False)
            before = pf.load(run)
            rows = [figures("old", before, tests, first)]
            for told, replay in (("refit", True), ("refit without replay", False)):
                with cost() as again:
                    found = before.refit(new, replay=replay, progress=False)
                rows.append(figures(told, found.predictor, tests, again))
                print(f"{told}: {found.reason}")
            refitted = rows[1][-1]
        with empty_cache():
            with cost() as whole:
                afresh = pf.Predictor("key", **settings).fit(pd.concat([old, new]), progress=False)
            rows.append(figures("fit on old and new rows", afresh, tests, whole))
        print()
        show(headings, rows)
        print(f"\na refit takes {refitted / whole.cpu:.2f} of the CPU time of a fit on old and new rows")


if __name__ == "__main__":
    main()
