"""Threat models of point clouds: points that move, points that are gone, points that are put in."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from annotated_types import Gt
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.attacks.regions import RadiusRegion, Region, spread, uniform
from polyfuse.attacks.threat import Sample, Seam, Threat, Value
from polyfuse.core.options import PositiveShare
from polyfuse.data.geometry import parts_of, sphere_of
from polyfuse.data.points import Cloud, coordinates
from polyfuse.data.schema import Column
from polyfuse.layers.clouds import sphere

_ROUNDING = 1e-5  # of a radius: what float32 may add to it
_ULP = 2.0**-22  # of the largest coordinate: what float32 may add to a move, twice over
_EDITS = 8  # edits that use up a budget
_PARTS = 24  # of a cloud, whose weight is told before points are dropped
_TRIED, _ROOM = 48, 1 << 18  # edits of a value that are tried at once, and points in all of them
_WIDE = 0.05  # of a group of points that is put in, in radii of the cloud


@dataclass(frozen=True, eq=False)
class Displacement(RadiusRegion):
    """Every point may move by so much: S(x) = {x' : ‖x'_i - x_i‖₂ ≤ r for each point i}."""

    def gauge(self, x: Tensor) -> Tensor:
        """Return max_i ‖x'_i - x_i‖₂ / r; 0 where nothing moved, whatever r is."""
        moved = torch.where(self.free, x - self.clean, 0.0).norm(dim=2).amax(1)
        return torch.nan_to_num(moved / self.radius, nan=0.0)

    def slope(self, gradient: Tensor) -> Tensor:
        """Return r Σ_i ‖g_i‖₂."""
        lengths: Tensor = (gradient * self.free).norm(dim=2).sum(1)
        return self.radius * lengths

    def start(self, random: torch.Generator) -> Tensor:
        """Each point evenly in its ball."""
        normal = torch.randn(self.clean.shape, generator=random, dtype=self.clean.dtype).to(self.clean.device)
        axes = self.free.sum(2, keepdim=True).clamp(min=1)
        length = uniform(self.clean[:, :, :1], random) ** (1 / axes)
        return self.project(self.clean + spread(self.radius, normal) * length * _each_unit(normal * self.free))

    def ascend(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Return x_i + size r g_i / ‖g_i‖₂."""
        return x + spread(size * self.radius, x) * _each_unit(gradient * self.free)

    def jump(self, x: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Set points that lie together to the border of their balls, all in one direction."""
        here = self.free.any(2)
        count = here.sum(1, keepdim=True)
        chosen = (uniform(count.to(x.dtype), random) * count).long().clamp(max=count.clamp(min=1) - 1)
        first = ((here.cumsum(1) - 1 == chosen) & here)[:, :, None]
        middle = torch.where(first, self.clean, 0.0).sum(1, keepdim=True)
        apart = torch.where(self.free, self.clean - middle, 0.0).norm(dim=2).masked_fill(~here, torch.inf)
        most = (share * count).round().long().clamp(min=1, max=x.shape[1])
        near = (apart <= apart.sort(1).values.gather(1, most - 1)) & here
        direction = torch.randn(len(x), 1, x.shape[2], generator=random, dtype=x.dtype).to(x.device)
        border = self.clean + spread(self.radius, x) * _each_unit(direction * self.free)
        return self.project(torch.where(near[:, :, None], border, x))

    def project(self, x: Tensor) -> Tensor:
        """Shorten the moves that are too long."""
        moved = torch.where(self.free, x - self.clean, 0.0)
        length = moved.norm(dim=2, keepdim=True).clamp(min=1e-30)
        return self._bounded(self.clean + moved * (spread(self.radius, moved) / length).clamp(max=1))


class CloudThreat(Threat):
    """What threats to clouds have in common: coordinates are told from what stands beside them, which never changes."""

    reads: ClassVar[frozenset[str]] = frozenset({"points"})

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__(columns)
        self._axes = coordinates(max((column.size or 0 for column in columns), default=0))


class DisplaceThreat(CloudThreat):
    """Each point may move by so much of the cloud's own radius: ‖x'_i - x_i‖₂ ≤ radius · R for each point i.

    R is the distance of the farthest point from the middle of the bounding box. No point comes or goes. Of a cloud with
    more points than the encoder reads, those that it reads are what moves, and what is left of it.

    Source: Liu, Yu and Su 2019, Extending Adversarial Attacks and Defenses to Deep 3D Point Cloud Classifiers,
    https://arxiv.org/abs/1901.03006.

    Args:
        columns: of the modality.
        radius: in radii of the cloud.
    """

    norm: ClassVar[str] = "L2 of each point, in radii of the cloud"
    main: ClassVar[str] = "radius"
    continuous: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], *, radius: Annotated[float, Gt(0)] = 0.05) -> None:
        super().__init__(columns)
        self.radius = radius

    def region(self, seam: Seam) -> Region:
        """Return a ball around each point."""
        free = seam.free.clone()
        free[:, :, self._axes :] = False
        places = seam.clean[:, :, : self._axes]
        _, radius = sphere(places, seam.free.any(2))
        # So that what float32 rounds, far from the origin, stays within.
        spare = _ULP * torch.where(free, seam.clean, 0.0).abs().flatten(1).amax(1)
        low, high = (seam.clean.new_tensor(end) for end in (seam.low, seam.high))
        reach = (self.radius * radius.flatten() - spare).clamp(min=0)
        return Displacement(seam.clean, free, low, high, 0, reach)

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return max_i ‖x'_i - x_i‖₂ / (radius · R) - 1; ∞ where points came or went, or changed beside their place."""
        assert clean.tensor is not None
        assert found.tensor is not None
        count = min(len(found.value[0]), len(found.tensor))
        before, after = clean.tensor.astype(np.float64), found.tensor.astype(np.float64)
        if (
            len(before) < count
            or before[count:].any()
            or (before[:count, self._axes :] != after[:count, self._axes :]).any()
        ):
            return math.inf
        before, after = before[:count, : self._axes], after[:count, : self._axes]
        _, radius = sphere_of(before)
        moved = float(np.linalg.norm(after - before, axis=1).max())
        return moved / max(self.radius * radius, 1e-12) - 1 - _ROUNDING


class CountedThreat(CloudThreat):
    """What threats have in common that count points: a share of the points of a cloud, an edit a group of them.

    Args:
        columns: of the modality.
        share: of a cloud's points, rounded down.
    """

    norm: ClassVar[str] = "L0 in points"
    main: ClassVar[str] = "share"
    discrete: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], *, share: PositiveShare = 0.1) -> None:
        super().__init__(columns)
        self.share = share

    def neighbours(
        self, value: Value, clean: Value, random: np.random.Generator, among: Sequence[int] | None = None
    ) -> list[Value]:
        """Return clouds with another group of points gone, or put in, drawn at random."""
        limit = self._limit(len(clean[0]))
        if not limit:
            return []
        tried = max(2, min(_TRIED, _ROOM // len(value[0])))
        return [(made,) for made in self._edited(value[0], clean[0], limit, tried, random, among)]

    def scaled(self, factor: float) -> Self:
        """Return the same threat with the share multiplied, at most all points."""
        return type(self)(self.columns, share=min(1.0, self.share * factor))

    def _limit(self, count: int) -> int:
        """Return how many points may change of so many."""
        return math.floor(self.share * count + 1e-9)

    def _excess(self, changed: int, count: int) -> float:
        """Return changed points relative to those allowed, less 1."""
        limit = self._limit(count)
        return changed / limit - 1 if limit else (math.inf if changed else -1.0)

    @abstractmethod
    def _edited(
        self,
        cloud: Cloud,
        clean: Cloud,
        limit: int,
        tried: int,
        random: np.random.Generator,
        among: Sequence[int] | None,
    ) -> Iterator[Cloud]:
        """Yield some clouds one edit away.

        Args:
            cloud: (points, numbers), within the budget.
            clean: that it was made from.
            limit: points that may change.
            tried: how many clouds.
            random: draws them.
            among: numbers of parts, as in `neighbours`.
        """


class DropThreat(CountedThreat):
    """Points are gone, at most a share of them; one stays. An edit takes points that lie together.

    Source: Zheng et al. 2019, PointCloud Saliency Maps, https://arxiv.org/abs/1812.01687.
    """

    def omissions(self, clean: Value) -> list[Value]:
        """Return the cloud without each of its parts."""
        [cloud] = clean
        part_of = self._parts(cloud, cloud)
        several = len(cloud) > _TRIED and part_of.max() > 0
        return [(cloud[part_of != part],) for part in range(int(part_of.max()) + 1)] if several else []

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return points that are gone relative to those allowed, less 1; ∞ where another one is there, or none."""
        before, after = _counted(clean.value[0]), _counted(found.value[0])
        if not after or after - before:
            return math.inf
        return self._excess((before - after).total(), len(clean.value[0]))

    def _edited(
        self,
        cloud: Cloud,
        clean: Cloud,
        limit: int,
        tried: int,
        random: np.random.Generator,
        among: Sequence[int] | None,
    ) -> Iterator[Cloud]:
        left = min(limit - (len(clean) - len(cloud)), len(cloud) - 1)
        size = min(left, math.ceil(limit / _EDITS))
        if size <= 0:
            return
        places = np.arange(len(cloud)) if among is None else np.flatnonzero(np.isin(self._parts(cloud, clean), among))
        for place in random.permutation(places)[:tried]:
            apart = np.linalg.norm(cloud[:, : self._axes] - cloud[place, : self._axes], axis=1)
            yield np.delete(cloud, np.argpartition(apart, size - 1)[:size], axis=0)

    def _parts(self, cloud: Cloud, clean: Cloud) -> NDArray[np.int64]:
        """Return the part of the clean cloud that each point lies in (points,)."""
        return parts_of(cloud[:, : self._axes], clean[:, : self._axes], _PARTS)


class AddThreat(CountedThreat):
    """Points are put in, at most a share of those there, within the cloud's sphere. An edit puts in some together.

    The sphere is around the middle of the bounding box, through the farthest point. What a point has beside its
    coordinates is that of the nearest one there.

    Source: Xiang, Qi and Li 2019, Generating 3D Adversarial Point Clouds, https://arxiv.org/abs/1809.07016.
    """

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return points that are new relative to those allowed, less 1; ∞ where one is gone, or lies outside."""
        before, after = _counted(clean.value[0]), _counted(found.value[0])
        if before - after:
            return math.inf
        middle, radius = sphere_of(clean.value[0][:, : self._axes].astype(np.float64))
        places = found.value[0][:, : self._axes].astype(np.float64)
        if float(np.linalg.norm(places - middle, axis=1).max()) > radius * (1 + _ROUNDING):
            return math.inf
        return self._excess((after - before).total(), len(clean.value[0]))

    def _edited(
        self,
        cloud: Cloud,
        clean: Cloud,
        limit: int,
        tried: int,
        random: np.random.Generator,
        among: Sequence[int] | None,
    ) -> Iterator[Cloud]:
        left = limit - (len(cloud) - len(clean))
        for _ in range(tried):
            made = self._group(clean, min(left, math.ceil(limit / _EDITS)) or math.ceil(limit / _EDITS), random)
            if left:
                yield np.concatenate([cloud, made])
            else:  # a group that was put in before goes elsewhere
                first = len(clean) + int(random.integers(limit - len(made) + 1))
                yield np.concatenate([cloud[:first], made, cloud[first + len(made) :]])

    def _group(self, clean: Cloud, size: int, random: np.random.Generator) -> Cloud:
        """Return some new points that lie together: (size, numbers)."""
        places = clean[:, : self._axes].astype(np.float64)
        middle, radius = sphere_of(places)
        # Half of the groups on the sphere itself, where a point counts most.
        far = 1.0 if random.random() < 0.5 else random.random() ** (1 / self._axes)
        drawn = far * _unit(random.normal(size=self._axes)) + _WIDE * random.normal(size=(size, self._axes))
        inside = max(0.0, radius - 2 * _ULP * float(np.abs(places).max()))
        made = middle + inside * drawn / np.maximum(1, np.linalg.norm(drawn, axis=1, keepdims=True))
        nearest = int(np.linalg.norm(places - made[0], axis=1).argmin())
        rest = np.repeat(clean[nearest : nearest + 1, self._axes :], size, axis=0)
        return np.concatenate([made, rest], axis=1).astype(np.float32)


def _counted(cloud: Cloud) -> Counter[bytes]:
    """Return how often each point is there."""
    return Counter(point.tobytes() for point in np.ascontiguousarray(cloud))


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit


def _each_unit(x: Tensor) -> Tensor:
    """Return each point divided by its L2 norm, zeros where that is 0. x: (rows, points, numbers)."""
    length: Tensor = x.norm(dim=2, keepdim=True)
    return x / length.clamp(min=1e-30)
