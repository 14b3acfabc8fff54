"""A small residual convolutional network, for images and spectrograms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: relu(x + norm conv relu norm conv x) (He et al. 2016)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width)."""
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + inner)


class ResidualNet(nn.Module):
    """A stem, then stages that each halve the map, until its shorter side is about 4.

    Args:
        channels: of the input.
        sides: height and width of the input.
        width: channels of the stem; they double from stage to stage, up to four times as many.
        depth: residual blocks in a stage.

    Attributes:
        dim: channels of the result.
        cells: height and width of the result.
    """

    def __init__(self, channels: int, sides: tuple[int, int], *, width: int, depth: int) -> None:
        super().__init__()
        # A stride in the stem keeps large inputs affordable.
        stride = 2 if min(sides) >= 48 else 1
        self.stem = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        sides = _halved(sides) if stride == 2 else sides
        blocks: list[nn.Module] = []
        last = width
        for stage in reversed(range(max(1, round(math.log2(min(sides) / 4))))):
            out = max(width, 4 * width >> stage)
            blocks += [ResidualBlock(last, out, 2), *(ResidualBlock(out, out, 1) for _ in range(depth - 1))]
            last, sides = out, _halved(sides)
        self.blocks = nn.Sequential(*blocks)
        self.dim, self.cells = last, sides

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width). Returns (batch, dim, *cells)."""
        x = x.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.blocks(F.relu(self.norm(self.stem(x))))
        return out


def _halved(sides: tuple[int, int]) -> tuple[int, int]:
    return (sides[0] + 1) // 2, (sides[1] + 1) // 2
