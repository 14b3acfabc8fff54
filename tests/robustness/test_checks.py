"""The ladder believes an honest model, and sees through those that only hide their gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyfuse.attacks.goals import Wrong
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.regions import Box, Patch
from polyfuse.robustness.checks import check_attack

LABELS = 4


class Rounds(torch.autograd.Function):
    """What a quantised input does: eight levels, and no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 8).round() / 8

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


@dataclass
class OneProblem:
    """Stands for a scene: the checks ask it for nothing else."""

    made: Problem

    def problem(self, *_: Any) -> Problem:
        return self.made


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    patterns = torch.rand(LABELS, 1, 1, 8, 8)
    y = torch.arange(600) % LABELS
    x = (0.5 + 0.4 * (patterns[y] - 0.5) + 0.08 * torch.randn(600, 1, 1, 8, 8)).clamp(0, 1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, LABELS))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[:500]), y[:500]).backward()
        optimizer.step()
    return net.eval(), x[500:], y[500:]


def problem(trained: tuple[nn.Module, Tensor, Tensor], wrapped: Callable[[nn.Module, Tensor], Tensor]) -> Problem:
    net, x, y = trained
    free = torch.ones_like(x, dtype=torch.bool)
    region = Box(x, free, torch.tensor(0.0), torch.tensor(1.0), 0, torch.tensor(0.05))

    def outputs(at: Mapping[str, Tensor], _: Tensor) -> Tensor:
        return wrapped(net, at["x"])

    return Problem(outputs, {"x": region}, Wrong(y), torch.arange(len(x)))


def warnings(made: Problem) -> str:
    return "; ".join(check_attack(OneProblem(made), {}, 0).warnings)  # type: ignore[arg-type]


def test_an_honest_model_is_believed(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    honest = problem(trained, lambda net, x: net(x))
    checked = check_attack(OneProblem(honest), {}, 0)  # type: ignore[arg-type]
    assert checked.warnings == []
    (shares, flat) = checked.seen.values()
    assert "no limit 100%" in shares
    assert flat == "0%"
    region = honest.regions["x"]
    common = {name: getattr(region, name) for name in ("clean", "free", "low", "high", "levels")}
    patch = Patch(**common, side=2, inside=torch.zeros_like(region.free))
    assert warnings(replace(honest, regions={"x": patch})) == ""


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        (lambda net, x: net(Rounds.apply(x)), "have no gradient"),
        (lambda net, x: 1e4 * net(x), "masked"),
        (lambda net, x: net(x.detach()) + 0 * x.sum(), "without a limit"),
        (lambda net, x: net(x) - 2 * (net(x) - net(x).detach()), "masked"),
    ],
)
def test_a_masked_gradient_is_not_praised(
    trained: tuple[nn.Module, Tensor, Tensor], wrapped: Callable[[nn.Module, Tensor], Tensor], said: str
) -> None:
    assert said in warnings(problem(trained, wrapped))


def test_a_model_without_a_gradient_says_so(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    blind = replace(problem(trained, lambda net, x: net(x)), differentiable=False)
    assert "has no gradient" in warnings(blind)
