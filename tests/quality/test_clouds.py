"""Point clouds that are there twice, in any order of their points, and what their shapes tell."""

from __future__ import annotations

import numpy as np
import pandas as pd

import polyfuse as pf
import shapes
from polyfuse.quality.clouds import near_clouds, shapes_of


def test_near_clouds() -> None:
    random = np.random.default_rng(0)
    cloud = random.normal(size=(30, 4)).astype(np.float32)
    turned = cloud[random.permutation(30)]
    grown = np.concatenate([3 * cloud[:, :3] + 10, cloud[:, 3:]], axis=1)
    moved = cloud + np.eye(30, 4, dtype=np.float32)
    keys = near_clouds([cloud, turned, np.concatenate([cloud, cloud]), grown, moved, cloud[:29]])
    assert keys[0] == keys[1] == keys[2] == keys[3]
    assert len(set(keys)) == 3


def test_shapes_do_not_turn_with_a_cloud_in_their_distances() -> None:
    random = np.random.default_rng(0)
    ball, box = (shapes.SOLIDS[name](400, random).astype(np.float32) for name in ("sphere", "cube"))
    again = shapes.sphere(400, random).astype(np.float32)
    found = shapes_of([ball, again, None, box, np.ones((1, 3), dtype=np.float32)])
    assert np.isnan(found[2]).all()
    assert np.isfinite(found[[0, 1, 3, 4]]).all()
    assert np.linalg.norm(found[0] - found[1]) < 0.5 * np.linalg.norm(found[0] - found[3])
    # By the definition: shares of distances between points, in 32 parts of the diameter.
    apart = [np.linalg.norm(a - b) for i, a in enumerate(ball[:50]) for b in ball[:i]]
    middle, radius = (ball[:50].min(0) + ball[:50].max(0)) / 2, 0.0
    radius = max(np.linalg.norm(point - middle) for point in ball[:50])
    shares = np.histogram(np.array(apart) / radius, 32, (0, 2))[0] / len(apart)
    assert np.allclose(shapes_of([ball[:50]])[0, :32] ** 2, shares, atol=0.01)


def test_a_table_of_clouds_is_checked() -> None:
    frame = shapes.solids(120)
    frame.loc[7, "solid"] = "cube"
    double = frame.iloc[[4]].assign(cloud=[frame["cloud"][4][::-1].copy()])
    found = pf.check(pd.concat([frame, double], ignore_index=True), target="solid")
    assert found.doubles.within.near == 1
    assert found.doubles.within.examples[0].rows == [4, 120]
    assert "shapes" in str(found.data())
