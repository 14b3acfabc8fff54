"""Corruptions of point clouds do what their settings say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from polyfuse.data.corruption import CORRUPTIONS
from polyfuse.data.schema import Column

COLUMN = Column(name="c", type="points")
CLOUD = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
MIDDLE = (CLOUD[:, :3].min(0).astype(float) + CLOUD[:, :3].max(0)) / 2
RADIUS = np.sqrt(((CLOUD[:, :3] - MIDDLE) ** 2).sum(1)).max()
SEVERITIES = (1, 2, 3, 4, 5)


def damaged(name: str, severity: int, seed: int = 0) -> tuple[NDArray[np.float64], float]:
    corruption = CORRUPTIONS.build(name, {"severity": severity}, COLUMN)
    found = corruption(CLOUD, np.random.default_rng(seed), lambda: None)
    return np.asarray(found, dtype=np.float64), corruption.setting


def places_of(found: NDArray[np.float64]) -> list[int]:
    return [int(np.flatnonzero((point.astype(np.float32) == CLOUD).all(1))[0]) for point in found]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_settings(severity: int) -> None:
    found, deviation = damaged("point_jitter", severity)
    assert (found - CLOUD)[:, :3].std() == pytest.approx(deviation * RADIUS, rel=0.15)
    assert np.array_equal(found[:, 3:], CLOUD[:, 3:])
    found, factor = damaged("point_scale", severity)
    ratio = np.median((found[:, :3] - MIDDLE) / (CLOUD[:, :3] - MIDDLE), axis=0)
    assert np.allclose(np.maximum(ratio, 1 / ratio), factor, rtol=1e-4)
    found, degrees = damaged("point_turn", severity)
    before, after = CLOUD[:, :3] - MIDDLE, found[:, :3] - MIDDLE
    matrix, *_ = np.linalg.lstsq(before, after, rcond=None)
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
    assert np.degrees(np.arccos((np.trace(matrix) - 1) / 2)) == pytest.approx(degrees, rel=1e-3)
    found, share = damaged("point_drop", severity)
    assert len(set(places_of(found))) == len(found) == round((1 - share) * 200)
    found, share = damaged("region_drop", severity)
    gone = sorted({*range(200)} - {*places_of(found)})
    assert len(gone) == round(share * 200)
    # Those nearest to one of them.
    apart = np.linalg.norm(CLOUD[:, None, :3] - CLOUD[None, gone, :3], axis=2)
    assert any({*np.argsort(apart[:, i])[: len(gone)]} == {*gone} for i in range(len(gone)))
    found, share = damaged("point_outliers", severity)
    assert np.array_equal(found[:200], CLOUD)
    new = found[200:]
    assert len(new) == max(1, round(share * 200))
    assert np.linalg.norm(new[:, :3] - MIDDLE, axis=1).max() <= 1.5 * RADIUS * (1 + 1e-5)
    assert all((CLOUD[:, 3:] == point[3:].astype(np.float32)).all(1).any() for point in new)


def test_outliers_lie_anywhere_in_their_ball() -> None:
    new = np.concatenate([damaged("point_outliers", 5, seed)[0][200:, :3] for seed in range(30)])
    shares = np.linalg.norm(new - MIDDLE, axis=1) / (1.5 * RADIUS)
    assert (shares**3).mean() == pytest.approx(0.5, abs=0.03)  # even in the volume
    assert np.abs((new - MIDDLE).mean(0)).max() < 0.1 * RADIUS
