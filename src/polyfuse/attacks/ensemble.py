"""The default: several attacks one after the other, each on the rows that still stand."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from polyfuse.attacks.apgd import APGDAttack
from polyfuse.attacks.contract import Attack
from polyfuse.attacks.problem import Found, Point, Problem
from polyfuse.attacks.square import SquareAttack
from polyfuse.core.options import Count


class EnsembleAttack(Attack):
    """APGD on the loss, APGD towards each of the likeliest rivals, and Square, in the spirit of AutoAttack.

    Nothing needs to be tuned. Each attacks the rows that have not reached their goal yet (Croce & Hein 2020). Where a
    model has no gradient, Square is all there is.

    Args:
        steps: of each run of APGD.
        rivals: wrong labels that are aimed at, the likeliest ones; where there are none to choose from, APGD runs on
            the loss that is free of scale instead.
        restarts: of the first run of APGD.
        queries: of Square.
    """

    needs_gradient = False

    def __init__(self, *, steps: Count = 50, rivals: Count = 4, restarts: Count = 1, queries: Count = 500) -> None:
        self.steps, self.rivals, self.restarts, self.queries = steps, rivals, restarts, queries

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Yield the worst of all attacks."""
        seed = int(torch.randint(2**31, (), generator=random))
        found = Found.at(problem, problem.clean, problem.at_clean)
        for attack, aimed in self._attacks(problem):
            standing = (~found.reached).nonzero().squeeze(1)
            if not len(standing):
                break
            known = found.of(standing)
            found = found.with_rows(standing, known.or_worse(_measured(problem, aimed, standing, attack, seed)))
        yield found.inputs

    def _attacks(self, problem: Problem) -> Iterator[tuple[Attack, Problem]]:
        """Yield attacks, each with the problem as it is to see it."""
        if problem.differentiable:
            yield APGDAttack(steps=self.steps, restarts=self.restarts), problem
            rivals = problem.goal.rivals(problem.at_clean, self.rivals)
            for rival in rivals:
                yield APGDAttack(steps=self.steps), problem.aiming(rival)
            if not rivals:
                yield APGDAttack(steps=self.steps, scale_free=True), problem
        yield SquareAttack(queries=self.queries), problem


def _measured(problem: Problem, aimed: Problem, rows: torch.Tensor, attack: Attack, seed: int) -> Found:
    """Return what an attack on some rows finds, as the problem itself measures it."""
    return Found.at(problem.rows(rows), attack(aimed.rows(rows), seed=seed).inputs)
