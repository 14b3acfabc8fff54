"""Feature-wise linear modulation, a second time in plain numpy, and what it can learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusion.reference import (
    aligned,
    array,
    build,
    columns,
    dims,
    features,
    fit,
    gelu,
    linear,
    reordered,
    signs,
    subsets,
    survives_extremes,
)
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.fusion import FUSIONS
from polyfuse.fusion.film import FilmFusion


@pytest.mark.parametrize(
    ("count", "condition", "place"),
    [(1, None, 0), (1, "forward", 0), (3, None, 2), (3, "forward", 0), (3, "keys", 1), (6, None, 5), (6, "a.b", 4)],
)
def test_each_other_modality_is_scaled_and_shifted(count: int, condition: str | None, place: int) -> None:
    widths, present = dims(count), subsets(count)
    given, fusion = features(widths, len(present)), build(FilmFusion, widths, condition=condition)
    found = array(fusion(given, present).pooled)
    for row in range(len(present)):
        h = aligned(fusion, given, present, row)
        parts = [h.pop(place)]
        if h:
            both = linear(fusion.modulation[2], gelu(linear(fusion.modulation[0], parts[0])))
            for i, each in enumerate(h):
                gamma, beta = both[4 * i : 4 * i + 4], both[4 * (len(h) + i) : 4 * (len(h) + i) + 4]
                parts.append((1 + gamma) * each + beta)
        np.testing.assert_allclose(found[row], linear(fusion.out, np.concatenate(parts)))


def test_a_single_modality_has_no_weights_for_a_modulation() -> None:
    assert [name.split(".")[0] for name, _ in FilmFusion({"text": 3}).named_children()] == [
        "projections",
        "absent",
        "dropout",
        "out",
    ]


def test_starts_as_concatenation() -> None:
    widths, present = dims(3), subsets(3)
    torch.manual_seed(0)
    fusion, given = FilmFusion(widths, dim=4).double().eval(), features(dims(3), len(present))
    h = fusion.pooled(given, present)[:, [2, 0, 1]]
    torch.testing.assert_close(fusion(given, present).pooled, fusion.out(h.flatten(1)))


def test_the_order_of_the_modalities_does_not_matter() -> None:
    widths, present, order = dims(4), subsets(4), [3, 1, 0, 2]
    given, fusion = features(widths, len(present)), build(FilmFusion, widths, condition="name")

    # The condition, the third, comes first of the parts; then the first, second and fourth, now fourth, second, first.
    def move(key: str, value: Tensor) -> Tensor:
        if key == "out.weight":
            return columns(value, [0, 3, 2, 1])
        if key.startswith("modulation.2"):
            return value.unflatten(0, (2, 3, -1))[:, [2, 1, 0]].flatten(0, 2)
        return value

    changed, state = reordered(fusion, widths, order, move)
    other = build(FilmFusion, changed, condition="name")
    other.load_state_dict(state)
    torch.testing.assert_close(other(given, present[:, order]).pooled, fusion(given, present).pooled)


def test_the_token_of_an_absent_condition_modulates() -> None:
    widths = dims(3)
    given, fusion = features(widths, 2), build(FilmFusion, widths)
    present = torch.tensor([[True, True, False], [True, True, True]])
    before = fusion(given, present).pooled
    with torch.no_grad():
        fusion.absent[2].add_(1.0)
    after = fusion(given, present).pooled
    assert not torch.allclose(after[0], before[0])
    assert after[1].equal(before[1])


def test_others_do_not_interact_with_each_other() -> None:
    # A second difference over two modalities is 0 where they only add up.
    widths, present = dims(3), torch.ones(4, 3, dtype=torch.bool)
    drawn = features(widths, 2)

    def interaction(one: str, two: str, fusion: Any) -> float:
        rows = {name: [0, 0, 0, 0] for name in widths} | {one: [0, 1, 0, 1], two: [0, 0, 1, 1]}
        y = fusion({name: each.rows(torch.tensor(rows[name])) for name, each in drawn.items()}, present).pooled
        return float((y[3] - y[2] - y[1] + y[0]).detach().abs().max())

    fusion = build(FilmFusion, widths, condition="forward")
    assert interaction("keys", "name", fusion) < 1e-12
    assert interaction("forward", "keys", fusion) > 1e-3
    assert interaction("forward", "name", fusion) > 1e-3


def test_an_unknown_condition_names_the_nearest() -> None:
    with pytest.raises(InputError, match="condition='txt' is none of the modalities; did you mean 'text'"):
        FUSIONS.build("film", {"condition": "txt"}, {"text": 3, "image": 4})
    with pytest.raises(InputError, match="choose from image, text"):
        FilmFusion({"text": 3, "image": 4}, condition="")


@pytest.mark.parametrize("count", [1, 6])
def test_extremes(count: int) -> None:
    torch.manual_seed(0)
    survives_extremes(FilmFusion(dims(count), dim=8), dims(count))


@pytest.mark.parametrize(
    ("condition", "pair", "learned"), [(None, [1, 2], True), ("m0", [0, 2], True), ("m0", [1, 2], False)]
)
def test_learns_products_with_the_condition_only(condition: str | None, pair: list[int], learned: bool) -> None:
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        given, planted = signs(3, 128, generator)
        return given, (planted[:, pair].prod(1) > 0).long()

    torch.manual_seed(0)
    found, _ = fit(FilmFusion({f"m{i}": 4 for i in range(3)}, dim=32, condition=condition), 2, draw, steps=200)
    # A product of two others is out of reach, as it is for concatenation: the loss stays near log 2.
    assert found < 0.1 if learned else found > 0.6


def test_a_trained_modulation_moves_from_identity() -> None:
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        given, planted = signs(2, 64, generator)
        return given, planted.prod(1, keepdim=True)

    torch.manual_seed(0)
    fusion = FilmFusion({"m0": 4, "m1": 4}, dim=16, dropout=0.0)
    assert fit(fusion, 1, draw, F.mse_loss, steps=150)[0] < 0.1
    assert fusion.modulation is not None
    assert float(fusion.modulation[2].weight.detach().abs().max()) > 0.05
