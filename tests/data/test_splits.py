"""Splits: whole, disjoint, alike, repeatable."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfuse.core.errors import InputError
from polyfuse.data.splits import folds, split


def whole(sides: tuple[Any, Any], rows: int) -> None:
    first, second = sides
    assert len(first) > 0
    assert len(second) > 0
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(rows))
    assert first.tolist() == sorted(first.tolist())


def test_classes_have_the_same_shares() -> None:
    answers = ["a"] * 70 + ["b"] * 20 + ["c"] * 10
    first, second = split(answers, "classification", share=0.2, seed=0)
    whole((first, second), 100)
    assert Counter(answers[i] for i in second) == {"a": 14, "b": 4, "c": 2}


def test_a_class_of_one_row_is_learned_from() -> None:
    answers = ["a"] * 10 + ["b"] * 10 + ["c"]
    for seed in range(5):
        first, second = split(answers, "classification", share=0.2, seed=seed)
        whole((first, second), 21)
        assert 20 in first


def test_the_rarest_label_and_the_tenths_are_spread() -> None:
    labels = [["a"], ["a", "b"]] * 45 + [["a", "rare"]] * 10
    _, second = split(labels, "multilabel", share=0.2, seed=0)
    assert sum("rare" in labels[i] for i in second) == 2
    numbers = np.random.default_rng(0).lognormal(size=200).tolist()
    _, second = split(numbers, "regression", share=0.1, seed=0)
    tenths = np.argsort(np.argsort(numbers)) // 20
    assert Counter(tenths[second].tolist()) == dict.fromkeys(range(10), 2)


def test_seeds() -> None:
    answers = [i % 3 for i in range(60)]
    one, two, other = (split(answers, "classification", share=0.2, seed=seed)[1].tolist() for seed in (1, 1, 2))
    assert one == two
    assert one != other


@pytest.mark.parametrize("count", [2, 5, 20])
def test_no_group_is_on_both_sides(count: int) -> None:
    random = np.random.default_rng(0)
    answers, groups = random.integers(0, 3, 200).tolist(), random.integers(0, count, 200).tolist()
    first, second = split(answers, "classification", share=0.2, seed=0, groups=groups)
    whole((first, second), 200)
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    again = split(answers, "classification", share=0.2, seed=0, groups=groups)
    assert second.tolist() == again[1].tolist()


def test_rows_without_a_group_stand_alone() -> None:
    whole(split([0, 1] * 10, "classification", share=0.2, seed=0, groups=[None, float("nan")] * 10), 20)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (1, {"share": 0.5}, "1 rows cannot be split"),
        (5, {"share": 0.0}, "share = 0.0"),
        (5, {"share": 1.0}, "share = 1.0"),
        (5, {"share": 0.5, "groups": ["a"] * 5}, "all rows are of one group"),
    ],
)
def test_bad_calls(rows: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split([0] * rows, "classification", seed=0, **options)


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 100),
    st.sampled_from(["classification", "multilabel", "regression"]),
)
def test_any_rows_are_split(numbers: list[int], share: float, seed: int, task: Any) -> None:
    answers: list[Any] = [list(range(n % 3)) for n in numbers] if task == "multilabel" else list(numbers)
    whole(split(answers, task, share=share, seed=seed), len(numbers))
    if len(set(numbers)) > 1:
        whole(split(answers, task, share=share, seed=seed, groups=numbers), len(numbers))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_folds_hold_out_every_row_once_and_are_alike(count: int) -> None:
    answers = ["a"] * 60 + ["b"] * 30 + ["c"] * 9 + ["d"]
    parts = folds(answers, "classification", count=count, seed=0)
    assert len(parts) == count
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
    for label, total in (("a", 60), ("b", 30), ("c", 9)):
        found = [sum(answers[row] == label for row in part) for part in parts]
        assert max(found) - min(found) <= 1, (label, found)
        assert sum(found) == total
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = folds(answers, "classification", count=count, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    other = folds(answers, "classification", count=count, seed=1)
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def test_folds_of_numbers_have_like_means() -> None:
    answers = np.random.default_rng(0).normal(size=200).tolist()
    means = [np.mean([answers[row] for row in part]) for part in folds(answers, "regression", count=4, seed=0)]
    assert np.ptp(means) < 0.15


def test_folds_keep_groups_together() -> None:
    groups = [f"g{i // 4}" for i in range(60)]
    parts = folds([i % 2 for i in range(60)], "classification", count=5, seed=0, groups=groups)
    seen = [{groups[row] for row in part} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 15
    assert len(folds([0, 1] * 4, "classification", count=5, seed=0, groups=["x"] * 4 + ["y"] * 4)) == 2
    with pytest.raises(InputError, match="one group"):
        folds([0, 1], "classification", count=2, seed=0, groups=["x", "x"])
    assert len(folds([0, 1, 1], "classification", count=5, seed=0)) == 3
