"""A table that says something, beside images that are noise: quality is never below the table alone.

python benchmarks/noise.py [SEEDS]     (3 seeds)

For each seed 600 rows are made to learn from and 1,000 to be measured on: a class that follows from two numbers and a
category, and an image of random pixels. The same table is fitted with and without the images.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

import polyfuse as pf
from measure import about, cost, empty_cache, show
from polyfuse.metrics.bootstrap import paired_difference


def made(rows: int, seed: int) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    a, b = drawn.normal(size=(2, rows))
    group = drawn.choice(["x", "y", "z"], rows)
    score = 1.5 * a - b * (group == "x") + (group == "y") + 0.5 * drawn.normal(size=rows)
    pictures = [drawn.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(rows)]
    return pd.DataFrame({"a": a, "b": b, "group": group, "image": pictures, "y": (score > 0).astype(int)})


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    about()
    lines = []
    for seed in range(seeds):
        train, test = made(600, seed), made(1000, 100 + seed)
        scores, seconds, truth = {}, {}, test["y"].to_numpy()
        for name, settings in {
            "table alone": {"columns": {"image": "ignore"}},
            "with images, fast": {"preset": "fast"},
            "with images": {},
        }.items():
            with empty_cache(), cost() as fit:
                predictor = pf.Predictor("y", training={"seed": seed, "trackers": []}, **settings)
                predictor.fit(train, progress=False)
            scores[name], seconds[name] = predictor.predict_proba(test).to_numpy(), fit.wall
        for name, found in scores.items():
            gain = paired_difference("roc_auc", truth, found, scores["table alone"])
            shown = "" if name == "table alone" else f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
            lines.append([seed, name, float((found.argmax(1) == truth).mean()), shown, seconds[name]])
    show(["seed", "model", "accuracy", "ROC AUC − that of the table alone", "fit wall s"], lines)


if __name__ == "__main__":
    main()
