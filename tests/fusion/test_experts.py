"""Mixture of experts, a second time in plain numpy; its routing and its balance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusion.reference import (
    Array,
    aligned,
    array,
    build,
    columns,
    dims,
    features,
    fit,
    gelu,
    linear,
    norm,
    reordered,
    softmax,
    subsets,
    survives_extremes,
)
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.fusion import FUSIONS
from polyfuse.fusion.concat import ConcatFusion
from polyfuse.fusion.experts import ExpertsFusion


def no_loss(part: Features, rows: Tensor) -> Tensor:
    raise AssertionError("the balance does not ask for the loss of the head")


def odds_of(fusion: Any, given: dict[str, Features], present: Tensor) -> Array:
    """Return p of each row and expert."""
    rows = range(len(present))
    return np.stack([softmax(linear(fusion.router, np.concatenate(aligned(fusion, given, present, r)))) for r in rows])


@pytest.mark.parametrize(("count", "experts", "chosen"), [(1, 3, 1), (3, 4, 2), (3, 1, 1), (3, 3, 3), (6, 5, 2)])
def test_the_likeliest_experts_answer(count: int, experts: int, chosen: int) -> None:
    widths, present = dims(count), subsets(count)
    given = features(widths, len(present))
    fusion = build(ExpertsFusion, widths, experts=experts, chosen=chosen)
    found, routing = array(fusion(given, present).pooled), array(fusion.routing(given, present))
    for row, p in enumerate(odds_of(fusion, given, present)):
        x = np.concatenate(aligned(fusion, given, present, row))
        mixed, gates = linear(fusion.join, x), np.zeros(experts)
        for e in np.argsort(-p)[:chosen]:
            own = slice(4 * e, 4 * e + 4)
            hidden = gelu(array(fusion.hidden.weight)[own] @ x + array(fusion.hidden.bias)[own])
            answer = array(fusion.values.weight)[:, own] @ hidden + array(fusion.offsets.weight)[:, e]
            mixed, gates[e] = mixed + p[e] * answer, p[e]
        np.testing.assert_allclose(routing[row], gates)
        np.testing.assert_allclose(found[row], norm(fusion.norm, mixed))


def test_an_expert_that_is_not_chosen_has_no_influence() -> None:
    widths, present = dims(3), subsets(3)
    given, fusion = features(widths, len(present)), build(ExpertsFusion, widths, chosen=1)
    before, routing = fusion(given, present).pooled, fusion.routing(given, present)
    with torch.no_grad():
        fusion.hidden.bias[4:8] += 1.0
    changed = (fusion(given, present).pooled - before).abs().amax(1) > 1e-9
    assert changed.equal(routing[:, 1] > 0)
    assert 0 < int(changed.sum()) < len(present)


def test_the_order_of_the_modalities_does_not_matter() -> None:
    widths, present, order = dims(3), subsets(3), [2, 0, 1]
    given, fusion = features(widths, len(present)), build(ExpertsFusion, widths)

    def move(key: str, value: Tensor) -> Tensor:
        return columns(value, order) if key in ("join.weight", "router.weight", "hidden.weight") else value

    changed, state = reordered(fusion, widths, order, move)
    other = build(ExpertsFusion, changed)
    other.load_state_dict(state)
    torch.testing.assert_close(other(given, present[:, order]).pooled, fusion(given, present).pooled)
    torch.testing.assert_close(other.routing(given, present[:, order]), fusion.routing(given, present))


@pytest.mark.parametrize("chosen", [1, 2, 4])
def test_balance_is_that_of_the_paper(chosen: int) -> None:
    widths, present = dims(3), subsets(3)
    given = features(widths, len(present))
    fusion = build(ExpertsFusion, widths, chosen=chosen, balance=0.5)
    fused, penalty = fusion.with_penalty(given, present, no_loss)
    assert fused.pooled.equal(fusion(given, present).pooled)
    odds, counts = odds_of(fusion, given, present), np.zeros(4)
    for p in odds:
        counts[np.argsort(-p)[:chosen]] += 1
    expected = 0.5 * 4 * sum(counts[e] / counts.sum() * odds[:, e].mean() for e in range(4))
    assert penalty.item() == pytest.approx(expected)


def routed(logits: Tensor, balance: float = 1.0, chosen: int = 1) -> Tensor:
    """Return the balance of a batch whose rows have these logits of the experts (rows, experts)."""
    rows, experts = logits.shape
    fusion = ExpertsFusion({"text": 2}, dim=2, experts=experts, chosen=chosen, balance=balance)
    fusion.router.forward = lambda _: logits  # type: ignore[method-assign]
    given = {"text": Features.of_pooled(torch.randn(rows, 2))}
    _, penalty = fusion.with_penalty(given, torch.ones(rows, 1, dtype=torch.bool), no_loss)
    assert penalty is not None
    return penalty


def test_balance_of_a_case_made_by_hand() -> None:
    # Probabilities (1/2, 1/4, 1/4), twice, and (1/5, 3/5, 1/5): F = (2/3, 1/3, 0), P = (2/5, 11/30, 7/30).
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.2, 0.6, 0.2]]).log()
    expected = 3 * (2 / 3 * 2 / 5 + 1 / 3 * 11 / 30)
    assert routed(logits).item() == pytest.approx(expected)
    assert routed(logits, balance=0.01).item() == pytest.approx(0.01 * expected)


@pytest.mark.parametrize("chosen", [1, 2])
def test_balance_is_least_where_all_experts_are_used_alike(chosen: int) -> None:
    even = torch.stack([torch.arange(4.0).roll(i) for i in range(4)])
    assert routed(even, chosen=chosen).item() == pytest.approx(1.0)
    torch.manual_seed(0)
    for _ in range(20):
        assert routed(even + torch.randn(1, 4), chosen=chosen).item() >= 1.0 - 1e-6
    # All rows on the same experts, with all the mass: E / chosen times the least.
    alone = torch.full((4, 4), -50.0)
    alone[:, :chosen] = 50.0
    assert routed(alone, chosen=chosen).item() == pytest.approx(4 / chosen)


def test_balance_moves_the_router_away_from_the_expert_that_is_used_most() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0]] * 4 + [[0.0, 1.0, 0.0]], requires_grad=True)
    routed(logits).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 2] < 0).all()


def test_without_balance_there_is_no_penalty() -> None:
    widths, present = dims(2), subsets(2)
    given = features(widths, len(present))
    assert build(ExpertsFusion, widths, balance=0.0).with_penalty(given, present, no_loss)[1] is None


@pytest.mark.parametrize("chosen", [1, 2])
def test_the_loss_of_the_task_reaches_the_router(chosen: int) -> None:
    widths, present = dims(3), subsets(3)
    given, fusion = features(widths, len(present)), build(ExpertsFusion, widths, chosen=chosen, balance=0.0)
    fusion(given, present).pooled[:, 0].sum().backward()
    assert float(fusion.router.weight.grad.abs().max()) > 1e-4


def test_more_chosen_than_there_are() -> None:
    with pytest.raises(InputError, match="chosen=5 of experts=4"):
        FUSIONS.build("experts", {"chosen": 5}, dims(2))


@pytest.mark.parametrize("count", [1, 6])
def test_extremes(count: int) -> None:
    torch.manual_seed(0)
    survives_extremes(ExpertsFusion(dims(count), dim=8), dims(count))


def test_a_choice_counts_even_where_its_odds_vanish() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, 1e4, -1e4]])
    assert routed(logits, chosen=2).item() == pytest.approx(3 * (0.5 * 0.5 + 0.5 * 0.5))


def regimes(generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
    """Return rows of four kinds, told by `kind`; the answer is another one of the eight values of each kind."""
    kind = torch.randint(0, 4, (256,), generator=generator)
    values = torch.randint(0, 2, (256, 8), generator=generator) * 2.0 - 1
    marks = 2 * F.one_hot(kind, 4) + 0.2 * torch.randn(256, 4, generator=generator)
    target = (values[torch.arange(256), 2 * kind] > 0).long()
    return {"kind": Features.of_pooled(marks), "value": Features.of_pooled(values)}, target


@pytest.mark.parametrize("chosen", [1, 2])
def test_learns_regimes_that_concatenation_cannot(chosen: int) -> None:
    widths = {"kind": 4, "value": 8}
    torch.manual_seed(0)
    fusion = ExpertsFusion(widths, dim=16, experts=4, chosen=chosen)
    assert fit(fusion, 2, regimes, steps=200)[0] < 0.05
    torch.manual_seed(0)
    assert fit(ConcatFusion(widths, dim=16), 2, regimes, steps=200)[0] > 0.3
    with torch.no_grad():
        given, _ = regimes(torch.Generator().manual_seed(1))
        routing = fusion.routing(given, torch.ones(256, 2, dtype=torch.bool))
    assert int(((routing > 0).float().mean(0) > 0.05).sum()) >= 3, "experts lie idle"
    kinds = given["kind"].pooled.argmax(1)
    shares = torch.stack([routing[kinds == kind].mean(0) for kind in range(4)])
    shares = shares / shares.sum(1, keepdim=True)
    assert len(set(shares.argmax(1).tolist())) >= 3, "rows of different kinds are not routed apart"


def test_balance_spreads_the_rows() -> None:
    def busiest(balance: float) -> float:
        torch.manual_seed(1)
        fusion = ExpertsFusion({"kind": 4, "value": 8}, dim=16, experts=4, chosen=1, balance=balance)
        with torch.no_grad():
            fusion.router.bias[0] = 4.0
        fit(fusion, 2, regimes, steps=100)
        given, _ = regimes(torch.Generator().manual_seed(1))
        return float((fusion.routing(given, torch.ones(256, 2, dtype=torch.bool)) > 0).float().mean(0).max())

    assert busiest(0.0) > 0.55
    assert busiest(1.0) < 0.4
