"""Rows under attack, and what an attack finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from polyfuse.attacks.goals import Goal
from polyfuse.attacks.regions import Region

#: The continuous inputs of the modalities under attack, (rows, …) each.
Point: TypeAlias = dict[str, Tensor]
#: From such inputs and the numbers of their rows (rows,) to the model's raw output (rows, …).
Outputs: TypeAlias = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Any function of some inputs with bounds, and what is wanted of it.

    Attributes:
        outputs: the model, in evaluation mode: logits, not probabilities.
        regions: of each modality under attack.
        goal: what is wanted.
        numbers: (rows,) int64, by which `outputs` knows the rows.
        differentiable: whether a gradient of the outputs can be taken.
        draws: outputs that are averaged for one gradient, more than one where the model is random (expectation over
            transformation, Athalye et al. 2018).
    """

    outputs: Outputs
    regions: Mapping[str, Region]
    goal: Goal
    numbers: Tensor
    differentiable: bool = True
    draws: int = 1

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def clean(self) -> Point:
        """The inputs that the regions lie around."""
        return {name: region.clean for name, region in self.regions.items()}

    @cached_property
    def at_clean(self) -> Tensor:
        """The outputs at the clean inputs."""
        return self.output(self.clean)

    def rows(self, chosen: Tensor) -> Problem:
        """Return the problem of some rows. chosen: positions (n,), or (rows,) bool."""
        regions = {name: region.rows(chosen) for name, region in self.regions.items()}
        return replace(self, regions=regions, goal=self.goal.rows(chosen), numbers=self.numbers[chosen])

    def only(self, modalities: frozenset[str]) -> Problem:
        """Return the problem in which only some modalities may change."""
        return replace(self, regions={name: region for name, region in self.regions.items() if name in modalities})

    def aiming(self, goal: Goal) -> Problem:
        """Return the problem with another goal."""
        return replace(self, goal=goal)

    def map(self, change: Callable[[Region], Region]) -> Problem:
        """Return the problem with other regions."""
        return replace(self, regions={name: change(region) for name, region in self.regions.items()})

    def start(self, random: torch.Generator) -> Point:
        """Return inputs drawn from the regions."""
        return {name: region.start(random) for name, region in self.regions.items()}

    def project(self, x: Mapping[str, Tensor]) -> Point:
        """Return the nearest inputs in the regions."""
        return {name: region.project(x[name]) for name, region in self.regions.items()}

    def ascend(self, x: Mapping[str, Tensor], gradient: Mapping[str, Tensor], size: Tensor) -> Point:
        """Return inputs a step further in the steepest direction, projected. size: (rows,), in radii."""
        moved = {name: region.ascend(x[name], gradient[name], size) for name, region in self.regions.items()}
        return self.project(moved)

    @torch.no_grad()
    def output(self, x: Mapping[str, Tensor]) -> Tensor:
        """Return the outputs at some inputs, averaged over draws."""
        return torch.stack([self.outputs(x, self.numbers) for _ in range(self.draws)]).mean(0)

    def gradient(
        self, x: Mapping[str, Tensor], of: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Point, Tensor, Tensor]:
        """Return the gradient of a loss at some inputs, the loss (rows,), and the outputs (rows, …).

        Args:
            x: the inputs.
            of: from outputs to the loss (rows,); that of the goal when left out.
        """
        leaves = {name: value.detach().requires_grad_() for name, value in x.items()}
        with torch.enable_grad():
            output = torch.stack([self.outputs(leaves, self.numbers) for _ in range(self.draws)]).mean(0)
            loss = (of or self.goal.loss)(output)
            found = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        return gradients, loss.detach(), output.detach()


@dataclass(frozen=True)
class Found:
    """The worst inputs that are known of some rows.

    Attributes:
        inputs: by modality under attack.
        damage: (rows,), as the goal measures it.
        reached: (rows,) bool.
    """

    inputs: Point
    damage: Tensor
    reached: Tensor

    @classmethod
    def at(cls, problem: Problem, x: Mapping[str, Tensor], output: Tensor | None = None) -> Found:
        """Return what some inputs do; output: of the model there, asked for when left out."""
        output = problem.output(x) if output is None else output
        return cls(dict(x), problem.goal.damage(output), problem.goal.reached(output))

    def of(self, chosen: Tensor) -> Found:
        """Return what is known of some rows. chosen: positions (n,)."""
        inputs = {name: value[chosen] for name, value in self.inputs.items()}
        return Found(inputs, self.damage[chosen], self.reached[chosen])

    def or_worse(self, other: Found) -> Found:
        """Return of each row the worse of two: first what reaches the goal, then what does more damage."""
        better = (other.reached & ~self.reached) | ((other.reached == self.reached) & (other.damage > self.damage))
        return Found(
            {name: pick(better, other.inputs[name], value) for name, value in self.inputs.items()},
            pick(better, other.damage, self.damage),
            pick(better, other.reached, self.reached),
        )

    def with_rows(self, chosen: Tensor, other: Found) -> Found:
        """Return the same with some rows in the place of those that were there. chosen: positions (n,)."""
        return Found(
            {name: value.index_copy(0, chosen, other.inputs[name]) for name, value in self.inputs.items()},
            self.damage.index_copy(0, chosen, other.damage),
            self.reached.index_copy(0, chosen, other.reached),
        )


def pick(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return rows of one tensor where `which` (rows,) is true, of another elsewhere."""
    return torch.where(which.view(-1, *[1] * (one.ndim - 1)), one, other)
