"""Augmentations of point clouds."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from polyfuse.core.options import Share
from polyfuse.data.augmentation.contract import Augmentation, Other, Probability
from polyfuse.data.geometry import sphere_of, turned
from polyfuse.data.points import Cloud, coordinates
from polyfuse.data.schema import Column

Places: TypeAlias = NDArray[np.float64]

_VERTICAL = np.array([0.0, 0.0, 1.0])


class PlacesAugmentation(Augmentation):
    """What augmentations that move points share: what stands beside the coordinates stays as it is.

    Args:
        column: that is changed.
        probability: that a cloud is changed.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"points"})

    def __init__(self, column: Column, probability: float) -> None:
        super().__init__(column)
        self.probability = probability

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Cloud:
        """Move points."""
        cloud: Cloud = cell
        if random.random() >= self.probability:
            return cloud
        axes = coordinates(cloud.shape[1])
        moved = self.moved(cloud[:, :axes].astype(np.float64), random)
        with np.errstate(over="ignore"):
            changed: Cloud = np.concatenate([moved.astype(np.float32), cloud[:, axes:]], axis=1)
        # Near the largest float32 a move may go beyond it.
        return changed if np.isfinite(changed).all() else cloud

    @abstractmethod
    def moved(self, places: Places, random: np.random.Generator) -> Places:
        """Return other places (points, axes)."""


class PointJitterAugmentation(PlacesAugmentation):
    """Each coordinate moves by noise: x' = x + σ R n, n ~ N(0, 1) cut off at ±3, R the radius of the cloud.

    Args:
        column: that is changed.
        probability: that a cloud is changed.
        deviation: σ.
    """

    def __init__(
        self, column: Column, *, probability: Probability = 0.8, deviation: Annotated[float, Ge(0), Le(1)] = 0.01
    ) -> None:
        super().__init__(column, probability)
        self.deviation = deviation

    def moved(self, places: Places, random: np.random.Generator) -> Places:
        """Add noise."""
        _, radius = sphere_of(places)
        noise = random.standard_normal(places.shape).clip(-3, 3)
        return places + self.deviation * radius * noise


class PointScaleAugmentation(PlacesAugmentation):
    """Each axis is stretched by a factor of its own, around the middle: log s ~ U(± log factor).

    Args:
        column: that is changed.
        probability: that a cloud is changed.
        factor: most that an axis grows, and least, as a fraction, that it shrinks to.
    """

    def __init__(
        self, column: Column, *, probability: Probability = 0.8, factor: Annotated[float, Ge(1), Le(10)] = 1.25
    ) -> None:
        super().__init__(column, probability)
        self.factor = factor

    def moved(self, places: Places, random: np.random.Generator) -> Places:
        """Stretch."""
        middle, _ = sphere_of(places)
        factors: Places = self.factor ** random.uniform(-1, 1, places.shape[1])
        return middle + (places - middle) * factors


class PointTurnAugmentation(PlacesAugmentation):
    """A turn around the vertical axis, z; of two coordinates in their plane: θ ~ U(± degrees).

    Not among those that are chosen by themselves: nothing in a table tells whether a cloud that is turned means the
    same. Normals beside the coordinates do not turn with them.

    Args:
        column: that is changed.
        probability: that a cloud is changed.
        degrees: most that it turns, either way.
    """

    def __init__(
        self, column: Column, *, probability: Probability = 0.8, degrees: Annotated[float, Ge(0), Le(180)] = 180.0
    ) -> None:
        super().__init__(column, probability)
        self.degrees = degrees

    def moved(self, places: Places, random: np.random.Generator) -> Places:
        """Turn."""
        return turned(places, math.radians(self.degrees) * random.uniform(-1, 1), _VERTICAL)


class PointDropAugmentation(Augmentation):
    """Each point goes with a probability drawn for the cloud, p ~ U(0, share); one stays.

    Args:
        column: that is changed.
        share: most of the points that are likely to go.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"points"})

    def __init__(self, column: Column, *, share: Share = 0.5) -> None:
        super().__init__(column)
        self.share = share

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Cloud:
        """Drop points."""
        cloud: Cloud = cell
        kept = random.random(len(cloud)) >= random.uniform(0, self.share)
        kept[random.integers(len(cloud))] = True
        return cloud[kept]
