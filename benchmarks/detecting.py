"""What a screen sees: damaged rows, rows under attack, and rows by an adversary who knows the screen.

python benchmarks/detecting.py DATA [SET,…]     (avdigits,cloth)

avdigits: image and recording, encoders trained from scratch; images within L∞ 0.1, recordings with noise 30 dB below
them. cloth: text by MiniLM, which rests, and a table; words mistyped, numbers and categories changed; 1,500 rows are
learned from. Screens at a false positive rate of 5 %; 200 rows of the test part, in one run. No share is asked for:
what it must do is to say where it fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pandas as pd

import polyfuse as pf
from measure import about, cost, data_folder

ROWS, RATE = 200, 0.05
Parts = tuple[pd.DataFrame, pd.DataFrame]


def avdigits() -> tuple[str, Parts, dict[str, Any], dict[str, str]]:
    """Return the target, the rows, how a model is fitted, and what an adversary may do."""
    folder = data_folder("avdigits")
    parts = [pd.read_csv(folder / f"{part}.csv")[["image", "audio", "digit"]] for part in ("train", "test")]
    for table in parts:
        for column in ("image", "audio"):
            table[column] = [str(folder / name) for name in table[column]]
    training = {"epochs": 15, "trackers": []}
    return "digit", (parts[0], parts[1]), {"training": training}, {"image": "linf:0.1", "audio": "snr:30"}


def cloth() -> tuple[str, Parts, dict[str, Any], dict[str, str]]:
    """Return the same of clothing reviews."""
    train, test = (pd.read_csv(data_folder("cloth") / f"{part}.csv") for part in ("train", "test"))
    chosen = {"columns": {"Rating": "ignore"}, "training": {"trackers": []}}
    return "Recommended IND", (train[:1500], test), chosen, {"text": "characters", "table": "ranges"}


SETS: dict[str, Callable[[], tuple[str, Parts, dict[str, Any], dict[str, str]]]] = {
    "avdigits": avdigits,
    "cloth": cloth,
}


def main() -> None:
    about()
    for name in sys.argv[2].split(",") if len(sys.argv) > 2 else SETS:
        target, (train, test), chosen, budgets = SETS[name]()
        with cost() as fit:
            predictor = pf.Predictor(target, fusion="concat", augmentation="none", screen={"rate": RATE}, **chosen)
            predictor.fit(train, progress=False)
        print(f"{name}, fitted in {fit.wall:.0f} s, {predictor.evaluate(test)['accuracy']:.4f} right:\n", flush=True)
        print(predictor.detect(test, budgets=budgets, rows=ROWS, progress=False), "\n", flush=True)


if __name__ == "__main__":
    main()
