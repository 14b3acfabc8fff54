"""How long a candidate is expected to need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyfuse.recipe.component import Component
from polyfuse.recipe.ways import MemberSpec
from polyfuse.search.comparison import Comparison, Entry


def entry(name: str, seconds: float = 0.0, folds: int = 0) -> Entry:
    made = Entry(MemberSpec(combine=Component(name=name)), name)
    made.seconds, made.parts = seconds, [(np.arange(2), np.zeros(2))] * folds
    return made


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (entry("linear"), 0.0),
        (entry("linear", 6.0, 3), 2.0),
        (entry("deep"), 0.0),
        (entry("bottleneck"), 12.0),
        (entry("bottleneck", 5.0, 1), 5.0),
    ],
)
def test_what_reads_tokens_needs_a_multiple_of_what_reads_pooled_vectors(asked: Entry, expected: float) -> None:
    known = [entry("concat", 2.0, 1), entry("gated", 8.0, 2), entry("attention", 50.0, 1), entry("boosting", 90.0, 1)]
    nothing: Any = None
    comparison = Comparison(nothing, nothing, nothing, nothing, entries=[*known, asked])
    assert comparison._expected(asked) == expected


def test_nothing_is_expected_of_what_nothing_is_known_of() -> None:
    nothing: Any = None
    asked = entry("attention")
    assert Comparison(nothing, nothing, nothing, nothing, entries=[entry("deep"), asked])._expected(asked) == 0.0
