"""Training in bf16 beside float32: the same rows and seeds, the metric and the time.

python benchmarks/precision.py DATA [tuned|compared]

`tuned`: MiniLM as a whole on 1,200 rows in two epochs, scored on a fifth of them that is kept aside. `compared`:
fusions that read tokens on the Features of all training rows, scored by five folds. The test part is not touched. Asked
for: the metric within the noise of float32 over three seeds, which is how far the seeds themselves are apart.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd

import polyfuse as pf
from measure import about, cost, data_folder, empty_cache, show

TARGET = "Recommended IND"
SEEDS = (0, 1, 2)
Scored = tuple[dict[str, float], float]


def made(training: dict[str, Any], **settings: Any) -> pf.Predictor:
    training = {**training, "trackers": []}
    return pf.Predictor(TARGET, columns={"Rating": "ignore"}, augmentation="none", training=training, **settings)


def tuned(table: pd.DataFrame, training: dict[str, Any]) -> Scored:
    """Return metrics and seconds of an encoder that is tuned as a whole."""
    train, held = table[:960], table[960:1200]
    predictor = made({"epochs": 2, "batch_size": 32, **training}, fusion="concat", tuning={"text": "full"})
    with cost() as fit:
        predictor.fit(train, progress=False)
    report = predictor.evaluate(held)
    return {name: report[name] for name in ("roc_auc", "log_loss", "accuracy")}, fit.wall


def compared(table: pd.DataFrame, training: dict[str, Any], fusion: str) -> Scored:
    """Return the log loss of a fusion on Features, and the seconds of its folds."""
    predictor = made(training, fusion={"name": "auto", "candidates": [fusion], "seconds": 3600})
    (line,) = predictor.fit(table, progress=False).metrics["comparison"]["candidates"]
    return {"log_loss": line["value"]}, line["seconds"]


def beside(what: str, score: Callable[[dict[str, Any]], Scored]) -> None:
    """Print how far the two precisions are apart."""
    found = {
        precision: [score({"precision": precision, "seed": seed}) for seed in SEEDS]
        for precision in ("float32", "bf16")
    }
    names = list(found["bf16"][0][0])
    lines = [
        [precision, seed, *metrics.values(), seconds]
        for precision, each in found.items()
        for seed, (metrics, seconds) in zip(SEEDS, each, strict=True)
    ]
    print(f"{what}\n")
    show(["precision", "seed", *names, "s"], lines)
    for name in names:
        plain, half = ([metrics[name] for metrics, _ in found[precision]] for precision in ("float32", "bf16"))
        apart, noise = statistics.mean(half) - statistics.mean(plain), statistics.stdev(plain)
        paired = [b - a for a, b in zip(plain, half, strict=True)]
        print(
            f"{name}: bf16 − float32 {apart:+.4f} (by seed {', '.join(f'{d:+.4f}' for d in paired)}); standard"
            f" deviation over seeds in float32 {noise:.4f}: {'within' if abs(apart) <= noise else 'BEYOND'} the noise"
        )
    times = [sum(seconds for _, seconds in found[precision]) for precision in ("float32", "bf16")]
    print(f"bf16 is {times[0] / times[1]:.2f} times as fast\n")


def main() -> None:
    table = pd.read_csv(data_folder("cloth") / "train.csv")
    asked = sys.argv[2:] or ["compared", "tuned"]
    about()
    with empty_cache():
        for fusion in ("attention", "bottleneck") if "compared" in asked else ():
            beside(f"{fusion} on Features", lambda training, fusion=fusion: compared(table, training, fusion))
        if "tuned" in asked:
            beside("MiniLM tuned as a whole", lambda training: tuned(table, training))


if __name__ == "__main__":
    main()
