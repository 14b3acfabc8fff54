"""Attribution of a number to what it was computed from: any function of tensors, and any function of pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, ones

from polyfuse.core.errors import import_extra

Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["integrated_gradients", "occlusion", "gradient_input", "rollout"]
#: From tensors (n, …) each to a number of each (n,), differentiable.
Function: TypeAlias = Callable[..., Tensor]
#: From which pieces are kept, (n, pieces) bool, to a number of each (n,).
Kept: TypeAlias = Callable[[Tensor], Tensor]

METHODS: tuple[Method, ...] = ("integrated_gradients", "occlusion", "gradient_input", "rollout")
#: An error of completeness, relative, from which on an integral is taken for the limit.
TOLERANCE = 0.02
_PURPOSE = "an explanation"


@dataclass(frozen=True)
class Convergence:
    """How well attributions sum to what they explain: Σ a = f(x) - f(x₀) for exact integrated gradients.

    Attributes:
        steps: of the integral.
        change: f(x) - f(x₀), in the unit of the output.
        delta: Σ a - change.
        relative: |delta| / max(|change|, Σ |a| / 10); 0 where both are 0.
    """

    steps: int
    change: float
    delta: float
    relative: float


def integrated_gradients(
    function: Function, point: Sequence[Tensor], baseline: Sequence[Tensor], *, steps: int, most: int, batch: int = 32
) -> tuple[list[Tensor], Convergence]:
    """Return (x - x₀) ∫₀¹ ∇f(x₀ + t (x - x₀)) dt of each tensor, and how well it converged (Sundararajan et al. 2017).

    The integral is a Gauss-Legendre sum; its steps are doubled until it is complete within TOLERANCE.

    Args:
        function: of as many tensors as there are.
        point: x, (1, …) each.
        baseline: x₀, of the same shapes.
        steps: of the integral, to begin with.
        most: steps that are never exceeded.
        batch: points that go through the function together.
    """
    captum = import_extra("captum.attr", "report", _PURPOSE)
    method = captum.IntegratedGradients(function)
    while True:
        found, _ = method.attribute(
            tuple(point), tuple(baseline), n_steps=steps, internal_batch_size=batch, return_convergence_delta=True
        )
        converged = _convergence(function, point, baseline, found, steps)
        if converged.relative <= TOLERANCE or 2 * steps > most:
            return [one.detach() for one in found], converged
        steps *= 2


def gradient_input(function: Function, point: Sequence[Tensor]) -> list[Tensor]:
    """Return x ∇f(x) of each tensor, (1, …) each (Shrikumar et al. 2016)."""
    captum = import_extra("captum.attr", "report", _PURPOSE)
    found = captum.InputXGradient(function).attribute(tuple(one.detach().requires_grad_() for one in point))
    return [one.detach() for one in found]


def occlusion(function: Kept, pieces: int, *, batch: int = 32) -> Floats:
    """Return by how much a function falls without each piece: f(all) - f(all but i), (pieces,) (Zeiler & Fergus 2014).

    Args:
        function: of which pieces are kept.
        pieces: their number.
        batch: questions put to the function together.
    """
    captum = import_extra("captum.attr", "report", _PURPOSE)
    method = captum.FeatureAblation(lambda kept: function(kept > 0.5))
    found = method.attribute(ones(1, pieces), baselines=0, perturbations_per_eval=min(batch, pieces))
    weights: Floats = found[0].detach().cpu().double().numpy()
    return weights


def _convergence(
    function: Function, point: Sequence[Tensor], baseline: Sequence[Tensor], found: Sequence[Tensor], steps: int
) -> Convergence:
    change = float(function(*point).detach()[0] - function(*baseline).detach()[0])
    total = sum(float(one.detach().double().sum()) for one in found)
    absolute = sum(float(one.detach().double().abs().sum()) for one in found)
    scale = max(abs(change), absolute / 10)
    delta = total - change
    return Convergence(steps, change, delta, abs(delta) / scale if scale > 0 else 0.0)
