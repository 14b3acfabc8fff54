"""Augmented values: the same for the same seed, epoch and row, whatever stands around the row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Tensors
from polyfuse.data.augmentation import build_augmentations, default_augmentations
from polyfuse.data.augmentation.contract import Augmentation
from polyfuse.data.augmentation.source import AugmentedSource
from polyfuse.data.batches import Batches, LazySource, Source
from polyfuse.data.inference import infer_schema
from polyfuse.data.keypad import keypad
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.encoders import ENCODERS

ROWS = 60


class Echo(Encoder):
    """Gives a fingerprint of each value, and the process that prepared it."""

    reads = frozenset({"text", "image", "audio", "number", "category", "datetime", "embedding"})
    dim = 1

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        prints = [[0.0] if value is None else [fingerprint(value)] for value in values]
        return {"value": torch.tensor(prints, dtype=torch.float64), "process": torch.full((len(values),), os.getpid())}

    def forward(self, value: Tensor, process: Tensor) -> Features:
        return Features.of_pooled(value)


def fingerprint(value: tuple[Any, ...]) -> float:
    total = 0.0
    for cell in value:
        if isinstance(cell, list):
            total += sum(float(np.asarray(image, dtype=np.float64).sum()) for image in cell)
        elif cell is not None:
            total += float(hash(cell) % 1e6) if isinstance(cell, str) else float(np.sum(getattr(cell, "samples", cell)))
    return total


@pytest.fixture(scope="module")
def rows() -> Rows:
    table = read_table(keypad(ROWS))
    return read_rows(table, infer_schema(table, "key"), training=True)


def source(rows: Rows, modality: str, encoder: Encoder | None = None, **options: Any) -> AugmentedSource:
    columns = rows.schema.of(modality)
    built = build_augmentations(default_augmentations(columns, "classification"), columns)
    return AugmentedSource(encoder or Echo(), rows, modality, built, **options)


MODALITIES = ["image", "audio", "text", "table"]


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_row_is_the_same_in_any_order_and_any_company(rows: Rows, modality: str) -> None:
    here: Source = source(rows, modality)
    whole = here.batch(range(ROWS))["value"]  # type: ignore[index]
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    assert torch.equal(here.batch(order)["value"], whole[order])  # type: ignore[index]
    alone = torch.cat([here.batch([row])["value"] for row in order])  # type: ignore[index]
    assert torch.equal(alone, whole[order])
    assert torch.equal(source(rows, modality).batch(range(ROWS))["value"], whole)


@pytest.mark.parametrize("modality", MODALITIES)
def test_another_epoch_or_seed_is_another_draw(rows: Rows, modality: str) -> None:
    plain = LazySource(Echo(), rows, modality).batch(range(ROWS))["value"]
    first = source(rows, modality)
    draws = [first.batch(range(ROWS))["value"]]
    for epoch in (1, 2):
        first.set_epoch(epoch)
        draws.append(first.batch(range(ROWS))["value"])
    draws.append(source(rows, modality, seed=1).batch(range(ROWS))["value"])
    for i, one in enumerate([plain, *draws]):
        for other in [plain, *draws][:i]:
            assert (one != other).double().mean() > 0.3
    first.set_epoch(0)
    assert torch.equal(first.batch(range(ROWS))["value"], draws[0])


def test_modalities_are_not_changed_in_step() -> None:
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0), "y": ["no", "yes"] * 20})
    schema = infer_schema(read_table(frame), "y", modalities={"one": ["a"], "two": ["b"]})
    rows = read_rows(read_table(frame), schema, training=True)
    one, two = source(rows, "one").batch(range(40))["value"], source(rows, "two").batch(range(40))["value"]
    assert (one != two).double().mean() > 0.9


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_missing_stays_missing_and_nothing_else_goes(rows: Rows, modality: str) -> None:
    here = source(rows, modality)
    for row in range(ROWS):
        before, after = rows.value(modality, row), here.value(row)
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert [cell is None for cell in before] == [cell is None for cell in after]


def test_what_the_table_holds_is_not_changed(rows: Rows) -> None:
    before = {m: LazySource(Echo(), rows, m).batch(range(ROWS))["value"] for m in MODALITIES}
    for modality in MODALITIES:
        source(rows, modality).batch(range(ROWS))
        assert torch.equal(LazySource(Echo(), rows, modality).batch(range(ROWS))["value"], before[modality])


def test_without_augmentations_values_are_as_they_are(rows: Rows) -> None:
    for modality in MODALITIES:
        empty: list[list[Any]] = [[] for _ in rows.schema.of(modality)]
        found = AugmentedSource(Echo(), rows, modality, empty).batch(range(ROWS))["value"]
        assert torch.equal(found, LazySource(Echo(), rows, modality).batch(range(ROWS))["value"])


def batches(rows: Rows, made: Callable[[str], AugmentedSource], names: Sequence[str]) -> Batches:
    return Batches({name: made(name) for name in names}, rows.present, torch.zeros(ROWS), np.arange(ROWS))


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="workers are forked there only")
def test_workers_play_no_part_and_see_the_epoch(rows: Rows) -> None:
    whole = batches(rows, lambda name: source(rows, name), MODALITIES)
    order = np.random.default_rng(1).permutation(ROWS)
    found = []
    for size in (4, 10):  # 15 batches are prepared by workers, 6 are not
        for epoch in (0, 3):
            for part in whole.sources.values():
                part.set_epoch(epoch)  # type: ignore[attr-defined]
            chunks = [order[i : i + size].tolist() for i in range(0, ROWS, size)]
            got = list(whole.loader(chunks))
            processes = {int(pid) for batch in got for pid in batch.inputs["text"]["process"]}  # type: ignore[index]
            assert (os.getpid() in processes) == (size == 10)
            assert len(processes) == (2 if size == 4 else 1)
            found.append({n: torch.cat([batch.inputs[n]["value"] for batch in got]) for n in MODALITIES})  # type: ignore[index]
    for name in MODALITIES:
        assert torch.equal(found[0][name], found[2][name])
        assert torch.equal(found[1][name], found[3][name])
        assert not torch.equal(found[0][name], found[1][name])


@pytest.mark.parametrize(("modality", "name"), [("image", "convnet"), ("audio", "mel_convnet"), ("table", "mlp")])
def test_real_encoders_prepare_what_comes_out(rows: Rows, modality: str, name: str) -> None:
    encoder = ENCODERS.build(name, {}, rows.schema.of(modality))
    plain, changed = (
        LazySource(encoder, rows, modality).batch(range(8)),
        source(rows, modality, encoder).batch(range(8)),
    )
    assert {key: value.dtype for key, value in plain.items()} == {key: value.dtype for key, value in changed.items()}
    features = encoder.eval()(**changed)
    assert torch.isfinite(features.pooled).all()
    assert not all(torch.equal(plain[key], changed[key]) for key in plain)


def swaps(rows: Rows, **options: Any) -> AugmentedSource:
    columns = rows.schema.of("table")
    built = build_augmentations([{"name": "swap", "probability": 1.0}], columns)
    return AugmentedSource(Echo(), rows, "table", built, **options)


@pytest.fixture(scope="module")
def wide() -> Rows:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"n": np.arange(200.0) / 7, "m": np.arange(200.0) / 7 + 1000, "y": ["no", "yes"] * 100})
    frame.loc[random.random(200) < 0.3, "n"] = np.nan
    table: Table = read_table(frame)
    return read_rows(table, infer_schema(table, "y"), training=True)


def test_swapped_cells_come_from_the_same_column_of_the_pool(wide: Rows) -> None:
    pool = np.arange(50, 120)
    allowed = [{wide.value("table", int(row))[i] for row in pool} for i in range(2)]  # type: ignore[index]
    here = swaps(wide, pool=pool)
    kept, taken = 0, [set(), set()]  # type: tuple[int, list[set[float]]]
    for epoch in range(5):
        here.set_epoch(epoch)
        for row in range(200):
            before, after = wide.value("table", row), here.value(row)
            assert before is not None
            assert after is not None
            for i in range(2):
                if before[i] is None:
                    assert after[i] is None
                elif after[i] == before[i]:
                    kept += i == 0
                else:
                    assert after[i] in allowed[i]
                    taken[i].add(after[i])
    # Most of the pool is drawn, each column by itself; where the other cell is missing, the cell stays.
    assert len(taken[1]) == 70
    missing = np.mean([wide.value("table", int(row))[0] is None for row in pool])  # type: ignore[index]
    present = sum(wide.value("table", row)[0] is not None for row in range(200))  # type: ignore[index]
    assert kept / (5 * present) == pytest.approx(missing, abs=0.06)


def test_rows_of_a_part_draw_from_the_part(wide: Rows) -> None:
    part = wide.subset(range(150, 170))
    here = swaps(part)
    allowed = {part.value("table", row)[1] for row in range(20)}  # type: ignore[index]
    found = {here.value(row)[1] for row in range(20)}  # type: ignore[index]
    assert found <= allowed
    assert len(found) > 5


def test_an_empty_pool_leaves_cells_as_they_are(wide: Rows) -> None:
    here = swaps(wide, pool=[])
    assert [here.value(row) for row in range(20)] == [wide.value("table", row) for row in range(20)]


def test_augmentations_happen_in_their_order(rows: Rows) -> None:
    class Said(Augmentation):
        def __init__(self, word: str) -> None:
            self.word = word

        def __call__(self, cell: Any, random: Any, other: Any) -> str:
            return f"{cell} {self.word}"

    here = AugmentedSource(Echo(), rows, "text", [[Said("one"), Said("two")]])
    assert {value[0][-8:] for row in range(ROWS) if (value := here.value(row))} == {" one two"}


def test_a_column_without_its_list_is_refused(rows: Rows) -> None:
    told = "augmentations of 'table': 1 lists given; each of its 3 columns .pressure, hold_ms, finger. needs one"
    with pytest.raises(InputError, match=told):
        AugmentedSource(Echo(), rows, "table", [[]])


def test_lengths_are_not_known(rows: Rows) -> None:
    assert source(rows, "text").lengths is None
