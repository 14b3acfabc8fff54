"""Where the points of a cloud lie, in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sphere_of(places: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the middle of the bounding box (axes,), and the distance of the farthest point from it.

    Args:
        places: (points, axes).
    """
    middle: NDArray[np.float64] = places.min(0) / 2 + places.max(0) / 2
    return middle, float(np.linalg.norm(places - middle, axis=1).max())


def turned(places: NDArray[np.float64], angle: float, axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places turned by an angle in radians around an axis through the middle of the bounding box.

    Rodrigues' formula, x cos θ + (k × x) sin θ + k (k · x) (1 - cos θ).

    Args:
        places: (points, 2 or 3); of two coordinates they turn in their plane.
        angle: θ.
        axis: k, (3,), of length 1.
    """
    middle, _ = sphere_of(places)
    x = np.zeros((len(places), 3))
    x[:, : places.shape[1]] = places - middle
    k = axis if places.shape[1] == 3 else np.array([0.0, 0.0, 1.0])
    around = x * np.cos(angle) + np.cross(k, x) * np.sin(angle) + np.outer(x @ k, k) * (1 - np.cos(angle))
    found: NDArray[np.float64] = middle + around[:, : places.shape[1]]
    return found


def parts_of(places: NDArray[Any], known: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Return to which of some points, far from each other, each place is nearest (places,).

    Args:
        places: (places, axes).
        known: (points, axes), among which the first is the farthest from the mean, and each next one farthest from
            those before it.
        most: parts; fewer where fewer points differ.
    """
    least = np.full(len(known), np.inf)
    apart: list[NDArray[Any]] = []
    far = int(np.linalg.norm(known - known.mean(0), axis=1).argmax())
    while len(apart) < most and least[far] > 0:
        least = np.minimum(least, np.linalg.norm(known - known[far], axis=1))
        apart.append(np.linalg.norm(places - known[far], axis=1))
        far = int(least.argmax())
    nearest: NDArray[np.int64] = np.argmin(apart, axis=0)
    return nearest
