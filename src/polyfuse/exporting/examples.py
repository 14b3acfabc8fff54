"""Rows made from a schema, for a model that comes without any."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyfuse.data.schema import Column, Schema

_MISSING = 0.1  # share of the cells that are left empty
_LONGEST = 60  # words of a text
_MOST_POINTS = 2000
_WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "was",
    "for",
    "on",
    "with",
    "as",
    "this",
    "that",
    "not",
    "but",
    "very",
    "good",
    "bad",
    "small",
    "large",
    "light",
    "dark",
    "red",
    "green",
    "blue",
    "new",
    "old",
    "first",
    "last",
    "one",
    "two",
    "three",
    "same",
    "other",
    "never",
    "always",
    "between",
    "before",
    "after",
    "house",
    "water",
    "paper",
    "sound",
    "picture",
]


def example_rows(schema: Schema, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows as a table may hold them: numbers and levels like those of the training rows, noise for the rest."""
    random = np.random.default_rng(seed)
    return [
        {column.name: None if random.random() < _MISSING else example_cell(column, random) for column in schema.columns}
        for _ in range(count)
    ]


def example_cell(column: Column, random: np.random.Generator) -> Any:
    """Return a cell of a column, as a table may hold it."""
    if column.type == "text":
        return " ".join(random.choice(_WORDS, size=int(random.integers(1, _LONGEST))))
    if column.type == "category":
        return str(random.choice(column.levels)) if column.levels else "one"
    if column.type in ("number", "datetime"):
        drawn = float(np.quantile(column.quantiles or [0.0, 1.0], random.random()))
        return float(round(drawn)) if column.whole else drawn
    if column.type == "image":
        side = min(column.size or 64, 512)
        slope = np.linspace(0, 1, side)[:, None, None] * random.random(3)
        return np.uint8(255 * (0.7 * slope + 0.3 * random.random((side, side, 3))))
    if column.type == "audio":
        rate, seconds = column.size or 16_000, (column.duration or 1.0) * random.uniform(0.3, 1.0)
        time = np.arange(max(1, round(rate * min(seconds, 10.0)))) / rate
        tone = np.sin(2 * np.pi * random.uniform(100, rate / 4) * time) + 0.1 * random.normal(size=len(time))
        return (np.float32(0.5 * tone), rate)
    if column.type == "points":
        return random.normal(size=(int(random.integers(1, _MOST_POINTS)), column.size or 3)).astype(np.float32)
    return random.normal(size=column.size or 1).tolist()
