"""Several targets in one head: the loss by hand, what is missing, and who weighs what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.data.schema import Target
from polyfuse.heads.several import _PACE, SeveralHead

CLASSES = Target(name="kind", task="classification", levels=["a", "b", "c"], frequencies=[0.6, 0.3, 0.1])
NUMBER = Target(name="price", task="regression", mean=10.0, std=4.0)
LABELS = Target(name="tags", task="multilabel", levels=["x", "y"], frequencies=[0.5, 0.25])
ALL = Target.of([CLASSES, NUMBER, LABELS])
ANSWERS = [("a", 14.0, ["x"]), ("c", None, ["x", "y"]), (None, 6.0, None), ("b", 10.0, None)]
OUTPUT = np.array(
    [
        [1.0, -2.0, 0.5, 0.3, 1.0, -1.0],
        [0.0, 3.0, -1.0, 9.0, 0.2, 0.4],
        [2.0, 2.0, -4.0, -0.5, 7.0, 7.0],
        [-1.0, 0.2, 0.3, 0.1, 7.0, 7.0],
    ]
)


def losses() -> dict[str, float]:
    """Each target's mean loss over the rows that have it, from the definitions."""
    rows, codes = [0, 1, 3], [0, 2, 1]
    log_p = OUTPUT[:, :3] - np.log(np.exp(OUTPUT[:, :3]).sum(1, keepdims=True))
    z = (np.array([14.0, 6.0, 10.0]) - 10) / 4
    t, p = np.array([[1, 0], [1, 1]]), 1 / (1 + np.exp(-OUTPUT[:2, 4:]))
    return {
        "kind": -np.mean([log_p[row, code] for row, code in zip(rows, codes, strict=True)]),
        "price": np.mean((z - OUTPUT[[0, 2, 3], 3]) ** 2),
        "tags": -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(),
    }


def output(**changed: Any) -> torch.Tensor:
    return torch.tensor(OUTPUT, dtype=torch.float32, **changed)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("equal", {"kind": 1, "price": 1, "tags": 1}),
        ({"kind": 0.5, "tags": 3}, {"kind": 0.5, "price": 1, "tags": 3}),
        ({"price": 0}, {"kind": 1, "price": 0, "tags": 1}),
    ],
)
def test_fixed_weights(weights: Any, expected: dict[str, float]) -> None:
    head = SeveralHead(4, ALL, weights=weights)
    found = head.loss(output(), head.encode(ANSWERS))
    assert float(found) == pytest.approx(sum(expected[name] * loss for name, loss in losses().items()), rel=1e-5)
    assert head.weighs() == expected
    assert head.spread is None


def test_weights_by_uncertainty() -> None:
    """Kendall, Gal & Cipolla 2018, with s = log σ²: L / 2σ² + log σ of a number, L / σ² + log σ of labels."""
    head = SeveralHead(4, ALL)
    assert head.spread is not None
    sigma = np.array([0.7, 1.6, 1.1])
    with torch.no_grad():
        head.spread.copy_(torch.tensor(np.log(sigma**2) / _PACE))
    shares = {"kind": 1.0, "price": 0.5, "tags": 1.0}
    expected = sum(
        shares[name] * loss / s**2 + np.log(s) for (name, loss), s in zip(losses().items(), sigma, strict=True)
    )
    assert head.loss(output(), head.encode(ANSWERS)).item() == pytest.approx(expected, rel=1e-5)
    for (name, weight), s in zip(head.weighs().items(), sigma, strict=True):
        assert weight == pytest.approx(shares[name] / s**2, rel=1e-5)


def test_uncertainty_starts_where_the_prior_stands_and_rests_where_the_loss_says() -> None:
    head = SeveralHead(4, ALL)
    assert head.spread is not None
    entropy = -sum(f * np.log(f) for f in CLASSES.frequencies)
    labels = np.mean([-(f * np.log(f) + (1 - f) * np.log(1 - f)) for f in LABELS.frequencies])
    expected = {"kind": 1 / (2 * entropy), "price": 0.5, "tags": 1 / (2 * labels)}
    assert head.weighs() == pytest.approx(expected, rel=1e-5)
    # Where σ² = L of a number, σ² = 2 L of labels, nothing pulls at it.
    at = [2 * losses()["kind"], losses()["price"], 2 * losses()["tags"]]
    with torch.no_grad():
        head.spread.copy_(torch.tensor(at).log() / _PACE)
    head.loss(output(), head.encode(ANSWERS)).backward()
    assert head.spread.grad is not None
    np.testing.assert_allclose(head.spread.grad.numpy(), 0, atol=1e-5)


@pytest.mark.parametrize("weights", ["uncertainty", "equal"])
def test_what_stands_beside_a_missing_answer_has_no_influence(weights: Any) -> None:
    head = SeveralHead(4, ALL, weights=weights)
    target = head.encode(ANSWERS)
    plain = output(requires_grad=True)
    loss = head.loss(plain, target)
    loss.backward()
    assert plain.grad is not None
    missing = torch.tensor([[False] * 6, [False, False, False, True, False, False]] + [[False] * 6] * 2)
    missing[2, [0, 1, 2, 4, 5]] = True
    missing[3, 4:] = True
    assert plain.grad[missing].eq(0).all()
    assert plain.grad[~missing].ne(0).all()
    spoilt = output()
    spoilt[missing] = 1e6
    assert head.loss(spoilt, target).item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("weights", ["uncertainty", "equal", {"kind": 2.0}])
def test_a_target_that_no_row_of_a_batch_has(weights: Any) -> None:
    head = SeveralHead(4, ALL, weights=weights)
    features = Features.of_pooled(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))
    for answers in ([("a", None, None), ("b", None, None)], [(None, None, None)] * 2):
        head.zero_grad(set_to_none=True)
        loss = head.loss(head(features), head.encode(answers))
        assert torch.isfinite(loss)
        loss.backward()
        for name, weight in head.named_parameters():
            assert weight.grad is not None, name
        assert head.heads[1].out[1].weight.grad.eq(0).all()  # type: ignore[union-attr, index]
        if head.spread is not None:
            assert head.spread.grad is not None
            assert head.spread.grad[1:].eq(0).all()
    assert float(loss.detach()) == 0.0
    assert head.heads[0].out[1].weight.grad.eq(0).all()  # type: ignore[union-attr, index]


def test_answers_come_back_side_by_side() -> None:
    head = SeveralHead(4, ALL).eval()
    encoded = head.encode(ANSWERS)
    assert encoded.dtype == torch.float32
    assert encoded.isnan().tolist()[1] == [False, True, False, False]
    truth = head.truth(encoded)
    assert truth.dtype == torch.float64
    np.testing.assert_equal(truth[:, 0].numpy(), [0, 2, np.nan, 1])
    np.testing.assert_equal(truth[:, 1].numpy(), [14, np.nan, 6, 10])
    np.testing.assert_equal(truth[:, 2:].numpy(), [[1, 0], [1, 1], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_allclose(head.prior().numpy(), [0.6, 0.3, 0.1, 10.0, 0.5, 0.25], rtol=1e-6)
    scores = head.scores(output())
    np.testing.assert_allclose(scores[:, :3].sum(1).numpy(), 1, rtol=1e-6)
    np.testing.assert_allclose(scores[:, 3].numpy(), 10 + 4 * OUTPUT[:, 3], rtol=1e-6)
    decoded = head.decode(scores)
    assert decoded[1] == ("b", pytest.approx(46.0), ["x", "y"])
    assert head.decode(scores[:0]) == []
    assert head.metrics[:3] == ("relative_loss", "kind:accuracy", "kind:balanced_accuracy")
    assert head.metrics[-1] == "tags:subset_accuracy"


def test_each_target_has_the_head_that_is_chosen() -> None:
    chosen: Any = {"kind": {"name": "classification", "class_weights": "balanced"}, "tags": "multilabel"}
    head = SeveralHead(4, ALL, heads=chosen, weights="equal")
    assert head.heads[0].weights is not None
    plain = SeveralHead(4, ALL, weights="equal")
    encoded = head.encode(ANSWERS)
    assert float(head.loss(output(), encoded)) != pytest.approx(float(plain.loss(output(), encoded)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"heads": {"kin": "classification"}}, "head.heads: 'kin' is not among the targets; did you mean 'kind'"),
        ({"heads": {"kind": "regression"}}, "'regression' answers regression, and the task of 'kind' is classif"),
        ({"heads": {"kind": "several"}}, "'several' answers several"),
        ({"heads": {"kind": {"name": "classification", "dropuot": 0.1}}}, "did you mean 'dropout'"),
        ({"weights": {"prise": 1.0}}, "head.weights: 'prise' is not among the targets; did you mean 'price'"),
        ({"weights": {"kind": 0, "price": 0, "tags": 0}}, "every target has the weight 0"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        SeveralHead(4, ALL, **options)


def test_a_target_of_noise_comes_to_weigh_less_than_one_that_is_learned() -> None:
    torch.manual_seed(0)
    pooled = torch.randn(400, 4)
    known, noise = (3 * pooled[:, 0]).tolist(), torch.randn(400).tolist()
    parts = [Target(name="known", task="regression", std=3.0), Target(name="noise", task="regression")]
    head = SeveralHead(4, Target.of(parts), heads={"known": {"name": "regression", "dropout": 0.0}})
    target = head.encode(list(zip(known, noise, strict=True)))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    before = head.weighs()
    assert before["known"] == before["noise"] == 0.5
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(head(Features.of_pooled(pooled)), target).backward()
        optimizer.step()
    after = head.weighs()
    assert after["known"] > 5 * after["noise"]
    assert after["noise"] == pytest.approx(0.5, rel=0.3), "of pure noise σ² stays that of the target"
