"""The joint attack: every subset of the modalities, and of each row the worst."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from torch import Tensor

from polyfuse.attacks.contract import Attack
from polyfuse.attacks.greedy import evolved, greedy
from polyfuse.attacks.problem import Found, pick
from polyfuse.attacks.threat import Threat
from polyfuse.robustness.scene import Scene

_MOST_MODALITIES = 5  # of which all subsets are tried
_ROUNDS, _WIDTH = 10, 32  # of a greedy search: edits of a value, and candidates for each
_GENERATIONS, _POPULATION = 8, 16
_SAMPLED = 31  # subsets of more, beside each alone and all together


@dataclass(frozen=True, eq=False)
class Worst:
    """The worst that is known of some rows, when some modalities may change.

    Attributes:
        scene: the values that do it.
        damage: (rows,).
        reached: (rows,) bool.
    """

    scene: Scene
    damage: Tensor
    reached: Tensor

    @classmethod
    def at(cls, scene: Scene) -> Worst:
        """Return what the values of a scene do."""
        return cls(scene, *scene.damage())

    def or_worse(self, other: Worst) -> Worst:
        """Return of each row the worse of two."""
        better = (other.reached & ~self.reached) | ((other.reached == self.reached) & (other.damage > self.damage))
        if not bool(better.any()):
            return self
        values = {
            name: [theirs if taken else mine for taken, theirs, mine in zip(better.tolist(), more, some, strict=True)]
            for (name, some), more in zip(self.scene.values.items(), other.scene.values.values(), strict=True)
        }
        damage, reached = pick(better, other.damage, self.damage), pick(better, other.reached, self.reached)
        return Worst(self.scene.with_values(values), damage, reached)


def subsets(modalities: Sequence[str], seed: int) -> list[frozenset[str]]:
    """Return the subsets that are attacked, the smaller ones first: all but the empty one; of many modalities some.

    >>> [sorted(some) for some in subsets(["a", "b"], 0)]
    [['a'], ['b'], ['a', 'b']]
    """
    names = list(modalities)
    if len(names) <= _MOST_MODALITIES:
        return [frozenset(some) for size in range(1, len(names) + 1) for some in combinations(names, size)]
    random = np.random.default_rng(seed)
    drawn = {frozenset([name]) for name in names} | {frozenset(names)}
    while len(drawn) < len(names) + 1 + _SAMPLED:
        some = frozenset(name for name, taken in zip(names, random.random(len(names)) < 0.5, strict=True) if taken)
        if some:
            drawn.add(some)
    return sorted(drawn, key=lambda some: (len(some), sorted(some)))


def attacked(
    scene: Scene,
    threats: Mapping[str, Threat],
    attack: Attack,
    chosen: Sequence[frozenset[str]],
    seed: int,
    absent: Collection[str] = (),
) -> Iterator[tuple[frozenset[str], Worst]]:
    """Attack rows in every subset of the modalities, and yield the worst of each.

    A larger subset begins with the worst of the smaller ones inside it, so that it can only be worse. Of those that may
    be taken away, every part is, and what is left of the subset is changed.

    Args:
        scene: clean rows.
        threats: to each modality.
        attack: on what is continuous.
        chosen: subsets, the smaller ones first.
        seed: of all random numbers.
        absent: modalities that the adversary may take away; one of each row's stays.
    """
    worst_of: dict[frozenset[str], Worst] = {}
    known: dict[tuple[frozenset[str], frozenset[str]], Worst] = {}  # by what is taken away, and what is changed
    unchanged = Worst.at(scene)
    for some in chosen:
        worst = unchanged
        for smaller, found in worst_of.items():
            if smaller < some:
                worst = worst.or_worse(found)
        for gone in _parts(some.intersection(absent)):
            changed = some - gone
            if not changed <= threats.keys() or (gone and bool(worst.reached.all())):
                continue
            clean = scene.without(gone) if gone else scene
            start = Worst.at(clean) if gone else unchanged
            for (lacking, smaller), found in known.items():
                if lacking == gone and smaller < changed:
                    start = start.or_worse(found)
            mine = {name: threat for name, threat in threats.items() if name in changed}
            known[gone, changed] = _worsened(start, clean, mine, attack, seed)
            worst = worst.or_worse(known[gone, changed])
        worst_of[some] = worst
        yield some, worst


def _parts(names: frozenset[str]) -> Iterator[frozenset[str]]:
    """Return all subsets of some names, the empty one first."""
    return (frozenset(some) for size in range(len(names) + 1) for some in combinations(sorted(names), size))


def _worsened(worst: Worst, clean: Scene, threats: Mapping[str, Threat], attack: Attack, seed: int) -> Worst:
    """Search on where rows still stand: what is continuous first, then what is discrete, one modality after another."""
    if any(threat.continuous for threat in threats.values()) and not bool(worst.reached.all()):
        problem = worst.scene.problem(threats, clean)
        standing = (~worst.reached).nonzero().squeeze(1)
        found = attack(problem.rows(standing), seed=seed)
        whole = Found.at(problem, problem.clean, problem.at_clean).with_rows(standing, found)
        worst = worst.or_worse(Worst.at(worst.scene.moved(whole.inputs, threats, clean)))
    for name, threat in threats.items():
        if threat.discrete and not bool(worst.reached.all()):
            worst = worst.or_worse(_edited(worst, clean, name, threat, seed))
    return worst


def _edited(worst: Worst, clean: Scene, name: str, threat: Threat, seed: int) -> Worst:
    """Search the edits of one modality, given what was found in the others."""
    score = partial(worst.scene.scored, name)
    values, before = worst.scene.values[name], clean.values[name]
    standing = [row for row in (~worst.reached).nonzero().squeeze(1).tolist() if before[row] is not None]
    searched = greedy(score, threat, values, before, rounds=_ROUNDS, width=_WIDTH, seed=seed, standing=standing)
    if threat.continuous and searched.standing():  # a table, whose columns may have to change together
        searched = evolved(
            score,
            threat,
            searched.values,
            before,
            generations=_GENERATIONS,
            population=_POPULATION,
            seed=seed,
            standing=searched.standing(),
        )
    return Worst.at(worst.scene.with_values({name: searched.values}))
