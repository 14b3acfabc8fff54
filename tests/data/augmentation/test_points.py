"""Augmentations of point clouds do what their formulas say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.data.geometry import sphere_of, turned
from polyfuse.data.schema import Column

COLUMN = Column(name="c", type="points")
CLOUD = np.concatenate(
    [np.random.default_rng(0).normal(size=(400, 3)) + 7, np.random.default_rng(1).random((400, 1))], axis=1
).astype(np.float32)
MIDDLE = (CLOUD[:, :3].min(0).astype(float) + CLOUD[:, :3].max(0)) / 2
RADIUS = np.sqrt(((CLOUD[:, :3] - MIDDLE) ** 2).sum(1)).max()


def changed(name: str, seed: int = 0, cloud: NDArray[np.float32] = CLOUD, **options: Any) -> NDArray[np.float64]:
    found = AUGMENTATIONS.build(name, options, COLUMN)(cloud, np.random.default_rng(seed), lambda: None)
    assert name == "point_drop" or np.array_equal(found[:, 3:], cloud[:, 3:])
    return np.asarray(found, dtype=np.float64)


def test_the_sphere_around_a_cloud() -> None:
    middle, radius = sphere_of(CLOUD[:, :3].astype(np.float64))
    assert np.allclose(middle, MIDDLE)
    assert radius == pytest.approx(RADIUS)


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, np.pi])
def test_a_turn_is_that_of_scipy(angle: float) -> None:
    places = CLOUD[:, :3].astype(np.float64)
    axis = np.array([2.0, -1.0, 2.0]) / 3
    expected = Rotation.from_rotvec(angle * axis).apply(places - MIDDLE) + MIDDLE
    assert np.allclose(turned(places, angle, axis), expected)
    flat = places[:, :2]
    middle = (flat.min(0) + flat.max(0)) / 2
    plane = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(turned(flat, angle, axis), (flat - middle) @ plane.T + middle)


def test_jitter_is_noise_of_that_deviation() -> None:
    moved = (changed("point_jitter", probability=1.0, deviation=0.02) - CLOUD)[:, :3]
    assert moved.std() == pytest.approx(0.02 * RADIUS, rel=0.1)
    assert np.abs(moved).max() <= 3.01 * 0.02 * RADIUS


def test_each_axis_is_stretched_by_a_factor_of_its_own() -> None:
    logs = []
    for seed in range(200):
        ratio = (changed("point_scale", seed, probability=1.0, factor=1.5)[:, :3] - MIDDLE) / (CLOUD[:, :3] - MIDDLE)
        factors = np.median(ratio, axis=0)
        assert np.allclose(ratio, factors, atol=1e-2)
        logs.append(np.log(factors))
    # Even between the ends: of U(-a, a) the standard deviation is a / √3.
    assert np.abs(logs).max() <= np.log(1.5) + 1e-3
    assert np.std(logs) == pytest.approx(np.log(1.5) / np.sqrt(3), rel=0.1)


def test_a_turn_leaves_what_is_upright() -> None:
    angles = []
    for seed in range(100):
        found = changed("point_turn", seed, probability=1.0, degrees=40.0)[:, :3] - MIDDLE
        before = CLOUD[:, :3] - MIDDLE
        assert np.allclose(found[:, 2], before[:, 2], atol=1e-5)
        assert np.allclose(np.hypot(*found[:, :2].T), np.hypot(*before[:, :2].T), atol=1e-4)
        turn = np.angle((found[:, 0] + 1j * found[:, 1]) / (before[:, 0] + 1j * before[:, 1]))
        assert np.allclose(turn, np.median(turn), atol=1e-2)
        angles.append(np.degrees(np.median(turn)))
    assert 30 < np.abs(angles).max() <= 40.1


def test_points_are_dropped_up_to_a_share() -> None:
    kept = [len(changed("point_drop", seed, share=0.6)) / 400 for seed in range(100)]
    assert 0.35 < min(kept) < 0.5
    assert np.mean(kept) == pytest.approx(0.7, abs=0.06)
    some = changed("point_drop", 3, share=0.6).astype(np.float32)
    places = [int(np.flatnonzero((point == CLOUD).all(1))[0]) for point in some]
    assert places == sorted(places)
