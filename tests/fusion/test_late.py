"""Late fusion, a second time in plain numpy; its penalty, its weights, and that heads are linear in it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion.reference import (
    Array,
    aligned,
    array,
    build,
    dims,
    features,
    fit,
    gelu,
    reordered,
    softmax,
    subsets,
    survives_extremes,
)
from polyfuse.core.types import Features
from polyfuse.data.schema import Target
from polyfuse.fusion.late import LateFusion
from polyfuse.heads import HEADS


def views(fusion: Any, h: list[Array]) -> list[Array]:
    """Return v_i of one row."""
    first, last = fusion.views[0], fusion.views[-1]
    found = []
    for i, each in enumerate(h):
        hidden = gelu(each @ array(first.weight)[i] + array(first.bias)[4 * i : 4 * i + 4])
        found.append(hidden @ array(last.weight)[i] + array(last.bias)[4 * i : 4 * i + 4])
    return found


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_weighted_sum_of_what_is_present(count: int) -> None:
    widths, present = dims(count), subsets(count)
    given, fusion = features(widths, len(present)), build(LateFusion, widths)
    fused, weights = fusion(given, present), array(fusion.weights(given, present))
    assert fused.tokens.shape == (2**count, count, 4)
    for row in range(len(present)):
        here = [i for i in range(count) if present[row, i]] or list(range(count))
        v = views(fusion, aligned(fusion, given, present, row))
        w = softmax(array(fusion.trust)[here])
        mixed = len(here) ** fusion.sharpness.item() * sum(weight * v[i] for weight, i in zip(w, here, strict=True))
        np.testing.assert_allclose(weights[row][here], w)
        assert weights[row].sum() == pytest.approx(1.0)
        assert weights[row].nonzero()[0].tolist() == here
        assert fused.mask[row].nonzero().squeeze(1).tolist() == here
        np.testing.assert_allclose(array(fused.tokens[row, here]), np.stack(v)[here])
        np.testing.assert_allclose(array(fused.pooled[row]), mixed)


def test_weights_renormalise_over_what_is_present() -> None:
    widths, fusion = dims(3), build(LateFusion, dims(3))
    with torch.no_grad():
        fusion.trust.copy_(torch.tensor([1.0, 2.0, 5.0]).log())
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()
    expected = [[1 / 8, 2 / 8, 5 / 8], [1 / 3, 2 / 3, 0], [0, 1, 0], [1 / 8, 2 / 8, 5 / 8]]
    np.testing.assert_allclose(array(fusion.weights(features(widths, 4), present)), expected)


def test_an_absent_modality_has_no_influence() -> None:
    widths, present = dims(3), torch.tensor([[True, False, True]])
    given, fusion = features(widths, 1), build(LateFusion, widths)
    before = fusion(given, present)
    with torch.no_grad():
        fusion.absent[1].add_(1.0)
        fusion.projections[1][1].bias.add_(1.0)
        fusion.views[0].weight[1] += 1.0
        fusion.trust[1] += 1.0
    after = fusion(given, present)
    assert after.pooled.equal(before.pooled)
    assert after.tokens[after.mask].equal(before.tokens[before.mask])


def test_the_order_of_the_modalities_does_not_matter() -> None:
    widths, present, order = dims(3), subsets(3), [2, 0, 1]
    given, fusion = features(widths, len(present)), build(LateFusion, widths)

    def move(key: str, value: Tensor) -> Tensor:
        if key.startswith("views") or key == "trust":
            return value.unflatten(0, (3, -1))[order].flatten(0, 1)
        return value

    changed, state = reordered(fusion, widths, order, move)
    other = build(LateFusion, changed)
    other.load_state_dict(state)
    found, expected = other(given, present[:, order]), fusion(given, present)
    torch.testing.assert_close(found.pooled, expected.pooled)
    torch.testing.assert_close(found.tokens, expected.tokens[:, order])
    torch.testing.assert_close(other.weights(given, present[:, order]), fusion.weights(given, present)[:, order])


TARGETS = [
    Target(name="y", task="classification", levels=["a", "b", "c"], frequencies=[0.4, 0.3, 0.3]),
    Target(name="y", task="multilabel", levels=["a", "b"], frequencies=[0.4, 0.3]),
    Target(name="y", task="regression", mean=3.0, std=2.0),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.task)
@pytest.mark.parametrize("sharpness", [0.0, 1.0])
def test_the_head_mixes_the_answers_of_the_modalities(target: Target, sharpness: float) -> None:
    widths, present = dims(3), subsets(3)
    given, fusion = features(widths, len(present)), build(LateFusion, widths)
    head = HEADS.build(target.task, {}, 4, target).double().eval()
    with torch.no_grad():
        fusion.sharpness.fill_(sharpness)
        fused, weights = fusion(given, present), fusion.weights(given, present)

        def answer(pooled: Tensor) -> Tensor:
            found: Tensor = head(Features.of_pooled(pooled)).reshape(len(present), -1)
            return found

        found, bias = answer(fused.pooled), answer(torch.zeros_like(fused.pooled))
        own = torch.stack([answer(fused.tokens[:, i]) for i in range(3)], dim=1)
    counts = (present | ~present.any(1, keepdim=True)).sum(1, keepdim=True)
    mean = torch.einsum("bk,bko->bo", weights, own)
    torch.testing.assert_close(found, bias + counts**sharpness * (mean - bias))
    if sharpness == 0:
        torch.testing.assert_close(found, mean)
    alone = present.sum(1) == 1
    torch.testing.assert_close(found[alone], own[present & alone[:, None]])


def squares(part: Features, rows: Tensor) -> Tensor:
    """Return the mean, over some rows, of the squared sum of the pooled vector."""
    return part.rows(rows).pooled.sum(1).square().mean()


@pytest.mark.parametrize("alone", [1.0, 0.3])
def test_the_penalty_is_the_mean_loss_of_each_alone_over_its_rows(alone: float) -> None:
    widths, present = dims(3), subsets(3)
    given, fusion = features(widths, len(present)), build(LateFusion, widths, alone=alone)
    fused, penalty = fusion.with_penalty(given, present, squares)
    assert fused.pooled.equal(fusion(given, present).pooled)
    losses: list[list[float]] = [[], [], []]
    for row in range(len(present)):
        for i, v in enumerate(views(fusion, aligned(fusion, given, present, row))):
            if present[row, i]:
                losses[i].append(v.sum() ** 2)
    assert penalty.item() == pytest.approx(alone * np.mean([np.mean(each) for each in losses]))


def test_a_modality_that_the_batch_lacks_adds_nothing() -> None:
    widths, present = dims(3), subsets(3)
    present[:, 1] = False
    given, fusion = features(widths, len(present)), build(LateFusion, widths)
    fused, penalty = fusion.with_penalty(given, present, squares)
    own = [squares(Features.of_pooled(fused.tokens[:, i]), present[:, i]) for i in (0, 2)]
    torch.testing.assert_close(penalty, (own[0] + own[1]) / 2)
    penalty.backward()
    assert fusion.projections[1][1].weight.grad.abs().max() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())


def test_the_absent_tokens_do_not_answer_alone() -> None:
    widths, present = dims(2), torch.tensor([[True, False], [False, False], [False, True]])
    given, fusion = features(widths, 3), build(LateFusion, widths)
    _, penalty = fusion.with_penalty(given, present, squares)
    penalty.backward()
    assert all(each.grad is None or each.grad.abs().max() == 0 for each in fusion.absent)


def test_no_penalty_where_nothing_is_present_or_none_is_asked_for() -> None:
    widths, present = dims(2), subsets(2)
    given = features(widths, len(present))
    assert build(LateFusion, widths, alone=0.0).with_penalty(given, present, squares)[1] is None
    assert build(LateFusion, widths).with_penalty(given, torch.zeros_like(present), squares)[1] is None


@pytest.mark.parametrize("count", [1, 6])
def test_extremes(count: int) -> None:
    torch.manual_seed(0)
    survives_extremes(LateFusion(dims(count), dim=8), dims(count))


def witnesses(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
    """Return four modalities, each a weak witness of its own to the same answer."""
    target = torch.randint(0, 2, (256,), generator=generator)
    values = torch.randn(4, 256, 4, generator=generator)
    values[:, :, 0] += 0.7 * (2 * target - 1)
    return {f"m{i}": Features.of_pooled(each) for i, each in enumerate(values)}, target


@cache
def trained(alone: float, sharpen: bool = True) -> tuple[LateFusion, nn.Linear, float]:
    torch.manual_seed(0)
    fusion = LateFusion({f"m{i}": 4 for i in range(4)}, dim=16, alone=alone)
    fusion.sharpness.requires_grad_(sharpen)
    found, head = fit(fusion, 2, witnesses, steps=150)
    return fusion, head, found


def test_the_evidence_of_independent_modalities_adds_up() -> None:
    fusion, _, found = trained(1.0)
    assert fusion.sharpness.item() > 0.4
    # Of the mean of their answers, each of which is right about itself, too little is made.
    assert found < trained(1.0, sharpen=False)[2] - 0.03


def test_each_modality_learns_to_answer_alone() -> None:
    def losses(alone: float) -> list[float]:
        fusion, head, _ = trained(alone)
        given, target = witnesses(torch.Generator().manual_seed(7))
        found = []
        for present in torch.eye(4, dtype=torch.bool):
            with torch.no_grad():
                logits = head(fusion(given, present.expand(256, 4)).pooled)
            found.append(float(F.cross_entropy(logits, target)))
        return found

    # The best that one witness can do is 0.49.
    assert max(losses(1.0)) < 0.6
    assert max(losses(1.0)) < max(losses(0.0)) - 0.1


def test_a_modality_that_says_nothing_loses_its_weight() -> None:
    def draw(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
        given, target = witnesses(generator)
        return {"m0": given["m0"], "noise": Features.of_pooled(torch.randn(256, 4, generator=generator))}, target

    torch.manual_seed(0)
    fusion = LateFusion({"m0": 4, "noise": 4}, dim=16)
    fit(fusion, 2, draw, steps=150)
    given, _ = draw(torch.Generator().manual_seed(7))
    assert float(fusion.weights(given, torch.ones(256, 2, dtype=torch.bool))[0, 0].detach()) > 0.6
