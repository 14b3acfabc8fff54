"""Corruptions of point clouds, of the kinds of Sun et al. 2022, https://arxiv.org/abs/2201.12296."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.augmentation.contract import Other
from polyfuse.data.corruption.contract import Corruption
from polyfuse.data.geometry import sphere_of, turned
from polyfuse.data.points import Cloud, coordinates

_OUTER = 1.5  # radii of the cloud within which outliers lie


class CloudCorruption(Corruption[float]):
    """What corruptions of clouds share: at least one point stays, and numbers are those of float32."""

    reads: ClassVar[frozenset[str]] = frozenset({"points"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Cloud:
        """Damage a cloud."""
        cloud: Cloud = cell
        changed = self.change(cloud.astype(np.float64), coordinates(cloud.shape[1]), random)
        with np.errstate(over="ignore"):
            made: Cloud = changed.astype(np.float32)
        # Near the largest float32 a move may go beyond it.
        return made if np.isfinite(made).all() else cloud

    @abstractmethod
    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Return a changed cloud (points, numbers), never the one given. axes: how many numbers are coordinates."""


class PointJitterCorruption(CloudCorruption):
    """Noise of the sensor: x' = x + σ R n, n ~ N(0, 1) in each coordinate, R the cloud's radius. Setting: σ."""

    settings = (0.005, 0.01, 0.02, 0.04, 0.08)

    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Add noise."""
        _, radius = sphere_of(cloud[:, :axes])
        moved = cloud[:, :axes] + self.setting * radius * random.standard_normal((len(cloud), axes))
        return np.concatenate([moved, cloud[:, axes:]], axis=1)


class PointScaleCorruption(CloudCorruption):
    """Each axis stretched or squeezed, around the middle: by s or 1 / s. Setting: s."""

    settings = (1.1, 1.25, 1.5, 1.75, 2.0)

    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Stretch."""
        middle, _ = sphere_of(cloud[:, :axes])
        factors = self.setting ** random.choice([-1.0, 1.0], axes)
        return np.concatenate([middle + (cloud[:, :axes] - middle) * factors, cloud[:, axes:]], axis=1)


class PointTurnCorruption(CloudCorruption):
    """A turn around any axis, of two coordinates in their plane. Setting: the angle in degrees, either way."""

    settings = (5.0, 10.0, 20.0, 30.0, 45.0)

    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Turn."""
        axis = random.standard_normal(3)
        angle = math.radians(self.setting) * random.choice([-1.0, 1.0])
        places = turned(cloud[:, :axes], angle, axis / max(float(np.linalg.norm(axis)), 1e-12))
        return np.concatenate([places, cloud[:, axes:]], axis=1)


class PointDropCorruption(CloudCorruption):
    """Fewer points, as from a coarser scan. Setting: the share that is gone."""

    settings = (0.2, 0.4, 0.6, 0.75, 0.9)

    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Drop points at random."""
        kept = random.permutation(len(cloud))[: max(1, round((1 - self.setting) * len(cloud)))]
        return cloud[np.sort(kept)]


class RegionDropCorruption(CloudCorruption):
    """What lies around a point is hidden. Setting: the share of the points that are gone, those nearest to it."""

    settings = (0.1, 0.2, 0.3, 0.4, 0.5)

    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Drop the points around one."""
        places = cloud[:, :axes]
        apart = np.linalg.norm(places - places[random.integers(len(cloud))], axis=1)
        hidden = np.argsort(apart, kind="stable")[: min(round(self.setting * len(cloud)), len(cloud) - 1)]
        return np.delete(cloud, hidden, axis=0)


class PointOutliersCorruption(CloudCorruption):
    """Points where nothing is, evenly in a ball half as large again as the cloud's own. Setting: how many, as a share.

    At least one. What they have beside their coordinates is that of points of the cloud, drawn at random.
    """

    settings = (0.01, 0.03, 0.06, 0.12, 0.25)

    def change(self, cloud: NDArray[np.float64], axes: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Add points."""
        middle, radius = sphere_of(cloud[:, :axes])
        directions, lengths = random.standard_normal((len(cloud), axes)), random.random((len(cloud), 1))
        far = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12) * lengths ** (1 / axes)
        made = np.concatenate([middle + _OUTER * radius * far, random.permutation(cloud[:, axes:])], axis=1)
        return np.concatenate([cloud, made[: max(1, round(self.setting * len(cloud)))]])
