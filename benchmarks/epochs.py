"""How many epochs fusions need on Features at rest: log loss by five folds of training rows.

python benchmarks/epochs.py DATA [EPOCHS …]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

import polyfuse as pf
from measure import about, data_folder, empty_cache, show
from polyfuse.fusion import FUSIONS
from polyfuse.search.candidates import applying

SMALL = {"wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}


def tables() -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Yield name, table and target."""
    for name, load in SMALL.items():
        table = load(as_frame=True).frame
        yield name, table.assign(target="class " + table["target"].astype(str)), "target"
    yield "cloth", pd.read_csv(data_folder("cloth") / "train.csv").drop(columns="Rating"), "Recommended IND"


def loss(table: pd.DataFrame, target: str, fusion: str, epochs: int) -> float:
    """Return the log loss of one fusion on rows that it has not seen."""
    way = {"name": "auto", "candidates": [fusion], "seconds": 3600}
    predictor = pf.Predictor(target, fusion=way, training={"epochs": epochs})
    found = predictor.fit(table, progress=False).metrics["comparison"]["candidates"]
    return float(found[0]["value"])


def main() -> None:
    data_folder("cloth")
    about()
    tried = [int(given) for given in sys.argv[2:]] or [4, 6, 8]
    rows: list[list[object]] = []
    with empty_cache():
        for name, table, target in tables():
            schema = pf.Predictor(target).plan(table).schema
            fusions = [fusion for fusion in applying(schema) if fusion in FUSIONS]
            found = [[loss(table, target, fusion, epochs) for epochs in tried] for fusion in fusions]
            rows += [[name, len(table), fusion, *line] for fusion, line in zip(fusions, found, strict=True)]
            rows.append([name, len(table), "mean", *np.mean(found, axis=0)])
    show(["table", "rows", "fusion", *[f"{epochs} epochs" for epochs in tried]], rows)


if __name__ == "__main__":
    main()
