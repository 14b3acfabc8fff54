"""Ensemble selection, beside every ensemble that there is."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfuse.search.selection import crossed, greedy_weights

Array = np.ndarray[Any, Any]


def squared(truth: Array) -> Any:
    return lambda scores: float(np.mean((scores - truth) ** 2))


def three(seed: int = 0, rows: int = 400) -> tuple[Array, list[Array]]:
    """Return a truth, and three models: two good ones that err apart, and a poor one."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=rows)
    return truth, [truth + random.normal(size=rows) * width for width in (1.0, 1.1, 3.0)]


def test_it_is_nearly_as_good_as_the_best_of_all_small_ensembles() -> None:
    truth, scores = three()
    badness = squared(truth)
    weights = greedy_weights(scores, badness, steps=8)
    found = badness(sum(w * s for w, s in zip(weights, scores, strict=True)))
    every = [
        np.mean([scores[i] for i in some], axis=0)
        for n in range(1, 9)
        for some in combinations_with_replacement(range(3), n)
    ]
    best = min(badness(mean) for mean in every)
    assert best <= found <= best * 1.02
    assert weights[0] > 0.3
    assert weights[1] > 0.3
    assert weights.sum() == 1


def test_one_that_nothing_improves_stays_alone() -> None:
    truth, _ = three()
    assert greedy_weights([truth + 5, truth, truth - 4], squared(truth)).tolist() == [0, 1, 0]
    assert greedy_weights([truth], squared(truth)).tolist() == [1]


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_it_is_never_worse_than_the_best_on_the_rows_it_was_chosen_on(seed: int, models: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.normal(size=50)
    scores = [truth + random.normal(size=50) * random.uniform(0.1, 3) for _ in range(models)]
    weights = greedy_weights(scores, squared(truth))
    mean = sum(w * s for w, s in zip(weights, scores, strict=True))
    assert squared(truth)(mean) <= min(map(squared(truth), scores)) + 1e-12


def test_crossed_scores_come_from_weights_of_other_rows() -> None:
    truth, scores = three()
    parts = np.array_split(np.random.default_rng(1).permutation(len(truth)), 4)

    def badness(some: Array, rows: Array) -> float:
        return squared(truth[rows])(some)

    mean = crossed(scores, badness, parts)
    for part in parts:
        others = np.setdiff1d(np.arange(len(truth)), part)
        weights = greedy_weights([s[others] for s in scores], squared(truth[others]))
        np.testing.assert_allclose(mean[part], sum(w * s[part] for w, s in zip(weights, scores, strict=True)))
    # A model that knows the answers of one part alone cannot sneak in through that part.
    cheat = scores[2].copy()
    cheat[parts[0]] = truth[parts[0]]
    honest = crossed([scores[0], cheat], badness, parts)
    np.testing.assert_allclose(honest[parts[0]], scores[0][parts[0]])
