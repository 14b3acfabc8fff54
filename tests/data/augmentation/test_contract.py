"""The contract, over every augmentation that is registered, on wild cells; and how they are chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfuse.core.errors import InputError
from polyfuse.data.augmentation import AUGMENTATIONS, build_augmentations, default_augmentations
from polyfuse.data.schema import Column
from wild import cases, cloud, content, image, sound

#: For each augmentation, options at the ends of what is allowed. One without an entry fails the test below.
EXTREMES: dict[str, list[dict[str, Any]]] = {
    "crop": [{"least": 0.01, "aspect": 10.0, "size": 8}, {"least": 1.0, "aspect": 1.0}],
    "flip": [{"probability": 1.0}],
    "colour": [{"probability": 1.0, "brightness": 0.99, "contrast": 0.99, "saturation": 0.99, "hue": 0.5}],
    "erase": [
        {"probability": 1.0, "least": 0.0, "most": 0.0},
        {"probability": 1.0, "least": 0.99, "most": 0.99, "aspect": 10.0, "fill": "mean"},
        {"probability": 1.0, "least": 0.9, "most": 0.99, "aspect": 1.0},
    ],
    "affine": [{"degrees": 180.0, "scale": 0.9, "shift": 0.5}, {"degrees": 0.0, "scale": 0.0, "shift": 0.0}],
    "word_drop": [{"share": 0.0}, {"share": 0.999}],
    "typos": [{"rate": 0.0}, {"rate": 0.5}],
    "gain": [{"probability": 1.0, "decibels": 60.0}],
    "noise": [
        {"probability": 1.0, "lowest": -20.0, "highest": -20.0},
        {"probability": 1.0, "lowest": 100.0, "highest": 100.0},
    ],
    "shift": [{"probability": 1.0, "share": 0.5}],
    "spectrum_mask": [
        {"probability": 1.0, "time_masks": 10, "time": 0.5, "frequency_masks": 10, "frequency": 0.5},
        {"probability": 1.0, "time_masks": 0, "frequency_masks": 0},
        {"probability": 1.0, "time_masks": 5, "time": 0.5, "frequency_masks": 0},
    ],
    "point_jitter": [{"probability": 1.0, "deviation": 1.0}, {"probability": 1.0, "deviation": 0.0}],
    "point_scale": [{"probability": 1.0, "factor": 10.0}, {"probability": 1.0, "factor": 1.0}],
    "point_turn": [{"probability": 1.0, "degrees": 180.0}, {"probability": 1.0, "degrees": 0.0}],
    "point_drop": [{"share": 0.999}, {"share": 0.0}],
    "number_noise": [{"std": 10.0}, {"std": 0.0}],
    "swap": [{"probability": 1.0}],
    "corrupt": [{"severity": 5, "probability": 1.0}, {"kinds": ["missing_cells"], "probability": 1.0}],
}

#: For each option of each augmentation, two values that make a difference.
EFFECTS: dict[tuple[str, str], tuple[Any, Any]] = {
    ("crop", "probability"): (0.0, 1.0),
    ("crop", "least"): (0.1, 0.9),
    ("crop", "aspect"): (1.0, 3.0),
    ("crop", "size"): (8, 64),
    ("flip", "probability"): (0.0, 1.0),
    ("colour", "probability"): (0.0, 1.0),
    ("colour", "brightness"): (0.0, 0.9),
    ("colour", "contrast"): (0.0, 0.9),
    ("colour", "saturation"): (0.0, 0.9),
    ("colour", "hue"): (0.0, 0.5),
    ("erase", "probability"): (0.0, 1.0),
    ("erase", "least"): (0.02, 0.2),
    ("erase", "most"): (0.1, 0.9),
    ("erase", "aspect"): (1.0, 9.0),
    ("erase", "fill"): ("noise", "mean"),
    ("affine", "probability"): (0.0, 1.0),
    ("affine", "degrees"): (0.0, 90.0),
    ("affine", "scale"): (0.0, 0.5),
    ("affine", "shift"): (0.0, 0.5),
    ("word_drop", "share"): (0.0, 0.9),
    ("typos", "rate"): (0.0, 0.5),
    ("gain", "probability"): (0.0, 1.0),
    ("gain", "decibels"): (1.0, 20.0),
    ("noise", "probability"): (0.0, 1.0),
    ("noise", "lowest"): (0.0, 39.0),
    ("noise", "highest"): (11.0, 60.0),
    ("shift", "probability"): (0.0, 1.0),
    ("shift", "share"): (0.01, 0.5),
    ("spectrum_mask", "probability"): (0.0, 1.0),
    ("spectrum_mask", "time_masks"): (0, 5),
    ("spectrum_mask", "time"): (0.01, 0.5),
    ("spectrum_mask", "frequency_masks"): (0, 5),
    ("spectrum_mask", "frequency"): (0.0, 0.5),
    ("point_jitter", "probability"): (0.0, 1.0),
    ("point_jitter", "deviation"): (0.01, 0.5),
    ("point_scale", "probability"): (0.0, 1.0),
    ("point_scale", "factor"): (1.1, 3.0),
    ("point_turn", "probability"): (0.0, 1.0),
    ("point_turn", "degrees"): (10.0, 180.0),
    ("point_drop", "share"): (0.1, 0.9),
    ("number_noise", "std"): (0.01, 1.0),
    ("swap", "probability"): (0.0, 1.0),
    ("corrupt", "kinds"): (["brightness"], ["contrast"]),
    ("corrupt", "severity"): (1, 5),
    ("corrupt", "probability"): (0.0, 1.0),
}


def assert_well_formed(column: Column, before: Any, after: Any, others: list[Any], *, bounded: bool) -> None:
    assert type(after) is type(before)
    if column.type == "image":
        assert len(after) == len(before)
        assert all(part.mode == "RGB" and min(part.size) >= 1 for part in after)
        assert all(max(new.size) <= max(old.size) for new, old in zip(after, before, strict=True))
    elif column.type == "audio":
        assert (after.rate, after.samples.shape, after.samples.dtype) == (before.rate, before.samples.shape, np.float32)
        assert np.isfinite(after.samples).all()
        assert (np.abs(after.samples) <= 1).all()
        assert not bounded or after.samples.any() == before.samples.any()
    elif column.type == "points":
        assert (after.shape[1], after.dtype) == (before.shape[1], np.float32)
        assert len(after) >= 1
        assert np.isfinite(after).all()
    elif column.type == "text":
        assert bool(after.strip()) == bool(before.strip())
    elif column.type == "category":
        assert after == before or after in column.levels
    else:
        assert math.isfinite(after)
        bounds = [before, *column.quantiles, *(found for found in others if found is not None)]
        assert not bounded or min(bounds) <= after <= max(bounds)


RUNS = [(name, options) for name in AUGMENTATIONS for options in ({}, *EXTREMES.get(name, []))]


def test_every_augmentation_and_every_option_has_a_case() -> None:
    assert set(EXTREMES) == set(AUGMENTATIONS), "add the new augmentation to EXTREMES"
    every = {(name, option) for name in AUGMENTATIONS for option in AUGMENTATIONS.options(name)}
    assert set(EFFECTS) == every, "add the new option to EFFECTS"


@pytest.mark.parametrize(("name", "options"), RUNS, ids=str)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_contract(name: str, options: dict[str, Any], data: st.DataObject, seed: int) -> None:
    column, cells = data.draw(cases(data.draw(st.sampled_from(sorted(AUGMENTATIONS[name].reads)))))
    others = [*cells, None] if column.type in ("number", "datetime", "category") else [None]
    augmentation = AUGMENTATIONS.build(name, options, column)

    def changed(cell: Any) -> Any:
        random = np.random.default_rng(seed)
        return augmentation(cell, random, lambda: others[random.integers(len(others))])

    for cell in cells:
        before = content(cell)
        first, second = changed(cell), changed(cell)
        assert content(cell) == before, "the cell that was given was written to"
        assert content(first) == content(second), "the same generator gives the same"
        # Damage goes beyond what the training table has: a slipped decimal point, a burst of noise into silence.
        assert_well_formed(column, cell, first, others, bounded=name != "corrupt")


@pytest.mark.parametrize(("name", "options"), RUNS, ids=str)
def test_arrays_that_cannot_be_written_to_are_read(name: str, options: dict[str, Any]) -> None:
    if "audio" in AUGMENTATIONS[name].reads:
        frozen = sound(500, 8000, 0.3, 0)
        frozen.samples.flags.writeable = False
        column = Column(name="c", type="audio")
        AUGMENTATIONS.build(name, options, column)(frozen, np.random.default_rng(0), lambda: None)


CELLS: dict[str, tuple[Column, Any, Callable[[], Any]]] = {
    "image": (Column(name="c", type="image"), [image(64, 48)], lambda: None),
    "audio": (Column(name="c", type="audio"), sound(4000, 8000, 0.2, 1), lambda: None),
    "points": (Column(name="c", type="points"), cloud(50, 4, 1.0, 0.0, 0), lambda: None),
    "text": (Column(name="c", type="text"), "the quick brown fox jumps over the lazy dog " * 3, lambda: None),
    "number": (Column(name="c", type="number", quantiles=[0.0, 10.0, 20.0]), 10.0, lambda: 3.0),
}


@pytest.mark.parametrize(("name", "option"), EFFECTS, ids=lambda part: str(part))
def test_every_option_has_an_effect(name: str, option: str) -> None:
    column, cell, other = next(CELLS[type] for type in CELLS if type in AUGMENTATIONS[name].reads)
    always = {"probability": 1.0} if "probability" in AUGMENTATIONS.options(name) else {}
    results = []
    for value in EFFECTS[name, option]:
        augmentation = AUGMENTATIONS.build(name, {**always, option: value}, column)
        results.append(
            [content(augmentation(cell, np.random.default_rng(seed), other)) for seed in range(3)],
        )
    assert results[0] != results[1]


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if "probability" in AUGMENTATIONS.options(name)])
def test_probability_is_the_share_of_changed_cells(name: str) -> None:
    column, cell, other = next(CELLS[type] for type in CELLS if type in AUGMENTATIONS[name].reads)
    augmentation = AUGMENTATIONS.build(name, {"probability": 0.3}, column)
    random, before = np.random.default_rng(0), content(cell)
    changed = np.mean([content(augmentation(cell, random, other)) != before for _ in range(600)])
    assert changed == pytest.approx(0.3, abs=0.075)  # four standard errors


def test_defaults_by_type() -> None:
    types = get_type_hints(Column)["type"].__args__
    found = {type: default_augmentations([Column(name="c", type=type)], "classification") for type in types}
    assert found == {
        "image": ["crop", "colour", "erase"],
        "audio": ["gain", "noise", "shift", "spectrum_mask"],
        "text": ["word_drop", "typos"],
        "number": ["number_noise", "swap"],
        "category": ["swap"],
        "datetime": ["swap"],
        "points": ["point_jitter", "point_scale", "point_drop"],
        "embedding": [],
    }


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_more_of_an_image_stays_in_view_where_its_edges_may_count(task: Any) -> None:
    assert default_augmentations([Column(name="c", type="image")], task)[0] == {"name": "crop", "least": 0.8}
    assert default_augmentations([Column(name="c", type="points")], task) == ["point_jitter", "point_drop"]


TABLE = [
    Column(name="age", type="number", quantiles=[0.0, 1.0]),
    Column(name="brand", type="category", levels=["a", "b"]),
    Column(name="sold", type="datetime"),
]


def test_each_column_gets_those_that_read_it_in_the_order_chosen() -> None:
    built = build_augmentations(["swap", {"name": "number_noise", "std": "0.5"}], TABLE)
    names = [[type(augmentation).__name__ for augmentation in some] for some in built]
    assert names == [["SwapAugmentation", "NumberNoiseAugmentation"], ["SwapAugmentation"], ["SwapAugmentation"]]
    assert built[0][1].std == 0.5  # type: ignore[attr-defined]
    assert [some[0].column for some in built] == TABLE
    assert build_augmentations([], TABLE) == [[], [], []]


def test_instances_are_taken_as_they_are() -> None:
    ready = AUGMENTATIONS.build("swap", {"probability": 1.0}, TABLE[1])
    (built,) = build_augmentations([ready], TABLE[1:2])
    assert built == [ready]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ("swop", "augmentations: there is no 'swop'; did you mean 'swap'?"),
        (
            "crop",
            r"augmentations: 'crop' reads image, and the columns here are age \(number\), brand \(category\), sold"
            r" \(datetime\); choose from corrupt, number_noise, swap",
        ),
        ({"name": "swap", "probabilty": 1}, "'swap' has no option 'probabilty'; did you mean 'probability'?"),
        ({"name": "swap", "probability": 2}, "swap.probability: 2 given: Input should be less than or equal to 1"),
        ({"name": "swap", "probability": "often"}, "swap.probability: 'often' given: Input should be a valid number"),
        ({"name": "corrupt", "kinds": ["roundin"]}, "corrupt.kinds: there is no 'roundin'; did you mean 'rounding'?"),
        (
            {"name": "corrupt", "kinds": ["fog", "hum"]},
            r"none of corrupt.kinds \(fog, hum\) damages age \(number\): missing_cells, .* do; name others",
        ),
        ({"probability": 1}, "{'probability': 1} given: an augmentation is a name, or a mapping with a name"),
        (3, "3 given: an augmentation is a name, or a mapping with a name"),
    ],
)
def test_errors_tell_what_to_do(chosen: Any, told: str) -> None:
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        build_augmentations([chosen], TABLE)


def test_an_instance_that_reads_none_of_the_columns_is_refused() -> None:
    ready = AUGMENTATIONS.build("crop", {}, Column(name="c", type="image"))
    with pytest.raises(InputError, match="'CropAugmentation' reads image, and the columns here are age"):
        build_augmentations([ready], TABLE)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("erase", {"least": 0.5, "most": 0.2}, "erase: least=0.5 is more than most=0.2"),
        ("noise", {"lowest": 30.0, "highest": 20.0}, "noise: lowest=30.0 is more than highest=20.0"),
    ],
)
def test_ranges_begin_with_the_smaller_end(name: str, options: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        AUGMENTATIONS.build(name, options, Column(name="c", type="image"))
