"""A search that asks the model for nothing but its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le

from polyfuse.attacks.contract import Attack
from polyfuse.attacks.problem import Found, Point, Problem
from polyfuse.core.options import Count

_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of all queries, after which blocks are half as large


class SquareAttack(Attack):
    """Random search over blocks (Andriushchenko et al. 2020): where a change of one block does damage, it stays.

    A block is a square of an image, a stretch of a recording or a vector, points of a cloud that lie together; what it
    becomes lies at the border of the region. Blocks cover a share of the input that halves as the search goes on.
    Gradients play no part, so neither do they mislead it.

    Source: Square Attack, https://arxiv.org/abs/1912.00049.

    Args:
        queries: outputs asked for, of each row.
        share: of the input that the first blocks cover.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(self, *, queries: Count = 500, share: Annotated[float, Gt(0), Le(1)] = 0.5) -> None:
        self.queries, self.share = queries, share

    def search(self, problem: Problem, random: torch.Generator) -> Iterator[Point]:
        """Search; rows that have reached their goal are left alone."""
        problem = problem.map(lambda region: region.anew(random))
        found = Found.at(problem, problem.start(random))
        standing = (~found.reached).nonzero().squeeze(1)
        names = list(problem.regions)
        for query in range(self.queries):
            if not len(standing):
                break
            some, known = problem.rows(standing), found.of(standing)
            name = names[query % len(names)]
            share = self.share / 2 ** sum(query >= at * self.queries for at in _HALVINGS)
            jumped = some.regions[name].jump(known.inputs[name], share, random)
            known = known.or_worse(Found.at(some, {**known.inputs, name: jumped}))
            found = found.with_rows(standing, known)
            standing = standing[~known.reached]
        yield found.inputs
