"""Each head's loss by hand, and what it answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.data.schema import Target
from polyfuse.heads.classification import ClassificationHead
from polyfuse.heads.multilabel import MultilabelHead
from polyfuse.heads.regression import RegressionHead

CLASSES = Target(name="y", task="classification", levels=["a", "b", "c"], frequencies=[0.6, 0.3, 0.1])
LABELS = Target(name="y", task="multilabel", levels=["a", "b", "c"], frequencies=[0.5, 0.25, 0.0])
NUMBER = Target(name="y", task="regression", mean=10.0, std=4.0)
LOGITS = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 2.0, -4.0], [-1.0, 0.2, 0.3]])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_cross_entropy(smoothing: float, weights: Any) -> None:
    head = ClassificationHead(4, CLASSES, label_smoothing=smoothing, class_weights=weights)
    answers = ["a", "b", "c", "a"]
    codes = [0, 1, 2, 0]
    w = 1 / (3 * np.array(CLASSES.frequencies)) if weights == "balanced" else np.ones(3)
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    q = (1 - smoothing) * np.eye(3)[codes] + smoothing / 3
    expected = -(w * q * log_p).sum() / w[codes].sum()
    found = head.loss(torch.from_numpy(LOGITS).float(), head.encode(answers))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_binary_cross_entropy(smoothing: float, weights: Any) -> None:
    head = MultilabelHead(4, LABELS, label_smoothing=smoothing, class_weights=weights)
    answers = [["a"], ["b", "c"], [], ["c"]]
    t = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]]) * (1 - smoothing) + smoothing / 2
    w = np.array([1.0, 3.0, 100.0]) if weights == "balanced" else np.ones(3)
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(w * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    found = head.loss(torch.from_numpy(LOGITS).float(), head.encode(answers))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", ["squared", "absolute", "huber"])
def test_regression(objective: Any) -> None:
    head = RegressionHead(4, NUMBER, objective=objective)
    z, predicted = (np.array([10.0, 14.0, 30.0]) - 10) / 4, np.array([0.5, 0.5, 0.5])
    gap = np.abs(z - predicted)
    losses = {"squared": gap**2, "absolute": gap, "huber": np.where(gap <= 1, gap**2 / 2, gap - 0.5)}
    found = head.loss(torch.tensor(predicted).float(), head.encode([10, 14, 30]))
    assert float(found) == pytest.approx(losses[objective].mean(), rel=1e-6)
    assert head.scores(torch.tensor(predicted)).tolist() == [12.0, 12.0, 12.0]
    assert head.truth(head.encode([10, 14, 30])).tolist() == [10.0, 14.0, 30.0]
    assert float(head.prior()) == 10.0


def test_large_targets_keep_their_digits() -> None:
    head = RegressionHead(4, Target(name="y", task="regression", mean=1.7e9, std=1.0))
    assert head.truth(head.encode([1.7e9 + 1])).tolist() == [1.7e9 + 1]


def test_answers_are_the_labels_themselves() -> None:
    head = ClassificationHead(4, Target(name="y", task="classification", levels=[False, 3], frequencies=[0.5, 0.5]))
    assert head.decode(torch.tensor([[0.9, 0.1], [0.2, 0.8]])) == [False, 3]
    several = MultilabelHead(4, LABELS)
    assert several.decode(torch.tensor([[0.5, 0.49, 0.9], [0.0, 0.0, 0.0]])) == [["a", "c"], []]
    torch.testing.assert_close(several.scores(torch.zeros(1, 3)), torch.full((1, 3), 0.5))


@pytest.mark.parametrize("head", [ClassificationHead(4, CLASSES), MultilabelHead(4, LABELS)])
def test_an_unseen_label_is_named(head: Any) -> None:
    unseen = ["d"] if isinstance(head, ClassificationHead) else [["a", "d"]]
    with pytest.raises(InputError, match=r"\"'d'\"|'d'"):
        head.encode(unseen)


def test_the_prior_is_a_copy() -> None:
    head = ClassificationHead(4, CLASSES)
    head.prior().zero_()
    torch.testing.assert_close(head.prior(), torch.tensor([0.6, 0.3, 0.1]))


@pytest.mark.parametrize("kind", [(ClassificationHead, CLASSES), (MultilabelHead, LABELS), (RegressionHead, NUMBER)])
def test_dropout_acts_in_training_only(kind: tuple[Any, Target]) -> None:
    head = kind[0](64, kind[1], dropout=0.5)
    features = Features.of_pooled(torch.ones(2, 64))
    assert not head.train()(features).equal(head(features))
    assert head.eval()(features).equal(head(features))
