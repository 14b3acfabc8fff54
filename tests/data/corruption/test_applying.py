"""Damaged rows: the same for the same seed, column and row, whatever stands around the row."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from polyfuse.core.errors import InputError
from polyfuse.data.augmentation.table import spread
from polyfuse.data.corruption import CORRUPTIONS, corruptions_for
from polyfuse.data.corruption.applying import corrupted
from polyfuse.data.inference import infer_schema
from polyfuse.data.keypad import keypad
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from wild import cloud, content

ROWS = 30
MODALITIES = {
    "image": "gaussian_noise",
    "audio": "pink_noise",
    "text": "keyboard",
    "points": "point_jitter",
    "table": "number_noise",
}
#: What takes cells of other rows: which rows there are plays a part.
WITH_OTHERS = {"babble", "swapped_cells"}


@pytest.fixture(scope="module")
def rows() -> Rows:
    scans = [None if row % 9 == 4 else cloud(30, 4, 1.0, 0.0, row) for row in range(ROWS)]
    table = read_table(keypad(ROWS).assign(scan=scans))
    return read_rows(table, infer_schema(table, "key"), training=True)


def values(rows: Rows, modality: str) -> list[Any]:
    found = [rows.value(modality, row) for row in range(len(rows))]
    return [None if value is None else [content(cell) for cell in value] for value in found]


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_its_modality_is_changed(rows: Rows, modality: str) -> None:
    before = {name: values(rows, name) for name in MODALITIES}
    after = corrupted(rows, modality, MODALITIES[modality], 5)
    for name in MODALITIES:
        assert values(rows, name) == before[name], "the rows that were given stay"
        changed = [old != new for old, new in zip(before[name], values(after, name), strict=True)]
        assert changed == [after.digest(name, row) != rows.digest(name, row) for row in range(ROWS)]
        assert sum(changed) > 0.7 * ROWS if name == modality else not any(changed)
    assert after.answers == rows.answers
    assert after.index.equals(rows.index)
    assert after.present.equal(rows.present)


def test_only_the_columns_that_are_read_are_changed(rows: Rows) -> None:
    after = corrupted(rows, "table", "wrong_category", 5)
    types = {column.name: column.type for column in rows.schema.of("table")}
    changed = {types[name] for name in types for row in range(ROWS) if after.cell(name, row) != rows.cell(name, row)}
    assert set(types.values()) == {"number", "category"}
    assert changed == {"category"}


@pytest.mark.parametrize("modality", MODALITIES)
def test_missing_cells_stay_missing(rows: Rows, modality: str) -> None:
    for name in corruptions_for(rows.schema.of(modality)):
        damaged = corrupted(rows, modality, name, 5)
        for before, after in zip(values(rows, modality), values(damaged, modality), strict=True):
            if before is None:
                assert after is None
            elif name != "missing_cells":
                assert after is not None
                assert [cell is None for cell in after] == [cell is None for cell in before]


def test_lost_cells_are_missing(rows: Rows) -> None:
    after = corrupted(rows, "table", "missing_cells", 5)
    names = rows.schema.modalities["table"]
    there = [(name, row) for name in names for row in range(ROWS) if rows.cell(name, row) is not None]
    lost = [after.cell(name, row) is None for name, row in there]
    assert np.mean(lost) == pytest.approx(0.5, abs=0.2)
    at = list(rows.schema.modalities).index("table")
    nothing = [all(after.cell(name, row) is None for name in names) for row in range(ROWS)]
    assert after.present[:, at].tolist() == [not none for none in nothing]


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if CORRUPTIONS[name].reads != {"datetime"}])
def test_a_row_is_damaged_alike_in_any_order_and_any_company(rows: Rows, name: str) -> None:
    (modality,) = (
        modality
        for modality in MODALITIES
        if CORRUPTIONS[name].reads & {column.type for column in rows.schema.of(modality)}
    )
    whole = values(corrupted(rows, modality, name, 4, seed=3), modality)
    assert values(corrupted(rows, modality, name, 4, seed=3), modality) == whole
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    if name not in WITH_OTHERS:
        shuffled = corrupted(rows.subset(order), modality, name, 4, seed=3)
        assert values(shuffled, modality) == [whole[row] for row in order]
        few = corrupted(rows.subset(order[:5]), modality, name, 4, seed=3)
        assert values(few, modality) == [whole[row] for row in order[:5]]


@pytest.mark.parametrize("name", ["keyboard", "babble", "swapped_cells"])
def test_a_cell_is_that_of_its_own_generator(rows: Rows, name: str) -> None:
    modality = {"keyboard": "text", "babble": "audio", "swapped_cells": "table"}[name]
    after = corrupted(rows, modality, name, 5, seed=8)
    for column in rows.schema.of(modality):
        corruption = CORRUPTIONS.build(name, {"severity": 5}, column)
        for row in range(ROWS):
            cell = rows.cell(column.name, row)
            random = np.random.default_rng((8, zlib.crc32(name.encode()), zlib.crc32(column.name.encode()), row))
            if cell is not None:
                found = corruption(cell, random, lambda: rows.cell(column.name, random.integers(ROWS)))  # noqa: B023
                assert content(after.cell(column.name, row)) == content(found)


def test_others_are_of_the_same_rows(rows: Rows) -> None:
    part = rows.subset(range(4))
    after = corrupted(part, "table", "swapped_cells", 5)
    for name in rows.schema.modalities["table"]:
        assert {after.cell(name, row) for row in range(4)} <= {part.cell(name, row) for row in range(4)}


def test_seeds_rows_and_columns_are_not_damaged_in_step(rows: Rows) -> None:
    first = corrupted(rows, "table", "number_noise", 5)
    second = corrupted(rows, "table", "number_noise", 5, seed=1)
    numbers = [column for column in rows.schema.of("table") if column.type == "number"]
    added = [
        round((damaged.cell(column.name, row) - rows.cell(column.name, row)) / spread(column.quantiles), 6)
        for damaged in (first, second)
        for column in numbers
        for row in range(ROWS)
        if rows.cell(column.name, row) is not None
    ]
    assert len(numbers) == 2
    assert len(set(added)) == len(added)


@pytest.mark.parametrize(
    ("modality", "name", "severity", "told"),
    [
        ("image", "fogg", 3, "corruptions: there is no 'fogg'; did you mean 'fog'?"),
        ("images", "fog", 3, "corruptions: there is no modality 'images'; did you mean 'image'?"),
        ("image", "fog", 6, r"FogCorruption.severity: 6 given: a severity is a whole number from 1, .*; choose one of"),
        ("text", "fog", 3, r"'fog' reads image, and the columns here are note \(text\); choose from casing, keyboard"),
    ],
)
def test_errors_tell_what_to_do(rows: Rows, modality: str, name: str, severity: int, told: str) -> None:
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        corrupted(rows, modality, name, severity)
