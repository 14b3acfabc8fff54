"""The least change that turns an answer, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from polyfuse.attacks.contract import Attack
from polyfuse.attacks.goals import Rival
from polyfuse.attacks.problem import Point, Problem, pick
from polyfuse.attacks.regions import spread
from polyfuse.core.errors import InputError
from polyfuse.core.options import Count

_FIRST, _LAST = 0.05, 1e-4  # γ: share by which the reach grows or shrinks in a step
_RIVALS = 9  # wrong labels of which the nearest is sought
_HALVINGS = 10  # of the way back to the clean inputs, in the end
_NARROW = 0.01  # α at the end, from 1


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest inputs that are known to reach the goal.

    Attributes:
        inputs: by modality; the clean ones of a row of which none were found.
        factor: (rows,), how far they are, in radii of the regions: 0 where the clean inputs reach the goal already,
            infinite where none were found.
    """

    inputs: Point
    factor: Tensor


def minimal(problem: Problem, steps: int) -> Nearest:
    """Search, for each row, the inputs nearest to the clean ones that reach the goal: Fast Minimum-Norm (FMN).

    Of the searches for a least norm this one takes a gradient a step and has no constant to try, as Carlini & Wagner
    2017 has, and goes by any norm, as DDN (Rony et al. 2019) does not. With a reach ρ, at first what a linear model
    would need, -L / Σ_m r_m ‖∇_m L‖_* with L the damage: x ← P_ρ(x + α ρ r s(∇L)), s the steepest direction of the
    norm, and ρ ← min(ρ, best) (1 - γ) where the goal is reached, ρ (1 + γ) elsewhere; α and γ fall by a cosine. For the
    first half of the steps L is of the label that is nearest for a linear model (Moosavi-Dezfooli et al. 2016). Several
    inputs move together, each as far in its own radii: the norm is max_m ‖δ_m‖ / r_m.

    Source: Pintor et al. 2021, Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints,
    https://arxiv.org/abs/2102.12827.

    Args:
        problem: whose regions say the norms and the unit of each, not how far to go.
        steps: number of gradients.

    Raises:
        InputError: a region has no radius that could grow, or the goal has no end.
    """
    search = _Search(problem)
    for step in range(steps):
        search.step(step / max(1, steps - 1))
    return search.found()


class MinimalAttack(Attack):
    """The least change that turns each answer (FMN, Pintor et al. 2021), which counts where it lies in the region.

    Args:
        steps: number of steps.
    """

    def __init__(self, *, steps: Count = 100) -> None:
        self.steps = steps

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Yield the least change, and the same drawn out to the border: rounding to 8 bits takes a bit of it back."""
        found = minimal(problem, self.steps)
        yield problem.project(found.inputs)
        wider = torch.where(found.factor > 0, 1 / found.factor, 1.0).clamp(min=1.0)
        yield problem.project(_towards(problem.clean, found.inputs, wider))


class _Search:
    """Where each row is, how far it may go, and the nearest that reached the goal."""

    def __init__(self, problem: Problem) -> None:
        if not problem.goal.ends:
            raise InputError(
                "attack: minimal searches the least change that turns an answer; a number has no such turn"
            )
        fixed = [name for name, region in problem.regions.items() if not region.grows]
        if fixed:
            raise InputError(
                f"attack: minimal searches the least norm, and the threat to {', '.join(fixed)} has no radius that"
                " could grow; take linf, l2 or snr, or leave it out"
            )
        self.problem, self.x, self.best = problem, problem.clean, problem.clean
        self.reached = problem.goal.reached(problem.at_clean)
        self.least = torch.where(self.reached, 0.0, torch.inf)
        self.reach = torch.zeros_like(self.least)
        self.towards = self._towards_nearest()

    def step(self, share: float) -> None:
        """Take a step. share: of all steps that lie behind."""
        problem = self.problem
        # At first to the label that is nearest, which need not be the most likely one.
        gradient, damage, _ = problem.gradient(self.x, self.towards if share < 0.5 else problem.goal.damage)
        # Until the goal is reached once, as far as the damage would have to go if it were linear.
        straight = self._gauge(self.x) + self._distance(damage, gradient)
        fading = (1 + math.cos(math.pi * share)) / 2
        change = _LAST + (_FIRST - _LAST) * fading
        outside = torch.where(self.least.isfinite(), self.reach, straight) * (1 + change)
        self.reach = torch.where(self.reached, torch.minimum(self.reach, self.least) * (1 - change), outside)
        size = (_NARROW + (1 - _NARROW) * fading) * self.reach
        moved = {name: region.ascend(self.x[name], gradient[name], size) for name, region in problem.regions.items()}
        self.x = problem.map(lambda region: region.scaled(self.reach)).project(moved)
        self.reached = self._note(self.x)

    def found(self) -> Nearest:
        """Return the nearest, after halving the way back to the clean inputs."""
        near, far, end = torch.zeros_like(self.least), torch.ones_like(self.least), self.best
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            reached = self._note(_towards(self.problem.clean, end, middle))
            near, far = torch.where(reached, near, middle), torch.where(reached, middle, far)
        return Nearest(self.best, self.least)

    def _towards_nearest(self) -> Callable[[Tensor], Tensor]:
        """Return what to raise so as to reach the label that a linear model would take to be nearest."""
        problem, goal = self.problem, self.problem.goal
        rivals = goal.rivals(problem.at_clean, _RIVALS)
        if not rivals:
            return goal.damage
        distances = []
        for rival in rivals:
            gradient, ahead, _ = problem.gradient(problem.clean, rival.ahead)
            distances.append(self._distance(ahead, gradient))
        labels, least = torch.stack([rival.label for rival in rivals]), torch.stack(distances).argmin(0)
        return Rival(goal.truth, labels.gather(0, least[None]).squeeze(0)).ahead

    def _distance(self, damage: Tensor, gradient: Point) -> Tensor:
        """Return how far it is to where a linear damage would be 0, in radii (rows,)."""
        slope = torch.stack([region.slope(gradient[name]) for name, region in self.problem.regions.items()]).sum(0)
        return -damage.clamp(max=0) / slope.clamp(min=1e-12)

    def _note(self, x: Point) -> Tensor:
        """Keep inputs where they reach the goal and are nearer than what was known; return where they reach it."""
        reached, factor = self.problem.goal.reached(self.problem.output(x)), self._gauge(x)
        nearer = reached & (factor < self.least)
        self.best = {name: pick(nearer, value, self.best[name]) for name, value in x.items()}
        self.least = torch.where(nearer, factor, self.least)
        return reached

    def _gauge(self, x: Point) -> Tensor:
        return torch.stack([region.gauge(x[name]) for name, region in self.problem.regions.items()]).amax(0)


def _towards(clean: Mapping[str, Tensor], x: Mapping[str, Tensor], share: Tensor) -> Point:
    """Return clean + share (x - clean). share: (rows,)."""
    return {name: value + spread(share, value) * (x[name] - value) for name, value in clean.items()}
