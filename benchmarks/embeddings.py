"""A text encoder that is tuned with its embeddings shifted (freelb, vat), beside one that is tuned as it is.

python benchmarks/embeddings.py DATA [ROWS [EPOCHS [SEEDS]]]     (1,000 rows, 3 epochs, 3 seeds)

Clothing reviews, text and table without the rating; MiniLM with LoRA; the first rows of the training part, scored on
the 1,000 after them: the test part is not touched. A difference is that of two fits with one seed; its interval is
Student's over the seeds.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

import polyfuse as pf
from measure import about, cost, data_folder, show

METHODS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "freelb": {"method": "freelb", "steps": 3},
    "vat": {"method": "vat"},
}


def main() -> None:
    rows, epochs, seeds = (int(sys.argv[i]) if len(sys.argv) > i else usual for i, usual in ((2, 1000), (3, 3), (4, 3)))
    table = pd.read_csv(data_folder("cloth") / "train.csv")
    train, held = table[:rows], table[rows : rows + 1000]
    about()
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        for name, adversarial in METHODS.items():
            training = {"epochs": epochs, "seed": seed, "trackers": []}
            chosen: dict[str, Any] = {"fusion": "concat", "augmentation": "none", "tuning": {"text": "lora"}}
            chosen["columns"] = {"Rating": "ignore"}
            with cost() as spent:
                predictor = pf.Predictor("Recommended IND", training=training, adversarial=adversarial, **chosen)
                predictor.fit(train, progress=False)
            found[name].append(predictor.evaluate(held, progress=False)["roc_auc"])
            seconds[name].append(spent.wall)
            print(seed, name, found[name][-1], round(spent.wall), file=sys.stderr, flush=True)
    plain, lines = np.asarray(found["plain"]), []
    for name, values in found.items():
        more = np.asarray(values) - plain
        half = t.ppf(0.975, seeds - 1) * more.std(ddof=1) / seeds**0.5 if seeds > 1 else float("nan")
        ratio = np.median(np.asarray(seconds[name]) / np.asarray(seconds["plain"]))
        lines.append([name, float(np.mean(values)), f"{more.mean():+.4f} ± {half:.4f}", float(ratio)])
    show(["trained", "ROC AUC", "beside plain, 95 %", "times as long"], lines)


if __name__ == "__main__":
    main()
