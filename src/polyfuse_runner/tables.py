"""Rows of a file, read as pandas reads them: what a cell holds depends on its whole column."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_MISSING = frozenset(
    [
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")
_DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|inf|infinity)\s*", re.I)
_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_LARGEST = 1 << 63


class TableError(ValueError):
    """A file holds no table that can be read."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV, TSV or JSON Lines file, a dict each.

    Raises:
        TableError: it is none, or broken.
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".jsonl", ".ndjson", ".json"):
        raise TableError(f"{path}: give .csv, .tsv or .jsonl")
    try:
        if ending in (".csv", ".tsv"):
            return _read_csv(path, "\t" if ending == ".tsv" else ",")
        text = path.read_text(encoding="utf-8-sig")
        whole = ending == ".json" and text.lstrip().startswith("[")
        rows = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, RecursionError, csv.Error, json.JSONDecodeError) as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise TableError(f'{path}: every row is an object, e.g. {{"age": 3}}')
    return rows


def _read_csv(path: Path, separator: str) -> list[dict[str, Any]]:
    csv.field_size_limit(1 << 28)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter=separator) if line and not _blank(line)]
    if not lines:
        raise TableError(f"{path} is empty; a table has a first line with the names of its columns")
    names = [name or f"Unnamed: {i}" for i, name in enumerate(lines[0])]
    if len(set(names)) < len(names):
        raise TableError(f"{path}: names of columns occur more than once")
    for number, line in enumerate(lines[1:]):
        if len(line) > len(names):
            raise TableError(f"{path} is broken: row {number} has {len(line)} fields, and line 1 names {len(names)}")
    columns = [_typed([line[i] if i < len(line) else "" for line in lines[1:]]) for i in range(len(names))]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _blank(line: Sequence[str]) -> bool:
    return len(line) == 1 and bool(line[0]) and not line[0].strip(" \t")


def _typed(cells: Sequence[str]) -> list[Any]:
    """Return cells as what all of them are: whole numbers, numbers, truth values, or text; None where missing."""
    found = [cell for cell in cells if cell not in _MISSING]
    read: Callable[[str], Any] = str
    if found and all(_WHOLE.fullmatch(cell) for cell in found):
        numbers = [int(cell) for cell in found]
        low, high = min(numbers), max(numbers)
        inside = low >= -_LARGEST and high < _LARGEST
        # Beside missing ones whole numbers are decimals, but for those that 64 bits with a sign do not hold.
        read = float if inside and len(found) < len(cells) else int
    elif found and all(_DECIMAL.fullmatch(cell) for cell in found):
        # Where one that 64 bits do not hold comes before the first decimal, pandas takes all for text.
        before = itertools.takewhile(_WHOLE.fullmatch, found)
        read = str if any(int(cell) >= 2 * _LARGEST for cell in before) else float
    elif found and all(cell in _TRUTH for cell in found):
        read = _TRUTH.__getitem__
    return [None if cell in _MISSING else read(cell) for cell in cells]
