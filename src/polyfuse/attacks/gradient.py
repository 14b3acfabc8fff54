"""Attacks along the gradient with steps of one size, and their floor: noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le

from polyfuse.attacks.contract import Attack
from polyfuse.attacks.problem import Point, Problem
from polyfuse.core.options import Count


class NoiseAttack(Attack):
    """Inputs drawn from the regions: what an adversary does who knows nothing of the model.

    Args:
        draws: how many.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(self, *, draws: Count = 1) -> None:
        self.draws = draws

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Draw."""
        for _ in range(self.draws):
            yield problem.map(lambda region: region.anew(random)).start(random)


class FGSMAttack(Attack):
    """x' = P(x + r sign ∇L(x)), one step as wide as the region (Goodfellow et al. 2015); of an L2 ball, along ∇L/‖∇L‖₂.

    Source: Explaining and Harnessing Adversarial Examples, https://arxiv.org/abs/1412.6572.
    """

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Take the step."""
        gradient, _, _ = problem.gradient(problem.clean)
        problem = aimed(problem, gradient)
        yield problem.ascend(problem.clean, gradient, torch.ones(len(problem)).to(problem.numbers.device))


class PGDAttack(Attack):
    """x_{t+1} = P(x_t + s r sign ∇L(x_t)) from a random x_0 (Madry et al. 2018), in all modalities at once or in turns.

    Source: Towards Deep Learning Models Resistant to Adversarial Attacks, https://arxiv.org/abs/1706.06083.

    Args:
        steps: number of steps.
        size: s, of a step, in radii; 2.5 / steps when left out, with which any point of the region can be reached.
        restarts: how often it begins anew; the first time at the clean inputs where that is asked for.
        random_start: whether also the first run begins at a random point.
        turns: whether a step moves one modality, in turns, and not all.
    """

    def __init__(
        self,
        *,
        steps: Count = 20,
        size: Annotated[float, Gt(0), Le(10)] | None = None,
        restarts: Count = 1,
        random_start: bool = True,
        turns: bool = False,
    ) -> None:
        self.steps, self.size, self.restarts = steps, size, restarts
        self.random_start, self.turns = random_start, turns

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Climb."""
        for restart in range(self.restarts):
            problem = placed(problem, restart, random)
            x = problem.start(random) if self.random_start or restart else problem.clean
            yield self.climb(problem, x)

    def climb(self, problem: Problem, x: Point) -> Point:
        """Return where the steps lead from some inputs."""
        size = torch.full((len(problem),), self.size or 2.5 / self.steps, device=problem.numbers.device)
        names = list(problem.regions)
        for step in range(self.steps):
            gradient, _, _ = problem.gradient(x)
            moved = problem.ascend(x, gradient, size)
            mine = names[step % len(names)]
            x = {**x, mine: moved[mine]} if self.turns else moved
        return x


def placed(problem: Problem, restart: int, random: torch.Generator) -> Problem:
    """Return the problem with regions that have a place put where the gradient is largest, at a restart anywhere."""
    if restart or not problem.differentiable:
        return problem.map(lambda region: region.anew(random))
    gradient, _, _ = problem.gradient(problem.clean)
    return aimed(problem, gradient)


def aimed(problem: Problem, gradient: Point) -> Problem:
    """Return the problem with regions put where a gradient is largest."""
    return replace(problem, regions={name: region.aimed(gradient[name]) for name, region in problem.regions.items()})
