"""The optimizers against their formulas, and the schedule against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from polyfuse.training.optimization import make_optimizer, schedule
from polyfuse.training.settings import TrainingSettings


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))


def gradients(step: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[0.3 * step, -0.1]]), np.array([0.2 - 0.1 * step])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_updates_follow_the_formula(optimizer: str) -> None:
    rate, decay = 0.05, 0.1
    model = Two()
    made = make_optimizer(
        model,
        {},
        TrainingSettings(optimizer=optimizer, learning_rate=rate, weight_decay=decay),  # type: ignore[arg-type]
    )
    values = [model.matrix.detach().numpy().copy(), model.bias.detach().numpy().copy()]
    first = [np.zeros_like(value) for value in values]
    second = [np.zeros_like(value) for value in values]
    for step in range(1, 5):
        for parameter, gradient in zip(model.parameters(), gradients(step), strict=True):
            parameter.grad = torch.from_numpy(gradient)
        made.step()
        for i, gradient in enumerate(gradients(step)):
            # Vectors do not decay; the decay is decoupled: θ ← θ − ηλθ beside the step along the gradient.
            values[i] = values[i] - rate * (decay if values[i].ndim == 2 else 0.0) * values[i]
            if optimizer == "sgd":
                first[i] = 0.9 * first[i] + gradient
                values[i] = values[i] - rate * first[i]
            else:
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                unbiased = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
                values[i] = values[i] - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        np.testing.assert_allclose(model.matrix.detach().numpy(), values[0], rtol=1e-9)
        np.testing.assert_allclose(model.bias.detach().numpy(), values[1], rtol=1e-9)


def test_weights_have_their_own_rates_and_frozen_weights_none() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    made = make_optimizer(model, dict.fromkeys(model[1].parameters(), 1e-5), TrainingSettings(learning_rate=0.01))
    rates = {id(parameter): group["lr"] for group in made.param_groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in model[0].parameters()} == {0.01}
    assert {rates[id(parameter)] for parameter in model[1].parameters()} == {1e-5}
    assert not any(id(parameter) in rates for parameter in model[2].parameters())


def test_schedule_rises_then_falls() -> None:
    settings = TrainingSettings(warmup=0.1)
    factors = [schedule(step, 100, settings) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[9] == pytest.approx(10 / 11)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert factors[10:] == sorted(factors[10:], reverse=True)
    constant = TrainingSettings(warmup=0.0, schedule="constant")
    assert {schedule(step, 10, constant) for step in range(10)} == {1.0}
