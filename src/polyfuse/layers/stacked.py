"""Linear layers that stand side by side, computed in one product."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """A linear layer for each of some positions: y_i = x_i W_i + b_i, with the initial spread of `nn.Linear`.

    Args:
        count: positions.
        inputs: width of each x_i.
        outputs: width of each y_i.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.count, self.outputs = count, outputs
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        # Flat: the optimizer tells biases, which do not decay, by their one dimension.
        self.bias = nn.Parameter(torch.empty(count * outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, count, inputs). Returns (batch, count, outputs)."""
        bias = self.bias.view(self.count, 1, self.outputs)
        return torch.baddbmm(bias, x.transpose(0, 1), self.weight).transpose(0, 1)
