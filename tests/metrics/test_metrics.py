from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfuse.metrics import METRICS, Metric
from polyfuse.metrics.classification import _auc_pairs, _auc_sorted

EXPECTED = {
    "classification": {"accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"},
    "multilabel": {"multilabel_f1_micro", "multilabel_f1_macro", "mean_average_precision", "subset_accuracy"},
    "regression": {"rmse", "mae", "r2", "spearman"},
}


def draw(task: str, rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few distinct values, so that ties occur, and labels that may not occur."""
    random = np.random.default_rng(seed)
    if task == "classification":
        scores = random.integers(1, 6, size=(rows, classes)).astype(float)
        return random.integers(0, max(1, classes - 1), size=rows), scores / scores.sum(axis=1, keepdims=True)
    if task == "multilabel":
        return random.integers(0, 2, size=(rows, classes)), random.integers(0, 9, size=(rows, classes)) / 8
    return 1e3 + random.integers(0, 5, size=rows).astype(float), 1e3 + random.integers(0, 5, size=rows).astype(float)


def test_every_task_has_its_metrics() -> None:
    for task, names in EXPECTED.items():
        assert {name for name, metric in METRICS.items() if task in metric.tasks} == names
    assert all(name == metric.name and metric.label for name, metric in METRICS.items())


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_resampled_form_equals_the_metric_on_the_rows_drawn(metric: Metric, classes: int, rows: int) -> None:
    (task,) = metric.tasks
    for seed in range(5):
        y_true, y_score = draw(task, rows, classes, seed)
        drawn = np.random.default_rng(seed).integers(0, rows, size=(20, rows))
        counts = np.stack([np.bincount(row, minlength=rows) for row in drawn]).astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fast = metric.resampled(y_true, y_score)(counts)
            plain = [metric.function(y_true[row], y_score[row]) for row in drawn]
        np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-12)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 30), classes=st.integers(3, 8))
def test_both_forms_of_auc_agree(seed: int, rows: int, classes: int) -> None:
    y_true, y_score = draw("classification", rows, classes, seed)
    counts = np.random.default_rng(seed).integers(0, 4, size=(6, rows)).astype(float)
    present = np.unique(y_true)
    one_by_one = [_auc_sorted(y_true == code, y_score[:, code], counts) for code in present]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanmean(one_by_one, axis=0)
    np.testing.assert_allclose(_auc_pairs(y_true, y_score, counts), expected, rtol=1e-12)


def test_auc_by_its_definition() -> None:
    y_true, y_score = draw("classification", 30, 4, 1)
    areas = []
    for code in np.unique(y_true):
        wins = [
            float(a > b) + 0.5 * float(a == b)
            for a in y_score[y_true == code, code]
            for b in y_score[y_true != code, code]
        ]
        areas.append(np.mean(wins))
    assert METRICS["roc_auc"].function(y_true, y_score) == pytest.approx(np.mean(areas))


def test_binary_auc_is_of_class_one() -> None:
    y_true = np.array([0, 0, 1, 1])
    first = np.array([0.1, 0.4, 0.35, 0.8])
    assert METRICS["roc_auc"].function(y_true, np.stack([1 - first, first], axis=1)) == pytest.approx(0.75)


def test_classification_against_scikit_learn() -> None:
    y_true, y_score = draw("classification", 60, 5, 3)
    answers = y_score.argmax(axis=1)
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(y_true, answers),
        "f1_macro": sklearn.metrics.f1_score(y_true, answers, average="macro"),
        "log_loss": sklearn.metrics.log_loss(y_true, y_score, labels=range(5)),
    }
    for name, value in expected.items():
        assert METRICS[name].function(y_true, y_score) == pytest.approx(value), name
    recalls = [np.mean(answers[y_true == code] == code) for code in np.unique(y_true)]
    assert METRICS["balanced_accuracy"].function(y_true, y_score) == pytest.approx(np.mean(recalls))


def test_average_precision_by_its_definition() -> None:
    y_true, y_score = draw("multilabel", 25, 3, 4)
    y_true[:, 2] = 0
    values = []
    for label in range(2):
        positives, before, total = y_true[:, label].sum(), 0.0, 0.0
        for threshold in sorted(set(y_score[:, label]), reverse=True):
            answered = y_score[:, label] >= threshold
            recall = y_true[answered, label].sum() / positives
            total += (recall - before) * y_true[answered, label].mean()
            before = recall
        values.append(total)
    assert METRICS["mean_average_precision"].function(y_true, y_score) == pytest.approx(np.mean(values))


def test_labels_that_never_occur_do_not_count() -> None:
    y_true = np.array([[1, 0, 0], [1, 1, 0]])
    y_score = np.array([[0.9, 0.2, 0.1], [0.9, 0.7, 0.1]])
    for name in EXPECTED["multilabel"]:
        assert METRICS[name].function(y_true, y_score) == 1.0, name


@pytest.mark.parametrize(
    ("name", "y_true", "y_score"),
    [
        ("roc_auc", np.array([1, 1]), np.array([[0.2, 0.8], [0.4, 0.6]])),
        ("r2", np.ones(3), np.arange(3.0)),
        ("spearman", np.arange(3.0), np.ones(3)),
        ("spearman", np.ones(1), np.ones(1)),
        ("multilabel_f1_micro", np.zeros((2, 2)), np.zeros((2, 2))),
        ("multilabel_f1_macro", np.zeros((2, 2)), np.zeros((2, 2))),
        ("mean_average_precision", np.zeros((2, 2)), np.zeros((2, 2))),
    ],
)
def test_undefined_is_nan(name: str, y_true: np.ndarray, y_score: np.ndarray) -> None:
    assert math.isnan(METRICS[name].function(y_true, y_score))
    assert np.isnan(METRICS[name].resampled(y_true, y_score)(np.ones((2, len(y_true))))).all()


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_no_rows_and_scores_that_are_no_numbers_are_nan(metric: Metric) -> None:
    (task,) = metric.tasks
    y_true, y_score = draw(task, 4, 3, 0)
    assert math.isnan(metric.function(y_true[:0], y_score[:0]))
    y_score[0] = np.nan
    assert math.isnan(metric.function(y_true, y_score))


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_perfect_scores_are_the_best(metric: Metric) -> None:
    (task,) = metric.tasks
    y_true, y_score = draw(task, 30, 4, 5)
    perfect = {"classification": np.eye(4)[y_true] if task == "classification" else None}.get(task, y_true * 1.0)
    value, other = metric.function(y_true, perfect), metric.function(y_true, y_score)
    assert (value > other) == metric.greater_is_better
    assert value == pytest.approx(1.0 if metric.greater_is_better else 0.0)
