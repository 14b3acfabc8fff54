"""Metrics of several targets: each over the rows that have it, and one figure for all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polyfuse.core.errors import InputError
from polyfuse.data.measures import measure, measures, parts_of, prior_loss
from polyfuse.data.schema import Target
from polyfuse.metrics import METRICS
from polyfuse.metrics.bootstrap import bootstrap, paired_difference

KIND = Target(name="kind", task="classification", levels=["a", "b", "c"], frequencies=[0.5, 0.3, 0.2])
PRICE = Target(name="a:price", task="regression", mean=100.0, std=20.0)
TAGS = Target(name="tags", task="multilabel", levels=["x", "y"], frequencies=[0.5, 0.25])
ALL = Target.of([KIND, PRICE, TAGS])


def draw(rows: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    kind, price = random.integers(0, 3, rows), random.normal(100, 20, rows)
    tags = random.integers(0, 2, (rows, 2))
    true = np.column_stack([kind, price, tags]).astype(float)
    proba = random.random((rows, 3)) + np.eye(3)[kind]
    score = np.column_stack(
        [proba / proba.sum(1, keepdims=True), price + random.normal(0, 9, rows), random.random((rows, 2))]
    )
    for columns in ([0], [1], [2, 3]):
        true[np.ix_(random.random(rows) < 0.3, columns)] = np.nan
    return true, score


def by_hand(true: np.ndarray, score: np.ndarray) -> float:
    """The mean of loss / unit over the targets, from their definitions."""
    values = []
    rows = [i for i in range(len(true)) if not np.isnan(true[i, 0])]
    if rows:
        loss = np.mean([-np.log(score[i, int(true[i, 0])]) for i in rows])
        values.append(loss / -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)))
    rows = [i for i in range(len(true)) if not np.isnan(true[i, 1])]
    if rows:
        values.append(np.sqrt(np.mean([(true[i, 1] - score[i, 3]) ** 2 for i in rows])) / 20)
    rows = [i for i in range(len(true)) if not np.isnan(true[i, 2])]
    if rows:
        t, p = true[rows, 2:], score[rows, 4:]
        entropies = [-(f * np.log(f) + (1 - f) * np.log(1 - f)) for f in (0.5, 0.25)]
        values.append(-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean() / np.mean(entropies))
    return float(np.mean(values)) if values else math.nan


def test_the_figure_for_all_is_the_mean_of_shares_of_the_priors_losses() -> None:
    metric = measure(ALL, "relative_loss")
    assert not metric.greater_is_better
    for seed in range(5):
        true, score = draw(seed=seed)
        assert metric.function(true, score) == pytest.approx(by_hand(true, score), rel=1e-9)
    true, score = draw()
    true[:, 1] = np.nan
    assert metric.function(true, score) == pytest.approx(by_hand(true, score), rel=1e-9)
    assert math.isnan(metric.function(np.full_like(true, np.nan), score))
    assert math.isnan(metric.function(true[:0], score[:0]))


def test_it_is_one_for_the_prior_on_rows_like_the_training_rows() -> None:
    kind = np.repeat([0, 1, 2], [10, 6, 4])
    price = np.where(np.arange(20) % 2, 80.0, 120.0)
    tags = np.column_stack([np.arange(20) % 2, np.arange(20) % 4 == 0])
    prior = np.tile([0.5, 0.3, 0.2, 100.0, 0.5, 0.25], (20, 1))
    true = np.column_stack([kind, price, tags])
    assert measure(ALL, "relative_loss").function(true, prior) == pytest.approx(1.0)


@pytest.mark.parametrize("name", list(measures(ALL)))
def test_each_metric_of_each_target(name: str) -> None:
    metric = measures(ALL)[name]
    for seed in range(3):
        true, score = draw(40, seed)
        drawn = np.random.default_rng(seed).integers(0, 40, size=(15, 40))
        counts = np.stack([np.bincount(row, minlength=40) for row in drawn]).astype(float)
        plain = [metric.function(true[row], score[row]) for row in drawn]
        np.testing.assert_allclose(metric.resampled(true, score)(counts), plain, rtol=1e-9, atol=1e-12)
    if name == "relative_loss":
        return
    target, _, own = name.rpartition(":")
    place = next(part for part in parts_of(ALL) if part.name == target)
    known = ~np.isnan(true[:, place.true]).any(axis=1)
    mine, said = true[known][:, place.true], score[known][:, place.score]
    if target != "tags":
        mine = mine[:, 0].astype(int if target == "kind" else float)
    expected = METRICS[own].function(mine, said[:, 0] if target == "a:price" else said)
    assert metric.function(true, score) == pytest.approx(expected)


def test_rows_without_an_answer_say_nothing() -> None:
    true, score = draw()
    spoilt = score.copy()
    for place in parts_of(ALL):
        rows = np.flatnonzero(~place.known(true))
        spoilt[np.ix_(rows, range(place.score.start, place.score.stop))] = 1e3
    for metric in measures(ALL).values():
        assert metric.function(true, spoilt) == pytest.approx(metric.function(true, score)), metric.name


def test_intervals_and_differences() -> None:
    true, score = draw(200)
    metric = measure(ALL, "relative_loss")
    found = bootstrap([metric, measure(ALL, "a:price:rmse")], true, score, resamples=200)
    for name, at in found.items():
        assert at.low < at.value < at.high, name
    worse = score.copy()
    worse[:, 3] += 40
    gain = paired_difference(metric, true, worse, score, resamples=200)
    assert gain.low > 0


def test_a_target_that_no_resample_has_is_undefined() -> None:
    true, score = draw(30)
    true[1:, 1] = np.nan
    true[0, 1] = 100.0
    counts = np.ones((2, 30))
    counts[0, 0] = 0
    found = measure(ALL, "a:price:mae").resampled(true, score)(counts)
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(abs(score[0, 3] - 100))
    assert np.isfinite(measure(ALL, "relative_loss").resampled(true, score)(counts)).all()


def test_one_target_has_its_own_metrics() -> None:
    assert set(measures(PRICE)) == {"rmse", "mae", "r2", "spearman"}
    assert measure(KIND, "accuracy") is METRICS["accuracy"]
    assert prior_loss(Target(name="y", task="classification", levels=["a"], frequencies=[1.0])) == 1.0


@pytest.mark.parametrize(
    ("target", "name", "told"),
    [
        (ALL, "accuracy", "it is relative_loss, or  <target>:<metric>"),
        (ALL, "kind:acuracy", "did you mean 'kind:accuracy'"),
        (KIND, "rmse", "no metric of classification"),
    ],
)
def test_unknown_metrics_are_told(target: Target, name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        measure(target, name)
