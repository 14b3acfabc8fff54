"""Regions against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyfuse.attacks.regions import Ball, Box, Patch, Region

ROWS = 3
KINDS = ["box", "ball", "patch"]


def region(kind: str, seed: int, radius: float = 0.1) -> Region:
    """Return a region around images on 8 bits of which the last row's second image is padding."""
    random = torch.Generator().manual_seed(seed)
    clean = torch.randint(256, (ROWS, 2, 3, 6, 5), generator=random) / 255
    free = torch.ones_like(clean, dtype=torch.bool)
    free[-1, 1] = False
    common = {"clean": clean, "free": free, "low": torch.tensor(0.0), "high": torch.tensor(1.0), "levels": 255}
    if kind == "box":
        return Box(**common, radius=torch.tensor(radius))
    if kind == "ball":
        return Ball(**common, radius=torch.full((ROWS,), 10 * radius))
    return Patch(**common, side=2, inside=torch.zeros_like(free)).anew(random)


def distance(kind: str, where: Region, x: Tensor) -> Tensor:
    """Return how far inputs are from the clean ones, in radii: by the definition of the norm."""
    moved = (x - where.clean).double().flatten(1)
    if isinstance(where, Box):
        return moved.abs().amax(1) / where.radius
    if isinstance(where, Ball):
        return moved.square().sum(1).sqrt() / where.radius
    assert isinstance(where, Patch)
    changed = (x != where.clean).any(2).flatten(2).sum(2).amax(1)
    return changed / where.side**2


def assert_inside(kind: str, where: Region, x: Tensor) -> None:
    assert float(distance(kind, where, x).max()) <= 1 + 1e-5
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert x[~where.free].equal(where.clean[~where.free])


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), size=st.floats(0, 100), share=st.floats(0.01, 1))
def test_whatever_is_done_ends_inside(kind: str, seed: int, size: float, share: float) -> None:
    where = region(kind, seed)
    random = torch.Generator().manual_seed(seed)
    x = where.start(random)
    assert_inside(kind, where, x)
    gradient = torch.randn(x.shape, generator=random)
    moved = where.ascend(x, gradient, torch.full((ROWS,), size))
    projected = where.project(moved)
    assert_inside(kind, where, projected)
    assert torch.allclose(where.project(projected), projected, atol=1e-6)
    assert_inside(kind, where, where.jump(projected, share, random))
    real = where.finished(moved)
    assert_inside(kind, where, real)
    assert float((real * 255 - (real * 255).round()).abs().max()) < 1e-3
    assert where.project(where.clean).equal(where.clean)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_alone(kind: str) -> None:
    where = region(kind, 1)
    x = where.ascend(where.clean, torch.randn(where.clean.shape), torch.tensor([0.5, 1.0, 3.0]))
    for chosen in (torch.tensor([2, 0]), torch.tensor([False, True, False])):
        assert where.rows(chosen).project(x[chosen]).equal(where.project(x)[chosen])
        assert where.rows(chosen).finished(x[chosen]).equal(where.finished(x)[chosen])


def test_the_steepest_direction_gains_most_of_all_moves_of_that_length() -> None:
    for kind in ("box", "ball"):
        where = region(kind, 3)
        gradient = torch.randn(where.clean.shape)
        one = torch.ones(ROWS)
        best = ((where.ascend(where.clean, gradient, one) - where.clean) * gradient * where.free).flatten(1).sum(1)
        for seed in range(50):
            other = where.ascend(where.clean, torch.randn(gradient.shape, generator=torch.manual_seed(seed)), one)
            assert bool((((other - where.clean) * gradient * where.free).flatten(1).sum(1) <= best + 1e-4).all())


def test_a_ball_is_projected_onto_its_nearest_point() -> None:
    where = region("ball", 4)
    x = where.clean + 0.3 * torch.randn(where.clean.shape)
    moved = (x - where.clean).numpy().astype(np.float64) * where.free.numpy()
    for row in range(ROWS):
        length = np.sqrt((moved[row] ** 2).sum())
        expected = where.clean[row].numpy() + moved[row] * min(1, float(where.radius[row]) / length)
        assert np.abs(where.project(x)[row].numpy() - expected.clip(0, 1)).max() < 1e-5


def test_a_patch_goes_where_the_gradient_is_largest() -> None:
    where = region("patch", 5)
    gradient = torch.zeros_like(where.clean)
    gradient[:, :, :, 3:5, 2:4] = 1.0
    aimed = where.aimed(gradient)
    assert isinstance(aimed, Patch)
    expected = torch.zeros_like(aimed.inside)
    expected[:, :, :, 3:5, 2:4] = True
    assert aimed.inside.equal(expected)


def test_random_starts_fill_the_region() -> None:
    box = region("box", 6, radius=0.05)
    random = torch.Generator().manual_seed(0)
    drawn = torch.stack([box.start(random) - box.clean for _ in range(200)])
    inner = (box.clean > 0.06) & (box.clean < 0.94) & box.free
    assert float(drawn[:, inner].std()) == pytest.approx(0.05 / 3**0.5, rel=0.02)
    assert abs(float(drawn[:, inner].mean())) < 1e-3
