"""Searches over discrete edits, for many rows at once, that ask for nothing but scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.attacks.threat import Threat, Value

#: From values, and for each the position of its row, to damage (n,) and whether the goal is reached, (n,) bool.
Score: TypeAlias = Callable[[Sequence[Value], Sequence[int]], tuple[Tensor, Tensor]]

_REFUSALS = 5  # candidates of a row that are offered to `admissible` in one round


class Scored(NamedTuple):
    """A value and what it does; of two, the greater one is worse for the model."""

    reached: bool
    damage: float
    value: Value


@dataclass
class Searched:
    """What a search found.

    Attributes:
        values: of all rows that were given; of those that were searched the worst one found.
        damage: by position of a row that was searched.
        reached: whether the goal is reached, by position.
        queries: scores asked for, by position.
    """

    values: list[Value | None]
    damage: dict[int, float] = field(default_factory=dict)
    reached: dict[int, bool] = field(default_factory=dict)
    queries: dict[int, int] = field(default_factory=dict)

    def score(self, score: Score, candidates: dict[int, list[Value]]) -> dict[int, list[Scored]]:
        """Return what candidates of rows do: one call for all of them."""
        flat = [(value, row) for row, values in candidates.items() for value in values]
        scored: dict[int, list[Scored]] = {row: [] for row in candidates}
        if not flat:
            return scored
        damage, reached = score([value for value, _ in flat], [row for _, row in flat])
        for (value, row), hurt, done in zip(flat, damage.tolist(), reached.tolist(), strict=True):
            scored[row].append(Scored(bool(done), float(hurt), value))
            self.queries[row] = self.queries.get(row, 0) + 1
        return scored

    def begin(self, score: Score, standing: Sequence[int]) -> None:
        """Take note of the rows that are searched, and of what their values do."""
        given = {row: [value] for row in standing if (value := self.values[row]) is not None}
        for row, (scored,) in self.score(score, given).items():
            self._take(row, scored)

    def improve(self, threat: Threat, clean: Sequence[Value | None], scored: dict[int, list[Scored]]) -> set[int]:
        """Take of each row the worst admissible candidate that is worse than what was known; return which rows did.

        Args:
            threat: says what is admissible.
            clean: values of all rows.
            scored: candidates, by row.
        """
        waiting = {
            row: sorted((one for one in some if one[:2] > self._known(row)), key=lambda one: one[:2], reverse=True)
            for row, some in scored.items()
        }
        taken: set[int] = set()
        for rank in range(_REFUSALS):
            offered = {row: some[rank] for row, some in waiting.items() if row not in taken and rank < len(some)}
            if not offered:
                break
            originals = [before for row in offered if (before := clean[row]) is not None]
            passed = threat.admissible([one.value for one in offered.values()], originals)
            for (row, one), fine in zip(offered.items(), passed, strict=True):
                if fine:
                    self._take(row, one)
                    taken.add(row)
        return taken

    def standing(self) -> list[int]:
        """Return the rows that were searched and have not reached the goal."""
        return [row for row, done in self.reached.items() if not done]

    def _known(self, row: int) -> tuple[bool, float]:
        return self.reached[row], self.damage[row]

    def _take(self, row: int, scored: Scored) -> None:
        self.reached[row], self.damage[row], self.values[row] = scored


def greedy(
    score: Score,
    threat: Threat,
    values: Sequence[Value | None],
    clean: Sequence[Value | None],
    *,
    rounds: int,
    width: int,
    seed: int,
    standing: Sequence[int],
) -> Searched:
    """Take one edit after the other, each time the one that does most damage.

    In each round a row's neighbours are scored, `width` of them at most, and the worst admissible one is taken if it
    is worse than what was there. Where a value has parts, they are ordered once by the damage that leaving each out
    does (the word ranking of Jin et al. 2020), and neighbours are taken from the first parts on, from later ones where
    those do no more, and again from the first where some were not tried; else they are drawn. A row ends when it has
    reached the goal or nothing is left to try. What happens to a row depends on the seed and its position, and not on
    the other rows. Queries of a row: 1 + parts + rounds · width at most.

    Args:
        score: of candidates.
        threat: names neighbours.
        values: that the search starts from; None where a row has none.
        clean: that the budget lies around.
        rounds: at most.
        width: candidates of a row in a round, at most.
        seed: of all random numbers.
        standing: positions of the rows that are searched.
    """
    found = Searched(list(values))
    found.begin(score, standing)
    rows = {row: _Row(threat, before, seed, row) for row in found.standing() if (before := clean[row]) is not None}
    omitted = found.score(score, {row: state.omissions for row, state in rows.items()})
    for row, state in rows.items():
        state.rank(omitted[row])
    for _ in range(rounds):
        going = {
            row: value for row in found.standing() if not rows[row].done and (value := found.values[row]) is not None
        }
        if not going:
            break
        scored = found.score(score, {row: rows[row].candidates(value, width) for row, value in going.items()})
        taken = found.improve(threat, clean, scored)
        for row in going:
            if row in taken:
                rows[row].stay()
            else:
                rows[row].go_on()
    return found


class _Row:
    """Where the search stands in one row: which parts of its value come next."""

    def __init__(self, threat: Threat, clean: Value, seed: int, row: int) -> None:
        self.threat, self.clean = threat, clean
        self.random = np.random.default_rng([seed, row])
        self.omissions = threat.omissions(clean)
        self.done = False
        self._order: list[int] | None = None
        self._next, self._following, self._untried = 0, 0, False

    def rank(self, omitted: Sequence[Scored]) -> None:
        """Order the parts by what leaving each out does, the most harmful first."""
        if omitted:
            self._order = sorted(range(len(omitted)), key=lambda part: omitted[part][:2], reverse=True)

    def candidates(self, value: Value, width: int) -> list[Value]:
        """Return some neighbours of a value."""
        if self._order is None:
            self._untried = False
            return self._drawn(self.threat.neighbours(value, self.clean, self.random), width)
        made: list[Value] = []
        self._following = self._next
        # A part's share, so that one long word does not take it all.
        share = max(1, width // 4)
        while self._following < len(self._order) and len(made) < width:
            own = self.threat.neighbours(value, self.clean, self.random, [self._order[self._following]])
            made += self._drawn(own, min(share, width - len(made)))
            self._following += 1
        return made

    def stay(self) -> None:
        """Go on where it is, after a round that found something: what was tried is untried on the new value."""
        self._untried = True

    def go_on(self) -> None:
        """Turn to what was not tried yet, after a round in vain; be done where there is nothing."""
        self._next = self._following
        if self._order is None or self._next >= len(self._order):
            self.done = not self._untried
            self._next, self._untried = 0, False

    def _drawn(self, values: list[Value], most: int) -> list[Value]:
        if len(values) <= most:
            return values
        self._untried = True
        return [values[i] for i in self.random.permutation(len(values))[:most].tolist()]


def evolved(
    score: Score,
    threat: Threat,
    values: Sequence[Value | None],
    clean: Sequence[Value | None],
    *,
    generations: int,
    population: int,
    seed: int,
    standing: Sequence[int],
) -> Searched:
    """Search a table's values by evolution: what no single edit finds, several at once may.

    The discrete half of CAA (Simonetto et al. 2024) is MOEVA, which evolves a population towards damage, nearness and
    constraints at once; here there is one aim, the damage, for whatever is bred is mended into the budget. A child has
    each column of one of two parents at random, then up to three edits; the most harmful of parents and children live
    on. Not for texts, whose cells are not worth crossing. The worst value known is never lost. A row's result depends
    on the seed and its position alone.

    Args:
        score: of candidates.
        threat: names neighbours, and mends.
        values: that the search starts from; None where a row has none.
        clean: that the budget lies around.
        generations: at most.
        population: values of a row that live on, and children in a generation.
        seed: of all random numbers.
        standing: positions of the rows that are searched.
    """
    found = Searched(list(values))
    found.begin(score, standing)
    random = {row: np.random.default_rng([seed, row]) for row in found.standing()}
    living = {
        row: [Scored(False, found.damage[row], value)] for row in random if (value := found.values[row]) is not None
    }
    for _ in range(generations):
        going = found.standing()
        if not going:
            break
        children = {row: _bred(living[row], threat, clean[row], population, random[row]) for row in going}
        scored = found.score(score, children)
        found.improve(threat, clean, scored)
        for row in going:
            by_value = {one.value: one for one in (*living[row], *scored[row])}
            living[row] = sorted(by_value.values(), key=lambda one: one[:2], reverse=True)[:population]
    return found


def _bred(
    living: Sequence[Scored], threat: Threat, clean: Value | None, count: int, random: np.random.Generator
) -> list[Value]:
    """Return children that differ from each other and from those that live."""
    assert clean is not None
    known, made = {one.value for one in living}, dict[Value, None]()
    for _ in range(count):
        one, other = (living[int(random.integers(len(living)))].value for _ in range(2))
        first: NDArray[np.bool_] = random.random(len(clean)) < 0.5
        child = threat.mended(tuple(a if mine else b for a, b, mine in zip(one, other, first, strict=True)), clean)
        for _ in range(int(random.integers(1, 4))):
            near = threat.neighbours(child, clean, random)
            child = near[int(random.integers(len(near)))] if near else child
        if child not in known:
            made[child] = None
    return list(made)
