"""What is seen of point clouds: which are nearly the same, and their shapes as vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.geometry import sphere_of
from polyfuse.data.points import Cloud, coordinates

Floats: TypeAlias = NDArray[np.float32]

_DIGITS = 3
_SOME, _BINS, _CELLS = 256, 32, 4  # points whose distances are taken; bins of them; cells along an axis


def near_clouds(clouds: Sequence[Cloud]) -> list[bytes]:
    """Return a key for each cloud: the same where its points, in any order, agree in three digits of its radius."""
    keys = []
    for cloud in clouds:
        places, rest = _placed(cloud)
        rounded = np.round(np.concatenate([places, rest], axis=1), _DIGITS) + 0.0  # makes one zero of two
        keys.append(hashlib.blake2b(np.unique(rounded, axis=0).tobytes(), digest_size=16).digest())
    return keys


def shapes_of(clouds: Sequence[Cloud | None]) -> Floats:
    """Return the shape of each cloud as a vector, nan where there is none: (rows, n).

    That is how often each distance between two points occurs (D2 of Osada et al. 2002, Shape Distributions), which no
    turn changes, and how many points lie in each cell of a grid over the box around the unit sphere.
    """
    found = [None if cloud is None else _shape(cloud) for cloud in clouds]
    width = max((len(one) for one in found if one is not None), default=1)
    return np.stack([np.full(width, np.nan, dtype=np.float32) if one is None else one for one in found])


def _shape(cloud: Cloud) -> Floats:
    places, _ = _placed(cloud)
    some = places[np.linspace(0, len(places) - 1, min(_SOME, len(places))).astype(int)]
    apart = np.linalg.norm(some[:, None] - some[None], axis=2)[np.triu_indices(len(some), 1)]
    distances, _ = np.histogram(apart, _BINS, (0, 2))
    axes = places.shape[1]
    cells, _ = np.histogramdd(places, [_CELLS] * axes, [(-1, 1)] * axes)
    # Roots: counts that are small differ as much as large ones.
    parts = [np.sqrt(distances / max(1, len(apart))), np.sqrt(cells.ravel() / len(places))]
    return np.concatenate(parts).astype(np.float32)


def _placed(cloud: Cloud) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates within the unit sphere around the middle of the bounding box, and what stands beside them."""
    axes = coordinates(cloud.shape[1])
    places, rest = cloud[:, :axes].astype(np.float64), cloud[:, axes:].astype(np.float64)
    middle, radius = sphere_of(places)
    return (places - middle) / (radius or 1.0), rest
