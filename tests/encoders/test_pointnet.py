"""The network over points: what does not count, what does, and which points of many are read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.data.points import Cloud
from polyfuse.data.schema import Column
from polyfuse.encoders.pointnet import PointNetEncoder, drawn
from polyfuse.testing import check_encoder
from polyfuse.testing.assertions import same_features


def column(size: int = 3) -> Column:
    return Column(name="cloud", type="points", size=size, scales=[2.0] * max(0, size - 3))


def some(count: int, size: int = 3, seed: int = 0) -> Cloud:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def encoded(encoder: PointNetEncoder, *clouds: Cloud) -> Features:
    with torch.no_grad():
        return encoder(**encoder.prepare([(cloud,) for cloud in clouds]))


@pytest.mark.parametrize("size", [2, 3, 4, 6])
@pytest.mark.parametrize("options", [{}, {"sized": True}, {"points": 8}])
def test_the_contract(size: int, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    values = [(some(count, size, count),) for count in (5, 40, 17)]
    check_encoder(lambda: PointNetEncoder([column(size)], width=8, **options), values)  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [8, 1024])
def test_order_and_repetition_do_not_count(points: int) -> None:
    encoder = PointNetEncoder([column(4)], width=8, points=points).eval()
    cloud = some(50, 4)
    turned, twice = cloud[np.random.default_rng(1).permutation(50)], np.concatenate([cloud, cloud[:30], cloud])
    expected = encoded(encoder, cloud)
    same_features(encoded(encoder, turned), expected, "another order")
    same_features(encoded(encoder, twice), expected, "points twice")


def test_place_and_size_do_not_count_unless_they_are_asked_for() -> None:
    cloud = some(50)
    encoder = PointNetEncoder([column()], width=8).eval()
    same_features(encoded(encoder, 4 * cloud + 8), encoded(encoder, cloud), "moved and larger")
    sized = PointNetEncoder([column()], width=8, sized=True).eval()
    same_features(encoded(sized, cloud + 8), encoded(sized, cloud), "moved")
    assert not torch.allclose(encoded(sized, 4 * cloud).pooled, encoded(sized, cloud).pooled, atol=1e-3)


def test_what_is_computed_is_the_maximum_over_points_and_octants() -> None:
    encoder = PointNetEncoder([column(5)], width=4).eval()
    cloud = some(30, 5)
    places = cloud[:, :3].astype(np.float64)
    places -= (places.min(0) + places.max(0)) / 2
    places /= np.sqrt((places**2).sum(1)).max()
    read = torch.from_numpy(np.concatenate([places, cloud[:, 3:] / 2], axis=1)).float()
    with torch.no_grad():
        each = encoder.shared(read)
        expected = encoder.norm(each.amax(0))
    found = encoded(encoder, cloud)
    assert torch.allclose(found.pooled[0], expected, atol=1e-5)
    octants = (places >= 0) @ [1, 2, 4]
    for octant in range(8):
        inside = torch.from_numpy(octants == octant)
        assert bool(found.mask[0, octant]) == bool(inside.any())
        if inside.any():
            token = encoder.norm(each[inside].amax(0)) + encoder.places[octant]
            assert torch.allclose(found.tokens[0, octant], token, atol=1e-5)


@given(seed=st.integers(0, 100), count=st.integers(1, 200), most=st.integers(1, 100))
def test_points_are_drawn_evenly_and_alike(seed: int, count: int, most: int) -> None:
    cloud = some(count, seed=seed)
    kept = drawn(cloud, most)
    assert len(kept) == min(count, most)
    places = [int(np.flatnonzero((cloud == point).all(1))[0]) for point in kept]
    assert places == sorted(places)
    # One point less changes one point at most.
    less = drawn(np.delete(cloud, count // 2, axis=0), most)
    assert len({*map(bytes, kept)} - {*map(bytes, less)}) <= 1


def test_the_draw_favours_no_place() -> None:
    grid = np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2).astype(np.float32)
    kept = drawn(grid, 2000)
    halves = [float((kept[:, axis] < 50).mean()) for axis in (0, 1)]
    parity = [float((kept[:, axis] % 2 == 0).mean()) for axis in (0, 1)]
    assert max(abs(share - 0.5) for share in halves + parity) < 0.05
    zeros = np.array([[0.0, 1.0], [-0.0, 1.0], [2.0, 2.0]], dtype=np.float32)
    assert len(drawn(zeros, 2)) == 2
    assert {*map(tuple, drawn(zeros, 2).tolist())} == {(0.0, 1.0), (2.0, 2.0)}


def test_clouds_that_are_hard() -> None:
    encoder = PointNetEncoder([column()], width=8, sized=True)
    hard = [np.zeros((1, 3)), np.full((5, 3), 3e38), np.array([[1e38] * 3, [-1e38] * 3]), np.full((2, 3), 1e-40)]
    tensors = encoder.prepare([*[(cloud.astype(np.float32),) for cloud in hard], None])
    tensors["points"].requires_grad_()
    found = encoder(**tensors)
    (found.pooled.sum() + found.tokens.sum()).backward()
    for tensor in (found.pooled, found.tokens, tensors["points"].grad):
        assert tensor is not None
        assert bool(tensor.isfinite().all())


def test_what_cannot_feed_it() -> None:
    with pytest.raises(InputError, match="pointnet reads one column, and 'cloud', 'cloud' are given"):
        PointNetEncoder([column(), column()])
    with pytest.raises(InputError, match="no training row has a cloud there"):
        PointNetEncoder([Column(name="cloud", type="points")])
