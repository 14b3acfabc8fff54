"""Corruptions of numbers, datetimes and categories: their distributions."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from polyfuse.data.corruption import CORRUPTIONS
from polyfuse.data.schema import Column

SEVERITIES = (1, 3, 5)
#: A column whose quartiles are 20 apart.
PRICE = Column(name="price", type="number", quantiles=np.linspace(0, 40, 51).tolist())
SOLD = Column(name="sold", type="datetime")
BRAND = Column(name="brand", type="category", levels=["a", "b", "c"])


def draws(name: str, column: Column, cell: Any, severity: int, other: Any = lambda: None) -> tuple[list[Any], Any]:
    """Return what becomes of a cell 4000 times, and the setting."""
    corruption, random = CORRUPTIONS.build(name, {"severity": severity}, column), np.random.default_rng(0)
    return [corruption(cell, random, other) for _ in range(4000)], corruption.setting


def share(count: float) -> Any:
    return pytest.approx(count, abs=4 * (count * (1 - count) / 4000) ** 0.5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_is_gaussian_in_spreads(severity: int) -> None:
    found, sigma = draws("number_noise", PRICE, 7.0, severity)
    assert stats.kstest((np.array(found) - 7) / (20 * sigma), "norm").pvalue > 1e-3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_rounding_goes_to_the_nearest_step(severity: int) -> None:
    _, steps = draws("rounding", PRICE, 0.0, severity)
    rounding, random = CORRUPTIONS.build("rounding", {"severity": severity}, PRICE), np.random.default_rng(0)
    for number in np.random.default_rng(1).uniform(-100, 100, 100).tolist():
        found = rounding(number, random, lambda: None)
        assert found / (20 * steps) == pytest.approx(round(found / (20 * steps)), abs=1e-9)
        assert abs(found - number) <= 10 * steps * (1 + 1e-9)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_units_are_wrong_by_ten(severity: int) -> None:
    found, probability = draws("unit_error", PRICE, 12.5, severity)
    counts = Counter(found)
    assert set(counts) == {12.5, 125.0, 1.25}
    assert [counts[125.0] / 4000, counts[1.25] / 4000] == [share(probability / 2)] * 2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_outliers_lie_spreads_away_on_both_sides(severity: int) -> None:
    found, (probability, far) = draws("outliers", PRICE, 12.5, severity)
    counts = Counter(found)
    assert set(counts) == {12.5, 12.5 + 20 * far, 12.5 - 20 * far}
    assert [counts[12.5 + 20 * far] / 4000, counts[12.5 - 20 * far] / 4000] == [share(probability / 2)] * 2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_signs_are_lost_with_their_probability(severity: int) -> None:
    found, probability = draws("sign_flip", PRICE, 12.5, severity)
    assert set(found) == {12.5, -12.5}
    assert np.mean(np.array(found) < 0) == share(probability)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_clocks_are_wrong_by_their_deviation(severity: int) -> None:
    found, sigma = draws("datetime_shift", SOLD, 1.7e9, severity)
    assert stats.kstest((np.array(found) - 1.7e9) / sigma, "norm").pvalue > 1e-3


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(("column", "cell"), [(PRICE, 1.5), (SOLD, 1.7e9), (BRAND, "a")])
def test_cells_are_lost_with_their_probability(column: Column, cell: Any, severity: int) -> None:
    found, probability = draws("missing_cells", column, cell, severity)
    assert set(found) == {cell, None}
    assert np.mean([one is None for one in found]) == share(probability)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(("column", "cell", "there"), [(PRICE, 1.5, 9.0), (SOLD, 1.7e9, 1.8e9), (BRAND, "a", "c")])
def test_cells_get_into_the_wrong_row(column: Column, cell: Any, there: Any, severity: int) -> None:
    found, probability = draws("swapped_cells", column, cell, severity, lambda: there)
    assert set(found) == {cell, there}
    assert np.mean([one == there for one in found]) == share(probability)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_categories_become_any_other(severity: int) -> None:
    found, probability = draws("wrong_category", BRAND, "a", severity)
    counts = Counter(found)
    assert set(counts) == {"a", "b", "c"}
    assert [counts["b"] / 4000, counts["c"] / 4000] == [share(probability / 2)] * 2
    assert set(draws("wrong_category", BRAND, "rare", severity)[0]) == {"rare", "a", "b", "c"}


@pytest.mark.parametrize("levels", [[], ["a"]])
def test_a_category_without_another_stays(levels: list[str]) -> None:
    assert set(draws("wrong_category", Column(name="brand", type="category", levels=levels), "a", 5)[0]) == {"a"}


@pytest.mark.parametrize("name", ["number_noise", "rounding", "outliers"])
@pytest.mark.parametrize("quantiles", [[], [4.0], [4.0] * 51])
def test_numbers_of_a_column_without_a_spread_stay(name: str, quantiles: list[float]) -> None:
    column = Column(name="price", type="number", quantiles=quantiles)
    assert set(draws(name, column, 4.0, 5)[0]) == {4.0}


@pytest.mark.parametrize("name", ["number_noise", "rounding", "unit_error", "outliers", "sign_flip"])
@pytest.mark.parametrize("column", [PRICE, Column(name="p", type="number", quantiles=[-1.7e308, 0.0, 1.7e308])])
def test_the_largest_numbers_stay_finite(name: str, column: Column) -> None:
    assert np.isfinite(draws(name, column, sys.float_info.max, 5)[0]).all()
