"""Low-rank tensor fusion against the whole tensor that it never builds."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
import pytest
import torch
from torch import Tensor

from fusion.reference import (
    Array,
    aligned,
    array,
    build,
    dims,
    features,
    fit,
    norm,
    reordered,
    signs,
    subsets,
    survives_extremes,
)
from polyfuse.core.types import Features
from polyfuse.fusion.concat import ConcatFusion
from polyfuse.fusion.tensor import TensorFusion


def whole_tensor(fusion: TensorFusion) -> Array:
    """Return the weight tensor (dim, dim + 1, …, dim + 1) of which the factors are the CP decomposition."""
    count, dim, rank = len(fusion.names), fusion.dim, len(fusion.mix)
    weight = array(fusion.factors.weight).reshape(count, dim, rank, dim)
    bias = array(fusion.factors.bias).reshape(count, 1, rank, dim)
    augmented = np.concatenate([weight, bias], axis=1)
    whole = np.zeros((dim,) + (dim + 1,) * count)
    for out, r in itertools.product(range(dim), range(rank)):
        whole[out] += array(fusion.mix)[r] * reduce(np.multiply.outer, augmented[:, :, r, out])
    return whole


@pytest.mark.parametrize(("count", "dim", "rank"), [(1, 4, 2), (2, 4, 1), (3, 4, 3), (6, 3, 2)])
def test_the_outer_product_contracted_with_the_whole_tensor(count: int, dim: int, rank: int) -> None:
    widths, present = dims(count), subsets(count)
    given, fusion = features(widths, len(present)), build(TensorFusion, widths, dim=dim, rank=rank)
    found, whole = array(fusion(given, present).pooled), whole_tensor(fusion)
    for row in range(len(present)):
        outer = reduce(np.multiply.outer, [np.append(h, 1.0) for h in aligned(fusion, given, present, row)])
        contracted = np.array([(weight * outer).sum() for weight in whole])
        np.testing.assert_allclose(found[row], norm(fusion.norm, contracted + array(fusion.bias)))


def test_the_order_of_the_modalities_does_not_matter() -> None:
    widths, present, order = dims(3), subsets(3), [2, 0, 1]
    given, fusion = features(widths, len(present)), build(TensorFusion, widths, rank=3)

    def move(key: str, value: Tensor) -> Tensor:
        return value.unflatten(0, (3, -1))[order].flatten(0, 1) if key.startswith("factors") else value

    changed, state = reordered(fusion, widths, order, move)
    other = build(TensorFusion, changed, rank=3)
    other.load_state_dict(state)
    torch.testing.assert_close(other(given, present[:, order]).pooled, fusion(given, present).pooled)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_products_start_at_one_scale_for_any_number_of_modalities(count: int) -> None:
    torch.manual_seed(0)
    widths = {f"m{i}": 64 for i in range(count)}
    fusion = TensorFusion(widths, dim=128).eval()
    given = {name: Features.of_pooled(torch.randn(256, 64)) for name in widths}
    before: list[Tensor] = []
    fusion.norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
    with torch.no_grad():
        fusion(given, torch.ones(256, count, dtype=torch.bool))
    # Four terms of weight 1/2 each, of mean 1: the variance of one.
    assert float(before[0].var()) == pytest.approx((1 + 1 / count) ** count - 1, rel=0.15)
    assert float(before[0].mean()) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_rank_is_that_of_the_whole_tensor(rank: int) -> None:
    whole = whole_tensor(build(TensorFusion, dims(2), dim=5, rank=rank))
    assert [np.linalg.matrix_rank(weight) for weight in whole] == [rank] * 5


@pytest.mark.parametrize("count", [1, 6])
def test_extremes(count: int) -> None:
    torch.manual_seed(0)
    survives_extremes(TensorFusion(dims(count), dim=8), dims(count))


@pytest.mark.parametrize("factors", [2, 3])
def test_learns_products_that_concatenation_cannot(factors: int) -> None:
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        given, planted = signs(3, 128, generator)
        return given, (planted[:, :factors].prod(1) > 0).long()

    widths = {f"m{i}": 4 for i in range(3)}
    torch.manual_seed(0)
    assert fit(TensorFusion(widths, dim=32), 2, draw, steps=150)[0] < 0.05
    torch.manual_seed(0)
    assert fit(ConcatFusion(widths, dim=32), 2, draw, steps=150)[0] > 0.6


@pytest.mark.parametrize(("factors", "rate"), [(1, 1e-3), (2, 3e-3)])
def test_trains_with_eight_modalities(factors: int, rate: float) -> None:
    # The product of eight factors centred at 0 starts so small that in as many steps it hardly learns a single sign.
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        given, planted = signs(8, 64, generator)
        return given, (planted[:, :factors].prod(1) > 0).long()

    torch.manual_seed(0)
    fusion = TensorFusion({f"m{i}": 4 for i in range(8)}, dim=32)
    assert fit(fusion, 2, draw, steps=100, rate=rate)[0] < 0.1
