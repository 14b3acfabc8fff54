"""Augmentations of numbers, datetimes and categories: their distributions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.data.augmentation.table import spread
from polyfuse.data.schema import Column
from polyfuse.data.statistics import describe, quantiles


def draws(name: str, column: Column, cell: Any, other: Any = lambda: None, **options: Any) -> list[Any]:
    built, random = AUGMENTATIONS.build(name, options, column), np.random.default_rng(0)
    return [built(cell, random, other) for _ in range(4000)]


def number(values: Any) -> Column:
    return Column(name="price", type="number", quantiles=quantiles(values))


@pytest.mark.parametrize("std", [0.01, 0.1])
def test_noise_is_gaussian_in_units_of_the_spread(std: float) -> None:
    values = np.random.default_rng(1).normal(100, 20, size=5000)
    added = np.array(draws("number_noise", number(values), 100.0, std=std)) - 100
    quartiles = np.quantile(values, [0.25, 0.75])
    assert added.std() == pytest.approx(std * (quartiles[1] - quartiles[0]), rel=0.05)
    assert added.mean() == pytest.approx(0, abs=4 * added.std() / 4000**0.5)
    assert stats.kstest(added / added.std(), "norm").pvalue > 1e-3


def test_noise_stays_within_what_was_seen() -> None:
    found = draws("number_noise", number([0.0, 1.0, 2.0, 3.0]), 2.9, std=1.0)
    assert min(found) == 0.0
    assert max(found) == 3.0


def test_a_number_beyond_what_was_seen_goes_no_further_out() -> None:
    found = draws("number_noise", number([0.0, 1.0, 2.0, 3.0]), 50.0, std=0.5)
    assert max(found) == 50.0
    assert min(found) < 49


@pytest.mark.parametrize("values", [[], [4.0], [4.0] * 10])
def test_columns_that_do_not_vary_stay(values: list[float]) -> None:
    assert set(draws("number_noise", number(values), 4.0, std=1.0)) == {4.0}


def test_spread_of_numbers_that_are_mostly_one() -> None:
    assert spread(quantiles([0.0] * 90 + [8.0] * 10)) == 4.0


def test_spread_is_that_of_the_encoders() -> None:
    from polyfuse.encoders.table import _robust_scale

    for seed in range(20):
        values = np.random.default_rng(seed).choice([0.0, 1.0, 5.5, 100.0], size=seed + 1, p=[0.7, 0.1, 0.1, 0.1])
        kept = quantiles(values.tolist())
        assert spread(kept) == pytest.approx(_robust_scale(kept)[1])


def test_the_largest_numbers_do_not_overflow() -> None:
    wide = number([-1.7e308, -1.7e308, 1.7e308, 1.7e308])
    assert np.isfinite(draws("number_noise", wide, 1e308, std=10.0)).all()
    assert 1e308 < spread(wide.quantiles) < np.inf

    class Zero:
        def standard_normal(self) -> float:
            return 0.0

    random: Any = Zero()
    assert AUGMENTATIONS.build("number_noise", {"std": 10.0}, wide)(5.0, random, lambda: None) == 5.0


def test_swapped_cells_are_distributed_as_the_column() -> None:
    cells = ["a"] * 50 + ["b"] * 30 + ["c"] * 20
    column, _ = describe("brand", "category", cells, None)  # type: ignore[arg-type]
    random = np.random.default_rng(2)
    found = Counter(draws("swap", column, "a", lambda: cells[random.integers(100)], probability=1.0))
    assert [found[level] / 4000 for level in "abc"] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@pytest.mark.parametrize("type", ["number", "datetime"])
def test_swapped_numbers_are_distributed_as_the_column(type: Any) -> None:
    values = np.random.default_rng(3).lognormal(size=1000).tolist()
    column = Column(name="price", type=type, quantiles=quantiles(values))
    random = np.random.default_rng(4)
    found = draws("swap", column, -1.0, lambda: values[random.integers(1000)], probability=1.0)
    assert stats.ks_2samp(found, values).pvalue > 1e-3


def test_cells_are_swapped_with_their_probability() -> None:
    found = draws("swap", number([0.0, 1.0]), 0.0, lambda: 1.0, probability=0.25)
    assert np.mean(found) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("other", [None, float("inf"), float("nan")])
def test_a_number_stays_where_the_other_is_none(other: Any) -> None:
    assert set(draws("swap", number([0.0, 1.0]), 0.5, lambda: other, probability=1.0)) == {0.5}


@pytest.mark.parametrize("other", [None, "rare"])
def test_a_category_stays_where_the_other_is_not_known(other: Any) -> None:
    column = Column(name="brand", type="category", levels=["a"])
    assert set(draws("swap", column, "here", lambda: other, probability=1.0)) == {"here"}
    assert set(draws("swap", column, "here", lambda: "a", probability=1.0)) == {"a"}
