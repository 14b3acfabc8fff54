"""Whether an attack's figures can be believed: the ladder, convergence, and what masks a gradient.

Carlini et al. 2019, On Evaluating Adversarial Robustness, and Athalye et al. 2018, Obfuscated Gradients, say what goes
wrong where a defence looks better than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from polyfuse.attacks import ATTACKS
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.regions import Box, Region
from polyfuse.attacks.threat import Threat
from polyfuse.core.progress import Progress, Silent
from polyfuse.robustness.scene import Scene

_TOLERANCE = 0.05  # of the share of rows that an attack turns
_VANISHING = 0.05  # of rows without any gradient
_HUGE = 1e3  # factor on radii at which nothing can resist, where an input has no bounds
_RUNGS: dict[str, tuple[str, dict[str, int]]] = {
    "noise": ("noise", {"draws": 5}),
    "one step": ("fgsm", {}),
    "many steps": ("pgd", {"steps": 20}),
    "twice as many": ("pgd", {"steps": 40, "restarts": 2}),
    "no gradient": ("square", {"queries": 150}),
    "ensemble": ("ensemble", {"steps": 30, "queries": 150}),
}


@dataclass(frozen=True)
class Checked:
    """What the checks saw.

    Attributes:
        seen: figures, in words.
        warnings: what speaks against the figures of an attack.
    """

    seen: dict[str, str]
    warnings: list[str]


def check_attack(scene: Scene, threats: Mapping[str, Threat], seed: int, progress: Progress | None = None) -> Checked:
    """Climb the ladder on some rows: of each attack the share of rows whose answer it turns.

    Args:
        scene: clean rows.
        threats: to the modalities under attack; those without a region are not checked, nor is a regression, of which
            no answer is ever turned.
        seed: of all random numbers.
        progress: shows how far it is.
    """
    problem = scene.problem(threats, scene)
    if not problem.regions or not problem.goal.ends or not bool((~problem.goal.reached(problem.at_clean)).any()):
        return Checked({}, [])
    standing = problem.rows(~problem.goal.reached(problem.at_clean))
    turned: dict[str, float] = {}
    with (progress or Silent()).bar("Checking", len(_RUNGS) + 3) as bar:
        for rung, (name, options) in _RUNGS.items():
            turned[rung] = _turned(standing, name, options, seed)
            bar.advance(1)
        # Where each entry has bounds of its own, as in a table, these are the budget: there is no other radius to try.
        wider = {} if any(region.low.ndim for region in standing.regions.values()) else _WIDER
        for rung, (change, steps) in wider.items():
            turned[rung] = _turned(standing.map(change), "pgd", {"steps": steps}, seed)
            bar.advance(1)
        flat = _flat(standing)
        bar.advance(1)
    shares = ", ".join(f"{rung} {share:.0%}" for rung, share in turned.items())
    seen = {f"answers turned, of {len(standing)} right ones": shares, "rows without a gradient": f"{flat:.0%}"}
    if not problem.differentiable:
        said = "the model has no gradient: only a search without one was made, so the true worst case may be worse"
        return Checked(seen, [said])
    # On few rows two attacks differ by chance.
    return Checked(seen, _warnings(turned, flat, max(_TOLERANCE, len(standing) ** -0.5)))


def _warnings(turned: Mapping[str, float], flat: float, tolerance: float) -> list[str]:
    """Say what the ladder shows that should not be."""
    found = []
    if flat > _VANISHING:
        found.append(f"{flat:.0%} of the rows have no gradient: it is masked, and attacks along it say little")
    if max(turned["noise"], turned["no gradient"]) > turned["many steps"] + tolerance:
        found.append("a search without gradients does more damage than one along them: the gradient is masked")
    if turned["one step"] > turned["many steps"] + tolerance:
        found.append("one step does more damage than many: the gradient is masked")
    if turned["twice as many"] > max(turned["many steps"], turned["ensemble"]) + tolerance:
        found.append("twice the steps do more damage: the search has not converged, give it more")
    less, more = (turned.get(f"{much} the radius", turned["many steps"]) for much in ("half", "twice"))
    if not less - tolerance <= turned["many steps"] <= more + tolerance:
        found.append("damage does not grow with the radius: the search fails, or the gradient is masked")
    if turned.get("no limit", 1.0) < 1 - _TOLERANCE:
        found.append(
            f"without a limit only {turned['no limit']:.0%} of the answers are turned, and nothing can resist that:"
            " the gradient is masked"
        )
    return found


def _turned(problem: Problem, name: str, options: Mapping[str, int], seed: int) -> float:
    return float(ATTACKS.build(name, options)(problem, seed=seed).reached.float().mean())


def _flat(problem: Problem) -> float:
    """Return the share of rows whose gradient is zero in all modalities under attack."""
    if not problem.differentiable:
        return 1.0
    gradient, _, _ = problem.gradient(problem.clean)
    largest = torch.stack([value.abs().flatten(1).amax(1) for value in gradient.values()]).amax(0)
    return float((largest == 0).float().mean())


def _unlimited(region: Region) -> Region:
    """Return a region that is all that an input may be, or nearly so where there are no bounds."""
    reach = region.high - region.low
    if not bool(reach.isfinite().all()):
        return _by(_HUGE)(region)
    return Box(region.clean, region.free, region.low, region.high, region.levels, reach)


def _by(factor: float) -> Callable[[Region], Region]:
    """Return what multiplies the radius of a region; a region without one stays."""

    def change(region: Region) -> Region:
        return region.scaled(region.clean.new_full((len(region.clean),), factor)) if region.grows else region

    return change


_WIDER: dict[str, tuple[Callable[[Region], Region], int]] = {
    "half the radius": (_by(0.5), 20),
    "twice the radius": (_by(2.0), 20),
    "no limit": (_unlimited, 50),
}
