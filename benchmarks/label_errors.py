"""Planted label errors among MNIST's images, found without a model.

python benchmarks/label_errors.py DATA [SEEDS]     (3 seeds)

Of 2,000 rows, and of all 9,000, 50 labels are replaced by another one, drawn at random; `check` is to find them by
cross-validated fast models. What else it finds are wrong accusations, or errors of MNIST itself.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

import polyfuse as pf
from measure import about, cost, data_folder, show

PLANTED = 50


def main() -> None:
    table = pd.read_parquet(data_folder("mnist10k") / "train.parquet")
    about()
    lines = []
    for rows in (2000, len(table)):
        for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
            some = table.sample(rows, random_state=seed).reset_index(drop=True)
            drawn = np.random.default_rng(seed)
            wrong = drawn.choice(rows, PLANTED, replace=False)
            labels = some["label"].to_numpy().copy()
            labels[wrong] = (labels[wrong] + drawn.integers(1, 10, PLANTED)) % 10
            with cost() as spent:
                found = pf.check(some.assign(label=labels), "label", seed=seed, progress=False).labels
            assert found is not None
            hit = len(set(found.positions) & set(wrong.tolist()))
            figures = [hit / max(1, found.count), hit / PLANTED, found.accuracy, spent.wall]
            lines.append([rows, seed, found.count, *figures])
    show(["rows", "seed", "found", "precision", "recall", "accuracy of the models", "s"], lines)


if __name__ == "__main__":
    main()
