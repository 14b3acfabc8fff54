"""Attention bottlenecks, a second time in plain numpy; what passes through them, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusion.reference import (
    Array,
    aligned_tokens,
    array,
    block,
    build,
    dims,
    features,
    fit,
    norm,
    pool,
    reordered,
    signs,
    subsets,
    survives_extremes,
)
from polyfuse.core.types import Features
from polyfuse.fusion.bottleneck import BottleneckFusion
from polyfuse.layers.transformer import Attention


def answer(fusion: Any, streams: list[Array], counts: list[bool]) -> tuple[Array, Array]:
    """Return the tokens and the pooled vector of one row."""
    shared = np.stack([array(each) for each in fusion.bottlenecks])
    size = len(shared)
    for blocks in fusion.layers:
        versions = []
        for i, layer in enumerate(blocks):
            both = block(layer, np.concatenate([shared, streams[i]]))
            streams[i] = both[size:]
            versions.append(both[:size])
        shared = np.mean([each for each, counted in zip(versions, counts, strict=True) if counted], axis=0)
    tokens = np.concatenate([shared, *streams])
    return tokens, norm(fusion.norm, pool(fusion.pool, tokens))


@pytest.mark.parametrize(
    ("count", "depth", "heads", "bottlenecks"), [(1, 2, 1, 2), (3, 1, 2, 1), (3, 3, 2, 2), (6, 2, 4, 3)]
)
def test_modalities_meet_in_the_mean_of_the_bottlenecks(count: int, depth: int, heads: int, bottlenecks: int) -> None:
    widths, present = dims(count), subsets(count)
    given = features(widths, len(present))
    fusion = build(BottleneckFusion, widths, depth=depth, heads=heads, bottlenecks=bottlenecks)
    fused = fusion(given, present)
    for row in range(len(present)):
        counts = present[row].tolist() if present[row].any() else [True] * count
        tokens, pooled = answer(fusion, aligned_tokens(fusion, given, present, row), counts)
        np.testing.assert_allclose(array(fused.tokens[row][fused.mask[row]]), tokens)
        np.testing.assert_allclose(array(fused.pooled[row]), pooled)


def test_the_order_of_the_modalities_does_not_matter() -> None:
    widths, present, order = dims(3), subsets(3), [2, 0, 1]
    given, fusion = features(widths, len(present)), build(BottleneckFusion, widths, depth=2, heads=2)
    changed, state = reordered(fusion, widths, order, lambda _, value: value)
    for layer in range(2):
        for new, old in enumerate(order):
            own = f"layers.{layer}.{old}."
            for key, value in fusion.state_dict().items():
                if key.startswith(own):
                    state[f"layers.{layer}.{new}.{key[len(own) :]}"] = value
    other = build(BottleneckFusion, changed, depth=2, heads=2)
    other.load_state_dict(state)
    torch.testing.assert_close(other(given, present[:, order]).pooled, fusion(given, present).pooled)


def moved(fusion: Any, given: dict[str, Features], present: Tensor, name: str) -> list[bool]:
    """Return which tokens change with the features of a modality: of the bottleneck first, then of each modality."""
    each = given[name]
    other = {**given, name: Features(each.tokens + torch.randn_like(each.tokens), each.mask, each.pooled)}
    before, after = fusion(given, present).tokens, fusion(other, present).tokens
    changed: list[bool] = ((after - before).abs().amax(dim=(0, 2)) > 1e-9).tolist()
    return changed


def test_what_a_modality_says_reaches_the_others_one_block_later() -> None:
    widths, present = dims(3), torch.ones(1, 3, dtype=torch.bool)
    given = features(widths, 1, tokens=1)
    shallow = build(BottleneckFusion, widths, depth=1, heads=2, bottlenecks=2)
    deep = build(BottleneckFusion, widths, depth=2, heads=2, bottlenecks=2)
    for i, name in enumerate(widths):
        assert moved(shallow, given, present, name) == [True, True, *(j == i for j in range(3))]
        assert moved(deep, given, present, name) == [True] * 5


def test_an_absent_modality_writes_nothing_into_the_bottleneck() -> None:
    widths = dims(3)
    given, fusion = features(widths, 3, tokens=1), build(BottleneckFusion, widths, depth=2, heads=2, bottlenecks=2)
    present = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    before = fusion(given, present).tokens
    with torch.no_grad():
        fusion.absent[1].add_(torch.randn(4))
    changed = (fusion(given, present).tokens - before).abs().amax(dim=2) > 1e-9
    # Its own token alone, the fourth; nothing where it is present; all where all are absent, and so all write.
    assert changed.tolist() == [[False, False, False, True, False], [False] * 5, [True] * 5]


def test_the_mean_is_over_those_present() -> None:
    # With one modality present, its version is the bottleneck, as if the fusion had no other.
    given, fusion = features(dims(3), 1), build(BottleneckFusion, dims(3), depth=2, heads=2)
    alone = build(BottleneckFusion, dims(1), depth=2, heads=2)
    alone.load_state_dict(fusion.state_dict(), strict=False)
    found = fusion(given, torch.tensor([[True, False, False]])).tokens
    expected = alone(given, torch.tensor([[True]])).tokens
    torch.testing.assert_close(found[:, : 4 + 3], expected)


def test_options_make_the_parts() -> None:
    fusion = BottleneckFusion(dims(3), dim=8, depth=3, heads=2, bottlenecks=5)
    assert [len(blocks) for blocks in fusion.layers] == [3, 3, 3]  # type: ignore[arg-type]
    assert len(fusion.bottlenecks) == 5
    assert {layer.heads for layer in fusion.modules() if isinstance(layer, Attention)} == {2}
    given = features(dims(3), 4)
    fused = fusion.double()(given, torch.ones(4, 3, dtype=torch.bool))
    assert fused.tokens.shape == (4, 5 + 3 * 3, 8)
    assert fused.mask[:, :5].all()


def test_heads_change_the_answer() -> None:
    given, present = features(dims(2), 4), subsets(2)
    one, two = (build(BottleneckFusion, dims(2), heads=heads) for heads in (1, 2))
    two.load_state_dict({name: value for name, value in one.state_dict().items() if "pool." not in name}, strict=False)
    assert not torch.allclose(one(given, present).tokens, two(given, present).tokens)
    with pytest.raises(ValueError, match="heads=3"):
        BottleneckFusion(dims(2), dim=8, heads=3)


def test_a_present_modality_without_a_token_breaks_nothing() -> None:
    given, fusion = features(dims(2), 2), build(BottleneckFusion, dims(2), depth=2)
    keys = given["keys"]
    empty = {**given, "keys": Features(keys.tokens, torch.zeros_like(keys.mask), keys.pooled)}
    assert fusion(empty, torch.ones(2, 2, dtype=torch.bool)).pooled.isfinite().all()


@pytest.mark.parametrize("count", [1, 6])
def test_extremes(count: int) -> None:
    torch.manual_seed(0)
    survives_extremes(BottleneckFusion(dims(count), dim=8, depth=2, heads=2), dims(count))


def test_learns_a_product_of_modalities() -> None:
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        given, planted = signs(2, 64, generator)
        return given, (planted.prod(1) > 0).long()

    torch.manual_seed(0)
    fusion = BottleneckFusion({"m0": 4, "m1": 4}, dim=16, depth=2, heads=2)
    assert fit(fusion, 2, draw, steps=120, rate=5e-3)[0] < 0.2


def test_learns_to_find_the_token_that_another_modality_asks_for() -> None:
    # A question names one of three kinds; each kind stands on one of three tokens in turn, which holds its answer.
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        asked = torch.randint(0, 3, (64,), generator=generator)
        order = torch.rand(64, 3, generator=generator).argsort(1)
        answers = torch.randint(0, 2, (64, 3), generator=generator)
        tokens = torch.cat([2.0 * F.one_hot(order, 3), (2.0 * answers - 1).unsqueeze(2)], dim=2)
        target = answers[order == asked[:, None]]
        question = Features.of_pooled(2.0 * F.one_hot(asked, 3))
        return {"question": question, "text": Features.of_tokens(tokens, torch.ones(64, 3).bool())}, target

    torch.manual_seed(0)
    fusion = BottleneckFusion({"question": 3, "text": 4}, dim=16, depth=2, heads=2, dropout=0.0)
    assert fit(fusion, 2, draw, steps=120, rate=3e-3)[0] < 0.1
