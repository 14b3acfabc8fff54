"""Attacks beside those of two other libraries, on the same model, rows and budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import foolbox
import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from polyfuse.attacks import ATTACKS
from polyfuse.attacks.goals import Wrong
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.regions import Ball, Box

ROWS, LABELS, SIDE = 200, 4, 12


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a small network, and rows that it was not trained on with their labels."""
    torch.manual_seed(0)
    patterns = torch.rand(LABELS, 1, SIDE, SIDE)
    y = torch.arange(1000) % LABELS
    x = (0.5 + 0.35 * (patterns[y] - 0.5) + 0.08 * torch.randn(1000, 1, SIDE, SIDE)).clamp(0, 1)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(144, LABELS)
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(12):
        for rows in torch.randperm(800).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval(), x[-ROWS:], y[-ROWS:]


def problem(net: nn.Module, x: Tensor, y: Tensor, radius: float, kind: str) -> Problem:
    common: dict[str, Any] = {"clean": x, "free": torch.ones_like(x, dtype=torch.bool)}
    common |= {"low": torch.tensor(0.0), "high": torch.tensor(1.0), "levels": 0}
    region = (
        Box(**common, radius=torch.tensor(radius))
        if kind == "linf"
        else Ball(**common, radius=torch.full((len(x),), radius))
    )

    def outputs(at: Mapping[str, Tensor], _: Tensor) -> Tensor:
        return net(at["x"])

    return Problem(outputs, {"x": region}, Wrong(y), torch.arange(len(x)))


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize(("kind", "radius"), [("linf", 0.042), ("l2", 0.38)])
def test_nobody_finds_more(trained: tuple[nn.Module, Tensor, Tensor], kind: str, radius: float) -> None:
    net, x, y = trained
    ours = {
        name: 1 - float(ATTACKS.build(name, options)(problem(net, x, y, radius, kind)).reached.float().mean())
        for name, options in {"pgd": {"steps": 40}, "apgd": {"steps": 40}, "ensemble": {"steps": 40}}.items()
    }
    pgd = foolbox.attacks.LinfPGD if kind == "linf" else foolbox.attacks.L2PGD
    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    torch.manual_seed(0)
    _, clipped, _ = pgd(steps=40, rel_stepsize=2.5 / 40)(model, x, y, epsilons=radius)
    norm: Any = np.inf if kind == "linf" else 2
    classifier = PyTorchClassifier(net, nn.CrossEntropyLoss(), (1, SIDE, SIDE), LABELS, clip_values=(0, 1))
    steps = {"norm": norm, "eps": radius, "eps_step": radius / 10, "max_iter": 40, "verbose": False}
    np.random.seed(0)  # noqa: NPY002
    outside = {"foolbox pgd": accuracy(net, clipped, y)}
    for name, kind_of in {"art pgd": ProjectedGradientDescentPyTorch, "art apgd": AutoProjectedGradientDescent}.items():
        chosen = steps | ({"nb_random_init": 1} if "apgd" in name else {"num_random_init": 1})
        found = kind_of(classifier, **chosen, batch_size=ROWS).generate(x.numpy(), y.numpy())
        assert float((torch.from_numpy(found) - x).flatten(1).norm(norm, 1).max()) < radius * 1.001
        outside[name] = accuracy(net, torch.from_numpy(found), y)
    assert accuracy(net, x, y) > 0.95
    assert 0.1 < ours["ensemble"] < 0.9, ours
    assert abs(ours["pgd"] - outside["foolbox pgd"]) <= 0.01 + 1e-6, (ours, outside)
    # The others find no more than a point beyond; that these find much more would be too good to be true.
    for name in ("apgd", "ensemble"):
        assert -0.06 < ours[name] - min(outside.values()) <= 0.01 + 1e-6, (ours, outside)
