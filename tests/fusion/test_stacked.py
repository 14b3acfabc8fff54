"""Linear layers side by side."""

from __future__ import annotations

import pytest
import torch

from polyfuse.layers.stacked import StackedLinear


def test_stacked_layers_are_linear_layers_side_by_side() -> None:
    torch.manual_seed(0)
    layer, x = StackedLinear(3, 2, 5), torch.randn(7, 3, 2)
    bias = layer.bias.view(3, 5)
    apart = [torch.nn.functional.linear(x[:, i], layer.weight[i].T, bias[i]) for i in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(apart, dim=1))


def test_initial_spread_is_that_of_a_linear_layer() -> None:
    torch.manual_seed(0)
    layer, linear = StackedLinear(2, 400, 300), torch.nn.Linear(400, 300)
    for found, expected in ((layer.weight, linear.weight), (layer.bias, linear.bias)):
        assert found.detach().std().item() == pytest.approx(expected.detach().std().item(), rel=0.1)
        assert found.detach().abs().max().item() == pytest.approx(400**-0.5, rel=0.01)


def test_biases_have_one_dimension_and_so_do_not_decay() -> None:
    layer = StackedLinear(3, 2, 5)
    assert (layer.weight.ndim, layer.bias.ndim) == (3, 1)
