"""MNIST's 10,000 test images from Parquet, with nothing declared but the target.

python benchmarks/mnist10k.py DATA
"""

from __future__ import annotations

import polyfuse as pf
from measure import about, cost, data_folder, peak_mb, show


def main() -> None:
    folder = data_folder("mnist10k")
    about()
    with cost() as fit:
        predictor = pf.Predictor("label").fit(folder / "train.parquet", progress=False)
    with cost() as test:
        report = predictor.evaluate(folder / "test.parquet")
    interval = report.intervals["accuracy"]
    row = [interval.value, f"{interval.low:.4f} to {interval.high:.4f}", fit.wall, fit.cpu, test.wall, peak_mb()]
    show(["accuracy", "95 %", "fit wall s", "fit CPU s", "test s", "peak MB"], [row])


if __name__ == "__main__":
    main()
