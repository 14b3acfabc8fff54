"""The contract of an attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch

from polyfuse.attacks.problem import Found, Point, Problem


class Attack(ABC):
    """A search for the worst input inside the regions of a problem.

    What a user may set is keyword-only. An author writes `search`; what it yields is made into inputs that can really
    be given, projected once more, measured, and kept where it is worse than what was known.

    Attributes:
        needs_gradient: whether the model has to be differentiable.
    """

    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def search(self, problem: Problem, random: torch.Generator) -> Iterable[Point]:
        """Yield inputs, each of all rows; whatever is worst for a row counts."""

    def __call__(self, problem: Problem, *, seed: int = 0, known: Found | None = None) -> Found:
        """Attack all rows.

        Args:
            problem: at least one row.
            seed: of all random numbers.
            known: the worst inputs so far; the clean ones when left out.

        Returns:
            Inputs in the regions, no less harmful than those known.
        """
        found = known or Found.at(problem, problem.clean, problem.at_clean)
        if self.needs_gradient and not problem.differentiable:
            return found
        random = torch.Generator().manual_seed(seed)
        for x in self.search(problem, random):
            real = {name: region.finished(x[name].detach()) for name, region in problem.regions.items()}
            found = found.or_worse(Found.at(problem, real))
        return found
