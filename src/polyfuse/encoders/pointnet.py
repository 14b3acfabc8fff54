"""Point clouds, by a network that is applied to each point alone and takes the maximum over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Share, Width
from polyfuse.core.types import Features, Tensors
from polyfuse.data.points import Cloud, coordinates
from polyfuse.data.schema import Column
from polyfuse.layers.clouds import sphere
from polyfuse.layers.dropout import Dropout
from polyfuse.layers.real import put_back, real_of

_LARGEST = 1e15  # its square is still a float32
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class PointNetEncoder(Encoder):
    """A network over each point, and the maximum over points: Qi et al. 2017, without the networks that align.

    A cloud is centred on the middle of its bounding box and scaled to the unit sphere around it, inside the network, so
    that an attack moves points in their own unit. Neither the order of points nor one that is there twice counts.
    Tokens are maxima over the octants of that sphere (quadrants of x and y alone), those without a point left out;
    `pooled` is the maximum over all points. Of longer clouds those points are kept whose hash is least: an even draw,
    that a point more or less hardly changes. What a point has beside its coordinates is divided by its root mean square
    in the training rows. `prepare` gives `points` (batch, points, numbers) float and `mask` (batch, points) bool.

    Source: PointNet, https://arxiv.org/abs/1612.00593.

    Args:
        columns: the column of points that feeds it.
        points: most of a cloud that are read.
        width: of the first layer; tokens are four times as wide.
        dropout: share of the tokens' entries that is zeroed in training.
        sized: whether the size of a cloud is read too, for where it says something and all are measured in one unit.

    Raises:
        InputError: several columns feed it, or no training row has a cloud.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"points"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {"points": (float("-inf"), float("inf"))}

    scales: Tensor

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        points: Annotated[int, Ge(8), Le(65_536)] = 1024,
        width: Width = 64,
        dropout: Share = 0.1,
        sized: bool = False,
    ) -> None:
        super().__init__()
        if len(columns) != 1:
            named = ", ".join(repr(column.name) for column in columns)
            raise InputError(f"pointnet reads one column, and {named} are given; let each feed a modality of its own")
        [column] = columns
        if not column.size:
            raise InputError(f"column {column.name!r}: no training row has a cloud there; leave the column out")
        self.size, self.points, self.sized = column.size, points, sized
        self.axes = coordinates(column.size)
        scales = [scale or 1.0 for scale in column.scales] or [1.0] * (self.size - self.axes)
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float32), persistent=False)
        self.dim = 4 * width
        self.shared = nn.Sequential(
            *_layer(self.size + sized, width), *_layer(width, 2 * width), nn.Linear(2 * width, self.dim)
        )
        self.norm = nn.LayerNorm(self.dim)
        self.places = nn.Parameter(0.02 * torch.randn(2**self.axes, self.dim))
        self.dropout = Dropout(dropout)

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Draw, and pad; an absent value is one point at the origin."""
        clouds = [np.zeros((1, self.size), np.float32) if value is None else self._kept(value[0]) for value in values]
        points = torch.zeros(len(clouds), max(map(len, clouds)), self.size)
        for i, cloud in enumerate(clouds):
            points[i, : len(cloud)] = torch.from_numpy(cloud)
        return {"points": points, "mask": torch.arange(points.shape[1]) < torch.tensor([[len(c)] for c in clouds])}

    def forward(self, points: Tensor, mask: Tensor) -> Features:
        """points: (batch, points, numbers), mask: (batch, points) bool."""
        middle, radius = sphere(points[:, :, : self.axes], mask)
        places = (points[:, :, : self.axes] - middle) / radius
        read = [places, points[:, :, self.axes :] / self.scales]
        if self.sized:
            read.append(torch.log1p(radius).expand(-1, points.shape[1], 1))
        found = put_back(self.shared(real_of(torch.cat(read, 2), mask)), mask)
        octants = ((places >= 0) * 2 ** torch.arange(self.axes, device=points.device)).sum(2)
        greatest = _greatest(found, torch.where(mask, octants, len(self.places)), len(self.places))
        there = greatest[:, :, 0] > -torch.inf
        tokens = self.norm(torch.where(there[:, :, None], greatest, 0.0)) + self.places
        return Features(self.dropout(tokens), there, self.dropout(self.norm(greatest.amax(1))))

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which numbers are of a point, and not padding."""
        return tensors["mask"][:, :, None].expand_as(tensors["points"])

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return clouds of the points that the network reads."""
        rows = zip(tensors["points"].detach().cpu(), tensors["mask"].cpu(), values, strict=True)
        return [None if value is None else (points[mask].numpy(),) for points, mask, value in rows]

    def preparation(self) -> dict[str, Any]:
        """Return how many points are read, and what is done to their numbers."""
        return {"points": self.points, "scales": self.scales.tolist()}

    def _kept(self, cloud: Cloud) -> Cloud:
        return drawn(cloud, self.points).clip(-_LARGEST, _LARGEST)


def drawn(cloud: Cloud, most: int) -> Cloud:
    """Return the points with the least hashes, each once and in their order, of a cloud that has more than `most`.

    The hash of a point is SplitMix64's mixing of the bits of its numbers, one after the other.
    """
    if len(cloud) <= most:
        return cloud
    hashes: NDArray[np.uint64] = np.zeros(len(cloud), dtype=np.uint64)
    for bits in (cloud + np.float32(0)).T.copy().view(np.uint32):  # the sum makes one zero of two
        hashes ^= bits
        for shift, factor in zip((30, 27), _MULTIPLIERS, strict=True):
            hashes = (hashes ^ (hashes >> np.uint64(shift))) * factor
        hashes ^= hashes >> np.uint64(31)
    _, first = np.unique(hashes, return_index=True)
    return cloud[np.sort(first[:most])]


def _layer(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Linear(inside, outside), nn.LayerNorm(outside), nn.ReLU()]


def _greatest(found: Tensor, group: Tensor, count: int) -> Tensor:
    """Return the maximum over each group of points (batch, count, dim), -∞ where there is none.

    Args:
        found: (batch, points, dim).
        group: (batch, points) int64, of each point; `count` of one that is in none.
        count: of groups.
    """
    none = found.new_full((found.shape[0], count + 1, found.shape[2]), -torch.inf)
    return none.scatter_reduce(1, group[:, :, None].expand_as(found), found, "amax")[:, :count]
