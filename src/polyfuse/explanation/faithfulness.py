"""Whether an attribution is faithful: what becomes of the output as pieces go, the most important ones first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from polyfuse.explanation.methods import Floats, Kept


@dataclass(frozen=True)
class Curve:
    """The output while pieces are taken away, or put back, in the order of attribution and in random orders.

    Attributes:
        shares: of the pieces that were taken away (deletion) or put back (insertion), from 0 to 1.
        ordered: the output at each share in the order of attribution, the largest first.
        random: the mean of the output over random orders.
        area: under `ordered`, by the trapezoidal rule.
        random_area: under `random`.
        gain: by how much the order is better than chance; above 0 where the attribution is faithful. Of a deletion
            random_area - area, of an insertion area - random_area; in the unit of the output.
    """

    shares: list[float]
    ordered: list[float]
    random: list[float]
    area: float
    random_area: float
    gain: float


@dataclass(frozen=True)
class Faithfulness:
    """Deletion and insertion (Petsiuk et al. 2018) over one baseline.

    Attributes:
        baseline: what stands in the place of a piece that is gone.
        deletion: from all pieces to none.
        insertion: from none to all.
        orders: number of random orders.
    """

    baseline: str
    deletion: Curve
    insertion: Curve
    orders: int


def faithfulness(
    function: Kept, weights: Floats, baseline: str, *, orders: int = 4, points: int = 17, seed: int = 0
) -> Faithfulness:
    """Measure the order of an attribution against random orders.

    Args:
        function: of which pieces are kept, (n, pieces) bool.
        weights: the attribution (pieces,); pieces with the largest go first.
        baseline: name of what the function puts in the place of a piece.
        orders: random ones.
        points: of a curve, at most.
        seed: of the random orders.
    """
    pieces, drawn = len(weights), np.random.default_rng(seed)
    every = [np.argsort(-weights, kind="stable"), *(drawn.permutation(pieces) for _ in range(orders))]
    counts = np.unique(np.linspace(0, pieces, min(points, pieces + 1)).round().astype(int))
    gone = np.zeros((len(every), len(counts), pieces), dtype=bool)
    for i, order in enumerate(every):
        for j, count in enumerate(counts):
            gone[i, j, order[:count]] = True
    asked = torch.from_numpy(np.stack([~gone, gone]).reshape(-1, pieces))
    # All orders begin and end alike: nothing is asked twice.
    distinct, place = torch.unique(asked, dim=0, return_inverse=True)
    values = function(distinct).detach().cpu().double()[place].numpy().reshape(2, len(every), len(counts))
    shares = counts / pieces
    return Faithfulness(baseline, _curve(shares, values[0], -1), _curve(shares, values[1], 1), orders)


def _curve(shares: NDArray[np.float64], values: NDArray[np.float64], sign: int) -> Curve:
    ordered, random = values[0], values[1:].mean(0)
    area, chance = float(np.trapezoid(ordered, shares)), float(np.trapezoid(random, shares))
    return Curve(shares.tolist(), ordered.tolist(), random.tolist(), area, chance, sign * (area - chance))
