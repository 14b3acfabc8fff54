"""False alarms and power of the drift test, and whether accuracy is foretold: by simulation.

python benchmarks/drift.py [SECTION …]     (fits, pool, power, accuracy; all of them when left out)

fits: many small models, each fitted anew on rows of its own, its own kept reference beside new rows: what a user does.
pool: one model on the keypad table (a note read by a frozen encoder, an image and a tone by trained ones, a few
figures); samples are drawn from rows that it has not learned from. Asked for: at α = 0.05 between 0.03 and 0.07.
power: the same, with something planted in the new rows. accuracy: how often the interval of the accuracy expected
without answers holds the accuracy that the answers show.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

import polyfuse as pf
from measure import about, show
from polyfuse.calibration import places_of
from polyfuse.data.keypad import keypad_split
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.drift import Comparison, Sample, performance, see

ALPHA = 0.05
REPETITIONS = 400
SIZES = ((100, 60), (300, 300), (1000, 500))
QUICK: dict[str, Any] = {"epochs": 3, "trackers": [], "patience": 3}


def mixed(rows: int, random: np.random.Generator, task: str) -> pd.DataFrame:
    """Return numbers (skewed, rounded, missing), categories (few and many) and an answer."""
    hidden = random.normal(size=rows)
    table = pd.DataFrame(
        {
            "plain": random.normal(size=rows) + hidden,
            "skewed": np.exp(random.normal(size=rows) + 0.5 * hidden),
            "rounded": (3 * random.normal(size=rows)).round(),
            "gaps": np.where(random.random(rows) < 0.15, np.nan, random.normal(size=rows)),
            "few": random.choice(list("abcde"), rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
            "many": [f"c{n}" for n in random.zipf(1.5, rows).clip(max=400)],
        }
    )
    number = hidden + random.normal(size=rows)
    return table.assign(y=number if task == "regression" else np.where(number > 0.3, "yes", "no"))


SETTINGS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "one model, trained as a whole": ("classification", 300, 100, {"fusion": "concat", "training": QUICK}),
    "boosting, by folds": ("classification", 200, 200, {"fusion": "boosting"}),
    "linear, by folds": ("classification", 400, 150, {"fusion": "linear"}),
    "linear regression, by folds": ("regression", 300, 300, {"fusion": "linear"}),
}


def fits(repetitions: int = REPETITIONS) -> None:
    """Print the false alarms of models that are fitted anew each time."""
    rows = []
    for name, (task, many, new, settings) in SETTINGS.items():
        chosen = {"data": {"validation_share": 0.4}, "columns": {"many": "category"}, **settings}
        begun, found, size = time.perf_counter(), [], 0
        for repetition in range(repetitions):
            random = np.random.default_rng(repetition)
            predictor = pf.Predictor("y", **chosen).fit(mixed(many, random, task), progress=False)
            report = predictor.drift(mixed(new, random, task), seed=repetition, progress=False)
            found.append(report.found)
            size = report.reference
        rows.append([name, task, size, new, *rate(found), round(time.perf_counter() - begun)])
        print(rows[-1], file=sys.stderr, flush=True)
    print("False alarms, a model fitted anew in each repetition\n")
    show(["model", "task", "reference", "new rows", "repetitions", "false alarms", "95 %", "s"], rows)


def rate(found: list[bool]) -> list[object]:
    """Return how many, their share, and its interval (Wilson 1927)."""
    n, share, z = len(found), float(np.mean(found)), 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return [n, f"{share:.4f}", f"{middle - half:.3f} to {middle + half:.3f}"]


class Keypad:
    """One model, and rows that it has not learned from, to draw from."""

    def __init__(self, rows: int = 3200) -> None:
        train, table = keypad_split(800, rows, seed=11)
        modalities = {
            "image": {"columns": ["image"]},
            "audio": {"columns": ["audio"]},
            "note": {"columns": ["note"]},
            "table": {"columns": ["pressure", "hold_ms", "finger"]},
        }
        training = {"epochs": 8, "trackers": []}
        self.predictor = pf.Predictor("key", modalities=modalities, fusion="concat", training=training)
        begun = time.perf_counter()
        self.predictor.fit(train, progress=False)
        print(f"keypad: fitted in {time.perf_counter() - begun:.0f} s", flush=True)
        half = rows // 2
        self.before, self.after = table.iloc[:half], table.iloc[half:].reset_index(drop=True)
        self.old, self.new = self.seen(self.before), self.seen(self.after)

    def seen(self, table: pd.DataFrame) -> Sample:
        """Look at a table; scores are calibrated."""
        schema, model = self.predictor.schema, self.predictor.model
        rows = read_rows(read_table(table), schema, training=False, answers=True)
        sample = see(model, rows, torch.device("cpu"))
        return sample.scored(self.predictor._meant(sample))

    def found(self, old: Sample, new: Sample, seed: int) -> dict[str, float]:
        """Return the corrected p-values."""
        schema = self.predictor.schema
        comparison = Comparison(old, new, schema, places_of(schema.target), count=499, seed=seed)
        return {shift.title: shift.adjusted for shift in comparison.shifts(ALPHA)}


def taken(sample: Sample, rows: np.ndarray) -> Sample:
    """Return some rows of a sample."""

    def of(some: dict[Any, Any]) -> dict[Any, Any]:
        return {name: values[rows] for name, values in some.items()}

    fields = {name: of(getattr(sample, name)) for name in ("missing", "numbers", "codes", "present", "vectors")}
    return replace(sample, **fields, scores=sample.scores[rows], truth=sample.truth[rows])


def joined(one: Sample, other: Sample) -> Sample:
    """Return the rows of two samples as one."""

    def of(name: str) -> dict[Any, Any]:
        some, more = getattr(one, name), getattr(other, name)
        return {key: np.concatenate([values, more[key]]) for key, values in some.items()}

    fields = {name: of(name) for name in ("missing", "numbers", "codes", "present", "vectors")}
    whole = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("scores", "truth")}
    return replace(one, **fields, **whole)


def pool(keypad: Keypad, repetitions: int = REPETITIONS) -> None:
    """Print the false alarms of samples of rows that the model has not learned from, frozen and trained encoders."""
    every, rows = joined(keypad.old, keypad.new), []
    for n, m in SIZES:
        begun, found = time.perf_counter(), []
        for repetition in range(repetitions):
            drawn = np.random.default_rng(repetition).permutation(len(every))
            old, new = taken(every, drawn[:n]), taken(every, drawn[n : n + m])
            found.append(min(keypad.found(old, new, repetition).values()) <= ALPHA)
        rows.append([n, m, *rate(found), round(time.perf_counter() - begun)])
        print(rows[-1], file=sys.stderr, flush=True)
    print("False alarms, keypad: text, image, audio, numbers and a category\n")
    show(["reference", "new rows", "repetitions", "false alarms", "95 %", "s"], rows)


def planted(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield what is planted, the comparison that should see it, and the table."""
    random = np.random.default_rng(5)
    spread = table["pressure"].std()

    def each(column: str, change: Callable[[Any], Any]) -> pd.DataFrame:
        cells = [None if cell is None else change(cell) for cell in table[column]]
        return table.assign(**{column: pd.Series(cells, table.index, dtype=object)})

    for size in (0.2, 0.4):
        moved = table.assign(pressure=table["pressure"] + size * spread)
        yield f"pressure: mean + {size} standard deviations", "pressure: values", moved
    for share in (0.1, 0.2):
        swapped = (random.random(len(table)) < share) & table["finger"].notna()
        yield (
            f"finger: {share:.0%} become thumb",
            "finger: levels",
            table.assign(finger=table["finger"].mask(swapped, "thumb")),
        )
    for share in (0.05, 0.1):
        gone = random.random(len(table)) < share
        yield f"note: {share:.0%} more are missing", "note: missing", table.assign(note=table["note"].mask(gone, None))
    yield "image: 10 % darker", "image: brightness", each("image", lambda x: (0.9 * x).astype(np.uint8))
    noisy = each("image", lambda x: np.clip(x + random.normal(0, 10, x.shape), 0, 255).astype(np.uint8))
    yield "image: noise of 10 grey levels", "image: detail", noisy
    yield "audio: 3 dB less", "audio: loudness", each("audio", lambda x: (x[0] / np.float32(2**0.5), x[1]))
    words = each("note", lambda text: f"please note that {text}")
    yield "note: three words before it", "note: features", words
    digits = table[table["key"].isin(list("01234"))]
    mixed_in = pd.concat([table.iloc[: len(table) * 3 // 4], digits.iloc[: len(table) // 4]], ignore_index=True)
    yield "answers: a quarter from 0 to 4 alone", "key: truth", mixed_in


def power(keypad: Keypad, repetitions: int = 40) -> None:
    """Print how often planted shifts are found."""
    rows = []
    for name, where, table in planted(keypad.after):
        moved, cells = keypad.seen(table), []
        for n, m in ((300, 100), (1000, 500)):
            found, there = [], []
            for repetition in range(repetitions if n < 1000 else repetitions // 2):
                random = np.random.default_rng(repetition)
                old = taken(keypad.old, random.permutation(len(keypad.old))[:n])
                new = taken(moved, random.permutation(len(moved))[:m])
                p = keypad.found(old, new, repetition)
                found.append(min(p.values()) <= ALPHA)
                there.append(p.get(where, 1.0) <= ALPHA)
            cells += [f"{np.mean(found):.2f}", f"{np.mean(there):.2f}"]
        rows.append([name, where, *cells])
        print(rows[-1], file=sys.stderr, flush=True)
    print("Power at α = 0.05: share of repetitions in which drift is found at all, and where it was planted\n")
    show(["planted", "where", "300 / 100 rows", "there", "1,000 / 500 rows", "there"], rows)


def accuracy(keypad: Keypad, repetitions: int = 200) -> None:
    """Print how often the interval of the accuracy expected without answers holds the one that answers show."""
    schema, rows = keypad.predictor.schema, []
    part, target = places_of(schema.target)[0], schema.target
    gone = keypad.after.assign(image=None)
    loud = np.random.default_rng(0)
    noisy = keypad.after.assign(
        image=pd.Series(
            [
                None if x is None else np.clip(x + loud.normal(0, 60, x.shape), 0, 255).astype(np.uint8)
                for x in keypad.after["image"]
            ],
            dtype=object,
        )
    )
    other = keypad.after.assign(key=keypad.after["key"].where(np.arange(len(keypad.after)) % 4 > 0, "5"))
    cases = {
        "nothing has moved": keypad.new,
        "the image is missing in all rows": keypad.seen(gone),
        "images with noise of 60 grey levels": keypad.seen(noisy),
        "a quarter of the answers are wrong (no covariate shift)": keypad.seen(other),
    }
    for name, moved in cases.items():
        held, expected, measured = [], [], []
        for repetition in range(repetitions):
            random = np.random.default_rng(repetition)
            old = taken(keypad.old, random.permutation(len(keypad.old))[:500])
            new = taken(moved, random.permutation(len(moved))[:300])
            found = performance(part, target, old, new, schema, repetition)
            assert found.expected is not None
            assert found.measured is not None
            held.append(found.expected.low <= found.measured.value <= found.expected.high)
            expected.append(found.expected.value)
            measured.append(found.measured.value)
        rows.append([name, f"{np.mean(expected):.3f}", f"{np.mean(measured):.3f}", f"{np.mean(held):.3f}"])
    print("Accuracy without answers, 500 rows of the reference and 300 new ones: 95 % intervals\n")
    show(["new rows", "expected", "measured", "interval holds it"], rows)


def main() -> None:
    warnings.simplefilter("ignore")
    about()
    wanted = sys.argv[1:] or ["fits", "pool", "power", "accuracy"]
    if "fits" in wanted:
        fits()
    if {"pool", "power", "accuracy"} & set(wanted):
        keypad = Keypad()
        for section in (pool, power, accuracy):
            if section.__name__ in wanted:
                section(keypad)


if __name__ == "__main__":
    main()
