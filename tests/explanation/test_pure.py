"""Attribution, roll-out and faithfulness, each against a second derivation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from polyfuse.explanation.faithfulness import faithfulness
from polyfuse.explanation.methods import gradient_input, integrated_gradients, occlusion
from polyfuse.explanation.rollout import rollout

A, B = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.0, -4.0])


def quadratic(x: Tensor, y: Tensor) -> Tensor:
    return (A * x.square() + B * x).sum(1) + 3 * y.flatten(1).sum(1)


def test_integrated_gradients_of_a_quadratic_have_a_closed_form() -> None:
    x, before = torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[0.5, -1.0, 0.0]])
    y, other = torch.full((1, 2, 2), 2.0), torch.ones(1, 2, 2)
    (found, rest), converged = integrated_gradients(quadratic, [x, y], [before, other], steps=4, most=4)
    torch.testing.assert_close(found, A * (x**2 - before**2) + B * (x - before))
    torch.testing.assert_close(rest, 3 * (y - other))
    assert converged.change == pytest.approx(float(quadratic(x, y) - quadratic(before, other)))
    assert converged.relative < 1e-5
    assert converged.steps == 4


def test_steps_are_doubled_until_the_sum_is_complete_or_there_are_no_more() -> None:
    def kinked(x: Tensor) -> Tensor:
        return (x - 0.987).relu().sum(1)

    x, zero = torch.ones(1, 1), torch.zeros(1, 1)
    _, few = integrated_gradients(kinked, [x], [zero], steps=4, most=4)
    assert few.steps == 4
    assert few.relative > 0.1
    _, many = integrated_gradients(kinked, [x], [zero], steps=4, most=4096)
    assert 4 < many.steps < 4096
    assert many.relative <= 0.02
    assert many.delta == pytest.approx(many.relative * max(abs(many.change), 1e-9), abs=1e-3)


def test_gradient_times_input() -> None:
    x, y = torch.tensor([[1.0, 2.0, -1.0]]), torch.full((1, 2, 2), 2.0)
    found, rest = gradient_input(quadratic, [x, y])
    torch.testing.assert_close(found, x * (2 * A * x + B))
    torch.testing.assert_close(rest, torch.full((1, 2, 2), 6.0))


def interacting(kept: Tensor) -> Tensor:
    one, two, three, _ = kept.double().unbind(1)
    return 2 * one * two - three


def test_occlusion_is_the_fall_without_each_piece() -> None:
    # 2·1·1 - 1 = 1 with all; -1 without the first or the second, 2 without the third, 1 without the fourth.
    np.testing.assert_allclose(occlusion(interacting, 4, batch=3), [2, 2, -1, 0])


def test_roll_out_in_plain_numpy() -> None:
    drawn = np.random.default_rng(0)
    layers = []
    for _ in range(3):
        raw = drawn.random((2, 4, 5, 5))
        layers.append(raw / raw.sum(-1, keepdims=True))
    expected = np.stack([np.eye(5)] * 2)
    for attention in layers:
        for row in range(2):
            mixed = 0.5 * sum(attention[row][head] for head in range(4)) / 4 + 0.5 * np.eye(5)
            expected[row] = mixed @ expected[row]
    found = rollout([torch.from_numpy(attention) for attention in layers]).numpy()
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found.sum(-1), 1)


def test_areas_by_hand() -> None:
    effects = np.array([1.0, 4.0, 2.0, 3.0])

    def additive(kept: Tensor) -> Tensor:
        return kept.double() @ torch.from_numpy(effects)

    found = faithfulness(additive, effects, "nothing", orders=3, points=9, seed=7)
    assert found.deletion.shares == [0, 0.25, 0.5, 0.75, 1]
    assert found.deletion.ordered == [10, 6, 3, 1, 0]
    assert found.insertion.ordered == [0, 4, 7, 9, 10]
    assert found.deletion.area == pytest.approx((10 / 2 + 6 + 3 + 1) / 4)
    drawn = np.random.default_rng(7)
    left = np.zeros((3, 5))
    for i in range(3):
        order = drawn.permutation(4)
        left[i] = [10 - effects[order[:count]].sum() for count in range(5)]
    np.testing.assert_allclose(found.deletion.random, left.mean(0))
    np.testing.assert_allclose(found.insertion.random, 10 - left.mean(0))
    area = np.mean([(one[0] / 2 + one[1:4].sum() + one[4] / 2) / 4 for one in left])
    assert found.deletion.random_area == pytest.approx(area)
    assert found.deletion.gain == pytest.approx(area - 3.75)
    assert found.insertion.gain == pytest.approx(6.25 - (10 - area))
    assert found.deletion.gain > 0
    worst = faithfulness(additive, -effects, "nothing", orders=3, points=9, seed=7)
    assert worst.deletion.gain < 0
    assert worst.insertion.gain < 0


def test_a_curve_of_few_points_asks_the_same_question_once() -> None:
    asked: list[int] = []

    def counted(kept: Tensor) -> Tensor:
        asked.append(len(kept))
        return kept.double().sum(1)

    found = faithfulness(counted, np.arange(100.0), "nothing", orders=2, points=5)
    assert found.deletion.shares == [0, 0.25, 0.5, 0.75, 1]
    # Of 2 · 3 orders · 5 points, the ends are common to all.
    assert asked == [2 * 3 * 3 + 2]
    assert found.deletion.gain == 0
