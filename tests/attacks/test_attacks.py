"""Attacks on functions whose worst inputs are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyfuse.attacks import ATTACKS
from polyfuse.attacks.apgd import checkpoints
from polyfuse.attacks.goals import AnyLabel, Goal, Off, Rival, Towards, Wrong
from polyfuse.attacks.problem import Found, Problem
from polyfuse.attacks.regions import Ball, Box, Region

ROWS, LABELS = 12, 5
GRADIENT = {"pgd": {"steps": 20}, "apgd": {"steps": 30}, "ensemble": {"steps": 20, "queries": 20}}


def box(clean: Tensor, radius: float, low: float = -9.0, high: float = 9.0, levels: int = 0) -> Box:
    free = torch.ones_like(clean, dtype=torch.bool)
    return Box(clean, free, torch.tensor(low), torch.tensor(high), levels, torch.tensor(radius))


def ball(clean: Tensor, radius: float) -> Ball:
    free = torch.ones_like(clean, dtype=torch.bool)
    return Ball(clean, free, torch.tensor(-9.0), torch.tensor(9.0), 0, torch.full((len(clean),), radius))


def linear(regions: Mapping[str, Region], labels: int = 2, seed: int = 0) -> tuple[Problem, dict[str, Tensor]]:
    """Return the problem of a linear model of all modalities, and its weights (labels, entries)."""
    random = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(labels, region.clean[0].numel(), generator=random) for name, region in regions.items()}

    def outputs(x: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        return torch.stack([x[name].flatten(1) @ weights[name].T for name in x]).sum(0)

    rows = len(next(iter(regions.values())).clean)
    clean = outputs({name: region.clean for name, region in regions.items()}, torch.arange(rows))
    return Problem(outputs, regions, Wrong(clean.argmax(1)), torch.arange(rows)), weights


@pytest.mark.parametrize("name", ["fgsm", *GRADIENT])
@pytest.mark.parametrize("kind", ["box", "ball"])
def test_of_a_linear_model_the_worst_is_found(name: str, kind: str) -> None:
    make = box if kind == "box" else ball
    clean = {"a": torch.randn(ROWS, 7, generator=torch.manual_seed(1)), "b": torch.randn(ROWS, 3, 2)}
    problem, weights = linear({"a": make(clean["a"], 0.02), "b": make(clean["b"], 0.05)})
    found = ATTACKS.build(name, GRADIENT.get(name, {}))(problem)
    gap = {key: (weight[0] - weight[1]) for key, weight in weights.items()}
    # Two labels: the margin moves by r times the dual norm of the difference of their weights, in each modality.
    dual = {key: value.abs().sum() if kind == "box" else value.norm() for key, value in gap.items()}
    worst = problem.goal.damage(problem.at_clean) + 0.02 * dual["a"] + 0.05 * dual["b"]
    still = worst < 0  # elsewhere a search may end as soon as the answer is wrong
    # Steps of one size end near the border of a ball, and not on it.
    near = 0.02 if name == "pgd" else 1e-4
    torch.testing.assert_close(found.damage[still], worst[still], rtol=1e-3, atol=near)
    sure = worst.abs() > near
    assert found.reached[sure].equal(worst[sure] > 0)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_stays_inside_and_does_no_good(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 6 * 6, 16), nn.ReLU(), nn.Linear(16, LABELS))
    clean = torch.randint(256, (ROWS, 2, 3, 6, 6)) / 255
    region = box(clean, 0.03, 0.0, 1.0, 255)
    problem = Problem(lambda x, _: net(x["image"]), {"image": region}, Wrong(net(clean).argmax(1)), torch.arange(ROWS))
    found = ATTACKS.build(name, {"queries": 50} if "queries" in ATTACKS.options(name) else {})(problem, seed=3)
    x = found.inputs["image"]
    assert float((x - clean).abs().max()) <= 0.03 + 1e-6
    assert float((x * 255 - (x * 255).round()).abs().max()) < 1e-3
    assert bool((found.damage >= problem.goal.damage(problem.at_clean)).all())
    torch.testing.assert_close(found.damage, problem.goal.damage(net(x).detach()))
    again = ATTACKS.build(name, {"queries": 50} if "queries" in ATTACKS.options(name) else {})(problem, seed=3)
    assert again.inputs["image"].equal(x)


def network(seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, LABELS))
    for layer in net:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 3
    return net, torch.randn(200, 20)


def problem_of(net: nn.Module, x: Tensor, radius: float, **options: Any) -> Problem:
    regions = {"x": box(x, radius)}
    return Problem(lambda at, _: net(at["x"]), regions, Wrong(net(x).argmax(1)), torch.arange(len(x)), **options)


def test_more_of_a_search_does_more_damage() -> None:
    net, x = network()
    share = {}
    for name, options in {
        "noise": {"draws": 5},
        "fgsm": {},
        "pgd": {"steps": 10},
        "apgd": {"steps": 40},
        "ensemble": {"steps": 40, "queries": 100},
    }.items():
        share[name] = float(ATTACKS.build(name, options)(problem_of(net, x, 0.12)).reached.float().mean())
    assert share["noise"] < share["fgsm"] < share["pgd"] <= share["apgd"] <= share["ensemble"]
    assert 0.2 < share["ensemble"] < 1
    shares = [
        float(ATTACKS.build("apgd", {"steps": 20})(problem_of(net, x, radius)).reached.float().mean())
        for radius in (0.02, 0.06, 0.12, 0.25, 2.0)
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_without_a_gradient_square_does_what_it_can() -> None:
    net, x = network()
    blind = problem_of(net, x, 0.4, differentiable=False)
    assert not ATTACKS.build("pgd", {})(blind).reached.any()
    assert float(ATTACKS.build("ensemble", {"queries": 200})(blind).reached.float().mean()) > 0.8


def test_steps_in_turns_and_restarts() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(40, 6), torch.randn(40, 6)
    problem, _ = linear({"a": box(first, 0.1), "b": box(second, 0.1)}, labels=LABELS)
    pgd = ATTACKS.build("pgd", {"steps": 8, "turns": True, "random_start": False, "size": 0.25})
    found = pgd(problem)
    one, _, _ = problem.gradient(problem.clean)
    both = ATTACKS.build("pgd", {"steps": 4, "random_start": False, "size": 0.25})(problem)
    assert set(one) == {"a", "b"}
    # Four steps in each of two modalities: of this model as far as four steps in both at once.
    assert float((found.damage - both.damage).abs().max()) < 0.5
    assert bool((found.damage > problem.goal.damage(problem.at_clean)).all())


def test_rows_do_not_disturb_each_other() -> None:
    net, x = network()
    problem = problem_of(net, x, 0.1)
    pgd = ATTACKS.build("pgd", {"steps": 10, "random_start": False})
    whole, part = pgd(problem), pgd(problem.rows(torch.tensor([7, 3])))
    torch.testing.assert_close(whole.damage[[7, 3]], part.damage, rtol=1e-3, atol=1e-4)


def test_a_random_model_is_asked_several_times() -> None:
    net, x = network()
    noisy = nn.Sequential(nn.Dropout(0.5), net).train()
    asked = 0

    def outputs(at: Mapping[str, Tensor], _: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return noisy(at["x"])

    problem = Problem(outputs, {"x": box(x, 0.1)}, Wrong(net(x).argmax(1)), torch.arange(len(x)), draws=40)
    gradient, _, output = problem.gradient(problem.clean)
    assert asked == 40
    assert output.shape == (len(x), LABELS)
    again, _, _ = problem.gradient(problem.clean)
    single = Problem(outputs, {"x": box(x, 0.1)}, problem.goal, problem.numbers)
    rough = [single.gradient(single.clean)[0]["x"] for _ in range(2)]
    assert float((gradient["x"] - again["x"]).norm()) < 0.5 * float((rough[0] - rough[1]).norm())


def test_checkpoints_are_those_of_the_paper() -> None:
    shares, marks = [0.0, 0.22], checkpoints(100)
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    assert list(marks) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [round(100 * share) for share in shares[1:-1]] == list(marks)


def logits() -> tuple[Tensor, Tensor]:
    z = torch.randn(30, LABELS, generator=torch.manual_seed(2), dtype=torch.float64)
    return z, torch.randint(LABELS, (30,), generator=torch.manual_seed(3))


def test_goals_against_their_definitions() -> None:
    z, y = logits()
    wrong, label = Wrong(y), (y + 1) % LABELS
    rival = Rival(y, label)
    for row in range(30):
        others = [float(z[row, j]) for j in range(LABELS) if j != y[row]]
        order = sorted(z[row].tolist(), reverse=True)
        true = float(z[row, y[row]])
        assert float(wrong.damage(z)[row]) == pytest.approx(max(others) - true)
        assert bool(wrong.reached(z)[row]) == (max(others) > true)
        assert float(wrong.scale_free(z)[row]) == pytest.approx((max(others) - true) / (order[0] - order[2]))
        targeted = (float(z[row, label[row]]) - true) / (order[0] - (order[2] + order[3]) / 2)
        assert float(rival.loss(z)[row]) == pytest.approx(targeted)
        probability = torch.softmax(z[row], 0)[y[row]]
        assert float(wrong.loss(z)[row]) == pytest.approx(-float(probability.log()))
        assert bool(Towards(label).reached(z)[row]) == (int(z[row].argmax()) == int(label[row]))
        assert float(Towards(label).damage(z)[row]) == pytest.approx(
            float(z[row, label[row]]) - max(float(z[row, j]) for j in range(LABELS) if j != label[row])
        )
    many = torch.randint(2, (30, LABELS), generator=torch.manual_seed(4)).double()
    flipped = ((z >= 0) != many.bool()).any(1)
    assert AnyLabel(many).reached(z).equal(flipped)
    assert bool(((AnyLabel(many).damage(z) > 0) == flipped).all())
    numbers = Off(z[:, 0])
    assert numbers.damage(z[:, 1]).equal((z[:, 1] - z[:, 0]).abs())
    assert not numbers.reached(z[:, 1]).any()


def test_rivals_are_the_likeliest_wrong_labels() -> None:
    z, y = logits()
    rivals = Wrong(y).rivals(z, 3)
    assert len(rivals) == 3
    for row in range(30):
        wanted = sorted((j for j in range(LABELS) if j != y[row]), key=lambda j: -float(z[row, j]))[:3]
        assert [int(rival.label[row]) for rival in rivals if isinstance(rival, Rival)] == wanted
    assert Wrong(y % 2).rivals(z[:, :2], 3) == []
    goal: Goal = rivals[0].rows(torch.tensor([4]))
    assert float(goal.loss(z[4:5])) == pytest.approx(float(rivals[0].loss(z)[4]))


def test_the_worse_of_two_counts_row_by_row() -> None:
    one = Found({"x": torch.zeros(3, 1)}, torch.tensor([1.0, 5.0, -1.0]), torch.tensor([True, False, False]))
    two = Found({"x": torch.ones(3, 1)}, torch.tensor([9.0, 0.1, -2.0]), torch.tensor([False, True, False]))
    both = one.or_worse(two)
    assert both.inputs["x"].flatten().tolist() == [0.0, 1.0, 0.0]
    assert both.reached.tolist() == [True, True, False]
