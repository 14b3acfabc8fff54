"""Training in bf16 beside float32: the same rows and seeds, the metric and the time.

python benchmarks/precision.py DATA [ROWS] [EPOCHS]     (1,200 rows, 2 epochs)

MiniLM tuned as a whole on some rows, and fusions that read tokens on the Features of all. A fifth of the rows is kept
aside and scored; the test part is not touched. Asked for: the metric within the noise of float32 over three seeds,
which is how far the seeds themselves are apart.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import pandas as pd

import polyfuse as pf
from measure import about, cost, data_folder, empty_cache, show

TARGET = "Recommended IND"
SEEDS = (0, 1, 2)


def beside(table: pd.DataFrame, settings: dict[str, Any], training: dict[str, Any]) -> None:
    """Fit in both precisions with each seed, and print how far they are apart."""
    train, held = table[: len(table) * 4 // 5], table[len(table) * 4 // 5 :]
    lines, found = [], {}
    for precision in ("float32", "bf16"):
        for seed in SEEDS:
            how = {**training, "precision": precision, "seed": seed, "trackers": []}
            predictor = pf.Predictor(
                TARGET, columns={"Rating": "ignore"}, augmentation="none", training=how, **settings
            )
            with cost() as fit:
                predictor.fit(train, progress=False)
            report = predictor.evaluate(held)
            found.setdefault(precision, []).append((report["roc_auc"], report["log_loss"], fit.wall))
            lines.append([precision, seed, report["roc_auc"], report["log_loss"], report["accuracy"], fit.wall])
    show(["precision", "seed", "ROC AUC", "log loss", "accuracy", "fit wall s"], lines)
    for i, name in enumerate(("ROC AUC", "log loss")):
        plain, half = ([each[i] for each in found[precision]] for precision in ("float32", "bf16"))
        apart = statistics.mean(half) - statistics.mean(plain)
        noise = statistics.stdev(plain)
        paired = [b - a for a, b in zip(plain, half, strict=True)]
        print(
            f"{name}: bf16 − float32 {apart:+.4f} (by seed {', '.join(f'{d:+.4f}' for d in paired)}); standard"
            f" deviation over seeds in float32 {noise:.4f}: {'within' if abs(apart) <= noise else 'BEYOND'} the noise"
        )
    times = [sum(each[2] for each in found[precision]) for precision in ("float32", "bf16")]
    print(f"bf16 is {times[0] / times[1]:.2f} times as fast")


def main() -> None:
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 1200
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    table = pd.read_csv(data_folder("cloth") / "train.csv")
    about()
    with empty_cache():
        pf.Predictor(TARGET, columns={"Rating": "ignore"}, preset="fast").fit(table, progress=False)  # Features once
        for fusion in ("attention", "bottleneck"):
            print(f"{fusion} on Features, {len(table):,} rows\n")
            beside(table, {"fusion": {"name": fusion, "most_tokens": 8}}, {})
    print(f"MiniLM tuned as a whole, {rows:,} rows\n")
    beside(table[:rows], {"fusion": "concat", "tuning": {"text": "full"}}, {"epochs": epochs, "batch_size": 32})


if __name__ == "__main__":
    main()
