"""What is expected without answers, against what the answers say."""

from __future__ import annotations

import numpy as np
import pytest

from polyfuse.drift.estimating import expected_accuracy, expected_error


def sure(random: np.random.Generator, rows: int, hard: float) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences that mean what they say, and whether the answers are right; more rows are hard."""
    confidence = np.where(random.random(rows) < hard, random.uniform(0.5, 0.7, rows), random.uniform(0.85, 1.0, rows))
    return confidence, (random.random(rows) < confidence).astype(float)


def test_the_interval_holds_the_accuracy_where_confidence_means_what_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for trial in range(200):
        before, right = sure(random, 300, 0.2)
        after, right_now = sure(random, 200, 0.7)
        found = expected_accuracy(right, before, after, seed=trial)
        held += found.low <= right_now.mean() <= found.high
    # 190 are expected; of a binomial 99.9 % lie above 178.
    assert held >= 178
    assert found.value < right.mean() - 0.1  # the new rows are harder, and that was seen
    assert found.high - found.low < 0.25


def test_a_change_of_meaning_is_not_seen() -> None:
    random = np.random.default_rng(0)
    before, right = sure(random, 300, 0.2)
    after, _ = sure(random, 300, 0.2)
    wrong_now = random.random(300) < 0.5
    found = expected_accuracy(right, before, after)
    assert found.low > wrong_now.mean() + 0.1


def test_a_confidence_that_is_off_is_put_right() -> None:
    random = np.random.default_rng(1)
    confidence, right = sure(random, 5000, 0.5)
    found = expected_accuracy(right, np.minimum(confidence + 0.1, 1), np.minimum(confidence + 0.1, 1))
    assert found.value == pytest.approx(right.mean())


def test_errors_are_those_of_the_nearest_rows() -> None:
    random, held = np.random.default_rng(0), 0
    for trial in range(100):
        before, after = random.normal(size=(500, 2)), random.normal(size=(200, 2)) + np.array([0.5, 0.0])
        errors, errors_now = (np.abs(random.normal(0, np.exp(x[:, 0] / 2))) for x in (before, after))
        found = expected_error(errors, before, after, seed=trial)
        held += found.low <= errors_now.mean() <= found.high
    assert held >= 85
    assert found.value > errors.mean()


def test_the_only_neighbours_decide() -> None:
    places = np.array([[0.0]] * 5 + [[9.0]] * 5)
    errors = np.array([1.0] * 5 + [5.0] * 5)
    assert expected_error(errors, places, np.array([[0.1], [8.0]])).value == pytest.approx(3.0)
