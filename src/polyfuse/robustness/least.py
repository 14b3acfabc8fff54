"""The least change that turns each answer, over the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from polyfuse.attacks.minimal import minimal
from polyfuse.attacks.threat import Threat
from polyfuse.robustness.report import Least
from polyfuse.robustness.scene import Scene

#: On all radii: where the share of rows that stand is told.
FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def least_changes(
    scenes: Iterable[Scene], threats: Mapping[str, Threat], chosen: Sequence[frozenset[str]], steps: int
) -> dict[str, Least]:
    """Search, without a limit, the least change of each subset of what is continuous; not rounded to 8 bits.

    Args:
        scenes: clean rows, some at a time.
        threats: to each modality; of those with a region the radii are the unit.
        chosen: subsets.
        steps: of the search.
    """
    continuous = {name: threat for name, threat in threats.items() if threat.continuous and not threat.discrete}
    searched = [[name for name in continuous if name in some] for some in chosen if some <= continuous.keys()]
    found: list[list[torch.Tensor]] = [[] for _ in searched]
    for scene in scenes:
        for names, factors in zip(searched, found, strict=True):
            problem = scene.problem({name: continuous[name] for name in names}, scene)
            factors.append(minimal(problem, steps).factor)
    return {
        " + ".join(names): _least(torch.cat(factors), [continuous[name] for name in names])
        for names, factors in zip(searched, found, strict=True)
    }


def _least(factor: torch.Tensor, threats: Sequence[Threat]) -> Least:
    """Sum up the factors of all rows, 0 where the answer is wrong already."""
    right = factor[factor > 0]
    median = float(right.quantile(0.5, interpolation="higher")) if len(right) else float("nan")
    radius = threats[0].options().get("radius") if len(threats) == 1 else None
    return Least(
        median=median,
        norm=None if radius is None else median * radius,
        found=float(np.mean(right.isfinite().tolist())) if len(right) else float("nan"),
        curve={at: float((factor > at).float().mean()) for at in FACTORS},
    )
