"""The least change that turns an answer: linear models, where it is known, and two other libraries' searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import foolbox
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polyfuse.attacks import ATTACKS
from polyfuse.attacks.goals import AnyLabel, Off, Wrong
from polyfuse.attacks.minimal import minimal
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.regions import Ball, Box, Patch, Region
from polyfuse.core.errors import InputError

ROWS, LABELS, SIDE = 100, 4, 12


def region(kind: str, clean: Tensor, radius: float = 1.0, low: float = -1e3, high: float = 1e3) -> Region:
    common: dict[str, Any] = {"clean": clean, "free": torch.ones_like(clean, dtype=torch.bool), "levels": 0}
    common |= {"low": torch.tensor(low), "high": torch.tensor(high)}
    if kind == "box":
        return Box(**common, radius=torch.tensor(radius))
    return Ball(**common, radius=torch.full((len(clean),), radius))


@pytest.mark.parametrize("kind", ["box", "ball"])
@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("scale", [1e-2, 30.0])
def test_of_a_linear_model_it_is_the_distance_to_the_nearest_border(kind: str, labels: int, scale: float) -> None:
    drawn = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(labels, 8, generator=drawn), "b": torch.randn(labels, 6, generator=drawn)}
    radii = {"a": 0.02 * scale, "b": 0.5 * scale}
    clean = {"a": scale * torch.randn(ROWS, 8, generator=drawn), "b": scale * torch.randn(ROWS, 2, 3, generator=drawn)}

    def outputs(x: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        return torch.stack([x[name].flatten(1) @ weights[name].T for name in x]).sum(0)

    def margins(x: Mapping[str, Tensor], y: Tensor, names: list[str]) -> np.ndarray:
        """Return of each row and other label the gap over what a radius takes from it."""
        z = outputs(x, y).numpy()
        gap = z[np.arange(ROWS), y][:, None] - z
        order = 1 if kind == "box" else 2
        dual = sum(
            radii[name] * np.linalg.norm((weights[name][y][:, None] - weights[name]).numpy(), order, 2)
            for name in names
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(np.eye(labels)[y] == 1, np.inf, gap / dual).min(1)

    y = outputs(clean, torch.arange(ROWS)).argmax(1)
    for names in (["a"], ["b"], ["a", "b"]):
        regions = {name: region(kind, clean[name], radii[name]) for name in names}

        def some(x: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            return outputs({**{name: value[numbers] for name, value in clean.items()}, **x}, numbers)

        problem = Problem(some, regions, Wrong(y), torch.arange(ROWS))
        found = minimal(problem, 100)
        true = margins(clean, y, names)
        ratio = found.factor.numpy() / true
        assert bool((problem.goal.reached(problem.output(found.inputs))).all())
        assert ratio.min() > 1 - 1e-3
        assert np.median(ratio) < 1.005
        assert np.quantile(ratio, 0.9) < 1.02, np.quantile(ratio, [0.5, 0.9, 1.0])


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a small network, and rows with their labels."""
    torch.manual_seed(0)
    patterns = torch.rand(LABELS, 1, SIDE, SIDE)
    y = torch.arange(900) % LABELS
    x = (0.5 + 0.35 * (patterns[y] - 0.5) + 0.08 * torch.randn(900, 1, SIDE, SIDE)).clamp(0, 1)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU())
    net.append(nn.Linear(32, LABELS))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(12):
        for rows in torch.randperm(800).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval(), x[-ROWS:], y[-ROWS:]


def problem_of(net: nn.Module, x: Tensor, y: Tensor, kind: str, radius: float = 1.0) -> Problem:
    def outputs(at: Mapping[str, Tensor], _: Tensor) -> Tensor:
        return net(at["x"])

    return Problem(outputs, {"x": region(kind, x, radius, 0.0, 1.0)}, Wrong(y), torch.arange(len(x)))


@pytest.mark.parametrize("kind", ["ball", "box"])
def test_nobody_finds_nearer_ones(trained: tuple[nn.Module, Tensor, Tensor], kind: str) -> None:
    net, x, y = trained
    found = minimal(problem_of(net, x, y, kind), 100)
    norm = 2 if kind == "ball" else np.inf
    moved = (found.inputs["x"] - x).flatten(1)
    torch.testing.assert_close(moved.norm(norm, 1), found.factor)
    assert bool((net(found.inputs["x"]).argmax(1) != y).all())
    assert 0 <= float(found.inputs["x"].min()) <= float(found.inputs["x"].max()) <= 1
    attacks = foolbox.attacks
    others = (
        {
            "ddn": attacks.DDNAttack(steps=200),
            "carlini wagner": attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=150, stepsize=0.02),
            "fmn": attacks.L2FMNAttack(steps=200),
        }
        if kind == "ball"
        else {"fmn": attacks.LInfFMNAttack(steps=200)}
    )
    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    ours = float(found.factor.median())
    for name, attack in others.items():
        torch.manual_seed(0)
        _, theirs, success = attack(model, x, y, epsilons=None)
        assert float(success.float().mean()) > 0.9, name
        distance = (theirs - x).flatten(1).norm(norm, 1)
        assert ours <= 1.05 * float(distance[success].median()), (name, ours, float(distance[success].median()))


@pytest.mark.parametrize("kind", ["ball", "box"])
def test_inside_a_region_it_turns_what_others_turn(trained: tuple[nn.Module, Tensor, Tensor], kind: str) -> None:
    net, x, y = trained
    free = minimal(problem_of(net, x, y, kind), 100).factor
    radius = float(free.median())
    problem = problem_of(net, x, y, kind, radius)
    found = ATTACKS.build("minimal", {})(problem)
    assert float(problem.regions["x"].gauge(found.inputs["x"]).max()) <= 1 + 1e-5
    ours = float(found.reached.float().mean())
    assert ours == pytest.approx(0.5, abs=0.03)
    apgd = float(ATTACKS.build("apgd", {})(problem).reached.float().mean())
    assert abs(ours - apgd) < 0.05, (ours, apgd)


def test_what_is_wrong_already_is_no_distance_away_and_a_constant_has_no_other() -> None:
    clean = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))

    def outputs(x: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        return torch.stack([x["x"].sum(1) * 0 + 1, x["x"].sum(1) * 0], 1)

    y = torch.tensor([0, 1] * 3)
    problem = Problem(outputs, {"x": region("ball", clean)}, Wrong(y), torch.arange(6))
    found = minimal(problem, 5)
    assert found.factor.tolist() == [np.inf, 0.0] * 3
    assert found.inputs["x"].equal(clean)
    several = Problem(outputs, problem.regions, AnyLabel(torch.tensor([[1, 0]] * 6)), torch.arange(6))
    assert bool((minimal(several, 5).factor >= 0).all())


def test_what_has_no_radius_or_no_turn_is_told() -> None:
    images = torch.rand(2, 1, 3, 8, 8)
    common: dict[str, Any] = {"free": torch.ones_like(images, dtype=torch.bool), "levels": 0}
    patch = Patch(images, low=torch.tensor(0.0), high=torch.tensor(1.0), **common, side=2, inside=common["free"])

    def outputs(x: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        return x["x"].flatten(1)[:, :2]

    with pytest.raises(InputError, match="no radius that could grow"):
        minimal(Problem(outputs, {"x": patch}, Wrong(torch.zeros(2, dtype=torch.long)), torch.arange(2)), 5)
    off = Problem(outputs, {"x": region("ball", images)}, Off(torch.zeros(2, 2)), torch.arange(2))
    with pytest.raises(InputError, match="no such turn"):
        minimal(off, 5)
