"""Searches over edits: they find what is planted, and lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polyfuse.attacks.greedy import Score, Searched, evolved, greedy
from polyfuse.attacks.table import RangesThreat
from polyfuse.attacks.text import CharactersThreat
from polyfuse.attacks.threat import Sample, Threat, Value
from polyfuse.data.schema import Column

TEXT = [Column(name="text", type="text")]
TABLE = [
    *(Column(name=name, type="category", levels=list("abcde")) for name in ("one", "two", "three")),
    Column(name="size", type="number", quantiles=np.linspace(0, 1, 51).tolist()),
]
SENTENCE = "this wonderful film never bores anyone who watches it with open eyes"


def scored(damage: Callable[[Value, int], float], calls: list[int] | None = None) -> Score:
    def score(values: Sequence[Value], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        if calls is not None:
            calls.append(len(values))
        found = torch.tensor([damage(value, row) for value, row in zip(values, rows, strict=True)])
        return found, found > 0

    return score


def without(words: Sequence[str]) -> Callable[[Value, int], float]:
    """Return damage that is above 0 where none of the words stands in the text."""
    return lambda value, row: 0.5 - sum(word in value[0].split() for word in words)


def search(score: Score, threat: Threat, clean: list[Value | None], **options: Any) -> Searched:
    settings = {"rounds": 12, "width": 24, "seed": 0, "standing": [i for i, one in enumerate(clean) if one], **options}
    return greedy(score, threat, clean, clean, **settings)


def evolution(score: Score, clean: list[Value | None], limit: int = 2, **options: Any) -> Searched:
    settings = {"generations": 20, "population": 24, "seed": 0, "standing": range(len(clean)), **options}
    return evolved(score, RangesThreat(TABLE, categories=limit), clean, clean, **settings)


@pytest.mark.parametrize("words", [["wonderful"], ["eyes"], ["wonderful", "watches"]])
def test_greedy_finds_the_words_that_matter(words: list[str]) -> None:
    threat = CharactersThreat(TEXT, share=0.2)
    found = search(scored(without(words)), threat, [(SENTENCE,), None, ("a wonderful eyes watches film",)])
    assert found.reached[0]
    assert found.values[1] is None
    value = found.values[0]
    assert value is not None
    assert threat.excess(Sample((SENTENCE,)), Sample(value)) <= 0
    # The value itself, leaving each word out, and the rounds: the first one or two do.
    assert found.queries[0] <= 1 + 11 + 24 * len(words)
    assert found.reached[2] == (len(words) == 1), "of five words one may be touched"


def test_greedy_finds_a_category_and_a_number() -> None:
    threat = RangesThreat(TABLE)
    score = scored(lambda value, row: (value[1] == "d") + (value[3] > 0.6) - 1.5)
    found = search(score, threat, [("a", "a", "a", 0.5)])
    assert found.reached[0]
    assert found.values[0][1] == "d"  # type: ignore[index]
    assert set(found.queries) == {0}


def test_a_conjunction_is_found_by_evolution_where_greed_stands_still() -> None:
    score = scored(lambda value, row: 1.0 if value[0] == "c" and value[2] == "e" else -1.0)
    clean: list[Value | None] = [("a", "a", "a", 0.5)]
    assert not search(score, RangesThreat(TABLE, categories=2), clean).reached[0]
    found = evolution(score, clean)
    assert found.reached[0]
    assert found.values[0][::2] == ("c", "e")  # type: ignore[index]
    assert not evolution(score, clean, limit=1).reached[0]


def test_nothing_found_is_nothing_changed() -> None:
    clean: list[Value | None] = [("a", "a", "a", 0.5)]
    worse = scored(lambda value, row: -float(value != clean[0]) - 1)
    for found in (search(worse, RangesThreat(TABLE), clean), evolution(worse, clean)):
        assert found.values == clean
        assert found.damage == {0: -1.0}
        assert found.reached == {0: False}


@pytest.mark.parametrize("way", ["text", "table", "evolved"])
def test_never_worse_than_the_start_and_no_row_depends_on_the_others(way: str) -> None:
    weights = np.random.default_rng(0).normal(size=997)

    def noise(value: Value, row: int) -> float:
        """Return damage without any order, below 0."""
        return float(np.float32(weights[sum(map(ord, str(value))) * (row + 3) % 997] - 9))

    score = scored(noise)
    rows: list[Value | None] = [
        (f"{SENTENCE} {i} times",) if way == "text" else ("a", "b", "c", i / 9) for i in range(5)
    ]

    def run(**options: Any) -> Searched:
        if way == "evolved":
            return evolution(score, rows, **{"generations": 4, **options})
        return search(score, CharactersThreat(TEXT) if way == "text" else RangesThreat(TABLE), rows, **options)

    whole = run()
    assert run() == whole
    assert run(seed=1).values != whole.values
    for row in range(5):
        assert whole.damage[row] >= noise(rows[row], row)  # type: ignore[arg-type]
        assert whole.damage[row] == pytest.approx(noise(whole.values[row], row))  # type: ignore[arg-type]
        alone = run(standing=[row])
        assert (alone.values[row], alone.damage[row], alone.queries[row]) == (
            whole.values[row],
            whole.damage[row],
            whole.queries[row],
        )
        assert alone.values[:row] == rows[:row]


def test_what_is_not_admissible_is_not_taken() -> None:
    class Picky(RangesThreat):
        asked = 0

        def admissible(self, values: Sequence[Value], clean: Sequence[Value]) -> list[bool]:
            self.asked += len(values)
            assert clean == [("a", "a", "a", 0.5)] * len(values)
            return [value[1] != "d" for value in values]

    threat = Picky(TABLE)
    score = scored(lambda value, row: {"d": 3.0, "c": 2.0}.get(value[1], -1.0))
    found = search(score, threat, [("a", "a", "a", 0.5)])
    assert found.values[0][1] == "c"  # type: ignore[index]
    assert found.damage[0] == 2
    assert threat.asked == 2


def test_what_reaches_the_goal_goes_before_what_does_more_damage() -> None:
    def score(values: Sequence[Value], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        hurt = torch.tensor([{"b": 1.0, "c": 5.0}.get(value[0], 0.0) for value in values])
        return hurt, torch.tensor([value[0] == "b" for value in values])

    found = search(score, RangesThreat(TABLE), [("a", "a", "a", 0.5)])
    assert found.reached[0]
    assert found.values[0][0] == "b"  # type: ignore[index]


def test_queries_are_counted_and_bounded() -> None:
    calls: list[int] = []
    score = scored(lambda value, row: -1.0 - row, calls)
    found = search(score, CharactersThreat(TEXT), [(SENTENCE,), (SENTENCE,)], rounds=2, width=7)
    assert sum(calls) == sum(found.queries.values())
    assert calls == [2, 22, 14, 8], (
        "the rows as they are, words left out, one edit of seven words, and of the other four"
    )
    assert found.queries[0] == 1 + 11 + 7 + 4
    for rounds in (5, 30):
        assert search(score, CharactersThreat(TEXT), [(SENTENCE,)], rounds=rounds).queries[0] <= 1 + 11 + rounds * 24
    reached = search(scored(lambda value, row: 1.0), CharactersThreat(TEXT), [(SENTENCE,)])
    assert reached.queries == {0: 1}
    grown = evolution(score, [("a", "a", "a", 0.5)], generations=3, population=5)
    assert grown.queries[0] <= 1 + 3 * 5


def test_what_was_not_drawn_at_first_is_drawn_later() -> None:
    threat = CharactersThreat(TEXT)
    (rare,) = [
        value
        for value in threat.neighbours((SENTENCE,), (SENTENCE,), np.random.default_rng(0))
        if "wondderful" in value[0]
    ]
    score = scored(lambda value, row: 1.0 if value == rare else -1.0)
    assert search(score, threat, [(SENTENCE,)], rounds=100).values == [rare]
    table = scored(lambda value, row: 1.0 if value[2] == "e" else -1.0)
    assert search(table, RangesThreat(TABLE), [("a", "a", "a", 0.5)], rounds=100, width=2).reached[0]


def test_a_text_without_words_to_touch_is_left_alone() -> None:
    found = search(scored(lambda value, row: -1.0), CharactersThreat(TEXT), [("7 of 9",), ("",)])
    assert found.values == [("7 of 9",), ("",)]
