"""The gradient attack without a step size to choose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from polyfuse.attacks.contract import Attack
from polyfuse.attacks.gradient import placed
from polyfuse.attacks.problem import Point, Problem, pick
from polyfuse.core.options import Count

_MOMENTUM = 0.75  # α: of the step itself, against that of the step before
_RISES = 0.75  # ρ: share of the steps between two checkpoints that have to raise the loss


class APGDAttack(Attack):
    """Auto-PGD (Croce & Hein 2020): momentum, and a step that halves where the loss has stopped to rise, row by row.

    z = P(x_t + η r s(∇L)), x_{t+1} = P(x_t + α (z - x_t) + (1 - α)(x_t - x_{t-1})), s the steepest direction of the
    norm. η begins at 2; at checkpoints, which come ever more often, it is halved, and x set back to the best so far,
    where fewer than ρ of the steps raised the loss, or where neither η nor the best loss changed since the last one.

    Source: Reliable evaluation of adversarial robustness, https://arxiv.org/abs/2003.01690.

    Args:
        steps: number of steps.
        restarts: how often it begins anew.
        scale_free: whether the loss is the one that does not change with the scale of the outputs (DLR).
    """

    def __init__(self, *, steps: Count = 50, restarts: Count = 1, scale_free: bool = False) -> None:
        self.steps, self.restarts, self.scale_free = steps, restarts, scale_free

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Climb, and yield both where the loss was highest and where the damage was."""
        for restart in range(self.restarts):
            problem = placed(problem, restart, random)
            yield from _Climb(problem, self.steps, problem.start(random), scale_free=self.scale_free).run()


class _Climb:
    """One run: where each row is, where it was best, and how wide its step is."""

    def __init__(self, problem: Problem, steps: int, x: Point, *, scale_free: bool) -> None:
        self.problem, self.steps = problem, steps
        self.of = problem.goal.scale_free if scale_free else problem.goal.loss
        gradient, loss, output = problem.gradient(x, self.of)
        self.x, self.before, self.gradient, self.loss = x, x, gradient, loss
        self.best, self.best_gradient, self.best_loss = x, gradient, loss
        self.worst, self.damage = x, problem.goal.damage(output)
        self.size = torch.full_like(loss, 2.0)
        self.rises, self.marked_loss = torch.zeros_like(loss), loss
        self.halved = torch.ones_like(loss, dtype=torch.bool)

    def run(self) -> Iterator[Point]:
        """Take all steps."""
        marks = checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            self._step(first=step == 1)
            if step in marks:
                self._check(marks[step])
        yield self.best
        yield self.worst

    def _step(self, *, first: bool) -> None:
        aim = self.problem.ascend(self.x, self.gradient, self.size)
        if first:
            moved = aim
        else:
            moved = self.problem.project(
                {
                    name: x + _MOMENTUM * (aim[name] - x) + (1 - _MOMENTUM) * (x - self.before[name])
                    for name, x in self.x.items()
                }
            )
        self.before, self.x = self.x, moved
        previous = self.loss
        self.gradient, self.loss, output = self.problem.gradient(moved, self.of)
        self.rises += self.loss > previous
        better = self.loss > self.best_loss
        self.best = _picked(better, moved, self.best)
        self.best_gradient = _picked(better, self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, self.loss, self.best_loss)
        damage = self.problem.goal.damage(output)
        self.worst = _picked(damage > self.damage, moved, self.worst)
        self.damage = torch.maximum(damage, self.damage)

    def _check(self, since: int) -> None:
        """Halve the steps of rows that do not get on, and put these back to their best."""
        idle = (self.rises < _RISES * since) | (~self.halved & (self.best_loss <= self.marked_loss))
        self.size = torch.where(idle, self.size / 2, self.size)
        self.x, self.before = _picked(idle, self.best, self.x), _picked(idle, self.best, self.before)
        self.gradient = _picked(idle, self.best_gradient, self.gradient)
        self.loss = torch.where(idle, self.best_loss, self.loss)
        self.halved, self.marked_loss = idle, self.best_loss.clone()
        self.rises = torch.zeros_like(self.rises)


def checkpoints(steps: int) -> dict[int, int]:
    """Return the steps after which the step size is judged, each with how many steps lie since the one before.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), in shares of all steps.

    >>> checkpoints(100)
    {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(round(shares[-1] - shares[-2] - 0.03, 6), 0.06))
    marks = list(dict.fromkeys(math.ceil(round(share * steps, 6)) for share in shares if share <= 1))
    return {mark: mark - before for before, mark in pairwise(marks)}


def _picked(which: Tensor, one: Point, other: Point) -> Point:
    return {name: pick(which, value, other[name]) for name, value in one.items()}
