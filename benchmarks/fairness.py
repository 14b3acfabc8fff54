"""A planted gap between groups: how far training and thresholds of each group's own close it, and at what cost.

python benchmarks/fairness.py [SEEDS]     (3 seeds)

For each seed 2,000 rows are made to learn from and 4,000 to be measured on. "gapped": a label follows from two numbers,
of one of which one group has more. "spurious": a label that one number tells with noise, and another without, but for
one row in ten, where it tells the contrary. The column of the groups is no input, where not said. Thresholds of each
group's own need that column when they answer; they are chosen on half of the test rows and measured on the other half,
everything else on all of them.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd

import polyfuse as pf
from measure import about, cost, show
from polyfuse.fairness import ColumnFairness, Gap


def gapped(rows: int, seed: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    group = drawn.choice(["f", "m"], rows, p=[0.4, 0.6])
    x, z = drawn.normal(size=rows), drawn.normal(size=rows) + 1.5 * (group == "m")
    score = x + 0.8 * z - 0.6 + 0.7 * drawn.normal(size=rows)
    return pd.DataFrame({"x": x, "z": z, "group": group, "y": np.where(score > 0, "yes", "no")})


def spurious(rows: int, seed: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    label, odd = drawn.integers(0, 2, rows), drawn.random(rows) < 0.1
    x = label + 0.5 * drawn.normal(size=rows)
    z = np.where(odd, 1 - label, label) + 0.2 * drawn.normal(size=rows)
    group = np.where(odd, "odd", "usual")
    return pd.DataFrame({"x": x, "z": z, "group": group, "y": np.where(label == 1, "yes", "no")})


def compared(
    train: pd.DataFrame, test: pd.DataFrame, seed: int, *, seen: bool = False, **fairness: Any
) -> tuple[ColumnFairness, float]:
    """Fit a model, and return how it answers the groups of the test rows, and the seconds of the fit.

    Args:
        train: rows to learn from.
        test: rows to be measured on.
        seed: of the training.
        seen: whether the groups' column is an input.
        fairness: what training is to be fair in; nothing when left out.
    """
    inputs = {"table": {"columns": ["x", "z", *(["group"] if seen else [])]}}
    asked = {"modalities": inputs, "fairness": {"column": "group", **fairness} if fairness else None}
    training = {"epochs": 15, "seed": seed, "trackers": []}
    predictor = pf.Predictor("y", fusion="concat", training=training, **asked)
    with cost() as fit:
        predictor.fit(train, progress=False)
    return predictor.fairness(test, ["group"], seed=seed, progress=False).columns[0], fit.wall


def line(seed: int, name: str, found: ColumnFairness, seconds: float) -> list[Any]:
    gaps = [text(found.demographic_parity), text(found.equalized_odds)]
    return [seed, name, str(found.overall["accuracy"]), *gaps, f"{found.worst_value} {found.worst}", seconds]


def text(gap: Gap | None) -> str:
    return str(gap.difference) if gap is not None else "-"


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    about()
    for made, ways in (
        (gapped, [("demographic_parity", (1, 10)), ("equalized_odds", (10,))]),
        (spurious, [("worst_group", (0.01, 0.1, 1))]),
    ):
        print(f"\n{made.__name__}\n")
        lines = []
        for seed in range(seeds):
            train, test = made(2000, seed), made(4000, 100 + seed)
            plain, seconds = compared(train, test, seed)
            lines.append(line(seed, "plain", plain, seconds))
            for moved in plain.thresholds:
                narrowed = [text(moved.after) if moved.criterion == name else "" for name in PENALTIES]
                name, accuracy = f"thresholds, {moved.criterion}", moved.accuracy_after
                lines.append([seed, name, str(accuracy), *narrowed, "", 0.0])
            for criterion, weights in ways:
                for weight in weights:
                    found, seconds = compared(train, test, seed, criterion=criterion, weight=weight)
                    lines.append(line(seed, f"{criterion}, weight {weight}", found, seconds))
            if made is gapped:
                how = {"criterion": "demographic_parity", "weight": 10}
                found, seconds = compared(train, test, seed, seen=True, **how)
                lines.append(line(seed, "demographic_parity, weight 10, the column an input", found, seconds))
        show(["seed", "way", "accuracy", "parity difference", "odds difference", "worst group", "fit wall s"], lines)


PENALTIES = ("demographic_parity", "equalized_odds")

if __name__ == "__main__":
    main()
