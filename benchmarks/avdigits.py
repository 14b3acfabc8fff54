"""Seen and spoken digits: each modality alone, all of them, each modality taken away; given test and held-out speakers.

python benchmarks/avdigits.py DATA [--fusions NAME …] [--speakers]

Without names, the way to combine is found ("auto"). Held-out speakers take six times as long as the given test.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import pandas as pd

import polyfuse as pf
from measure import about, cost, data_folder, empty_cache, peak_mb, show
from polyfuse.data.reading import Table

ALONE = {"image": {"columns": ["image"]}, "audio": {"columns": ["audio"]}}
Models: TypeAlias = Mapping[str, Mapping[str, object]]


def train(table: Table, settings: Mapping[str, object]) -> pf.Predictor:
    return pf.Predictor("digit", columns={"speaker": "ignore"}, **settings).fit(table, progress=False)


def given_test(models: Models, train_table: Table, test: Table) -> None:
    rows = []
    for name, settings in models.items():
        with cost() as fit:
            predictor = train(train_table, settings)
        report = predictor.evaluate(test)
        interval = report.intervals["accuracy"]
        row: list[object] = [name, interval.value, f"{interval.low:.3f} to {interval.high:.3f}"]
        for modality in ALONE:
            fused = len(predictor.schema.modalities) > 1
            row.append(predictor.evaluate(test, without=[modality])["accuracy"] if fused else "")
        rows.append([*row, fit.wall, fit.cpu])
    print("Given test, 300 rows\n")
    show(["model", "accuracy", "95 %", "without image", "without audio", "fit wall s", "fit CPU s"], rows)


def held_out_speakers(models: Models, table: Table) -> None:
    speakers = sorted(table.frame["speaker"].unique())
    found: dict[str, list[float]] = {name: [] for name in models}
    for speaker in speakers:
        here = table.frame["speaker"] == speaker
        parts = [Table(table.frame[chosen], table.folder, table.name) for chosen in (~here, here)]
        for name, settings in models.items():
            found[name].append(train(parts[0], settings).evaluate(parts[1])["accuracy"])
    print("Trained on five speakers, tested on the sixth: accuracy\n")
    rows = [[name, *values, float(np.mean(values))] for name, values in found.items()]
    show(["model", *speakers, "mean"], rows)


def main() -> None:
    folder = data_folder("avdigits")
    asked = argparse.ArgumentParser()
    asked.add_argument("data")
    asked.add_argument("--fusions", nargs="+", default=["auto"])
    asked.add_argument("--speakers", action="store_true")
    given = asked.parse_args()
    models: Models = {f"{name} alone": {"modalities": {name: ALONE[name]}, "fusion": "concat"} for name in ALONE}
    models = {**models, **{name: {"fusion": name} for name in given.fusions}}
    about()
    tables = [Table(pd.read_csv(folder / f"{part}.csv"), folder, part) for part in ("train", "test")]
    with empty_cache():
        given_test(models, *tables)
        if given.speakers:
            held_out_speakers(models, tables[0])
    print(f"peak memory {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
