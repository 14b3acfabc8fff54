"""What is measured of probabilities follows its definition, and tells an overfitted model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.neural_network import MLPClassifier

from calibration_tools import THREE, calibrated, classes, labels
from polyfuse.calibration import CalibrationReport, calibrate, measure_calibration, reliability
from polyfuse.calibration.measuring import FIGURES
from polyfuse.core.errors import InputError
from polyfuse.core.files import strict_json
from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array

TAGS = Target(name="y", task="multilabel", levels=["p", "q", "r"], frequencies=[0.5] * 3)


def measured(true: Array, scores: Array, target: Target = THREE, **options: int) -> CalibrationReport:
    """Return the report of scores that are calibrated on rows that say nothing is to be done."""
    answered = np.ones(len(scores), dtype=bool)
    same, _ = calibrate(true, scores, answered, target, "none")
    return measure_calibration(same, true, scores, answered, **options)["y"]


def squared_error(confidence: Array, right: Array, bins: int) -> float:
    """Kumar, Liang & Ma 2019, over bins of as many answers each: no two confidences are the same here."""
    total = 0.0
    for some in np.array_split(np.argsort(confidence), bins):
        c, a, n = confidence[some].mean(), right[some].mean(), len(some)
        total += n / len(right) * ((c - a) ** 2 - a * (1 - a) / (n - 1))
    return total


def test_figures_follow_their_definitions() -> None:
    true, scores = classes(1500, sharp=2.0)
    p = scores.astype(np.float64)
    found = measured(true, p, resamples=20).before
    assert found["log_loss"].value == pytest.approx(-np.log(p[np.arange(1500), true]).mean(), rel=1e-6)
    assert found["brier"].value == pytest.approx(((p - np.eye(3)[true]) ** 2).sum(1).mean())
    assert found["accuracy"].value == pytest.approx((p.argmax(1) == true).mean())
    expected = squared_error(p.max(1), (p.argmax(1) == true).astype(float), 15)
    assert found["calibration_error"].value == pytest.approx(np.sqrt(expected), rel=0.02)
    tags, said = labels(1500, sharp=2.0)
    q = said.astype(np.float64)
    found = measured(tags, q, TAGS, resamples=20).before
    assert found["log_loss"].value == pytest.approx(-np.where(tags > 0, np.log(q), np.log(1 - q)).mean(), rel=1e-6)
    assert found["brier"].value == pytest.approx(((q - tags) ** 2).mean())
    assert found["accuracy"].value == pytest.approx(((q >= 0.5) == tags).mean())
    expected = squared_error(q.ravel(), tags.ravel(), 15)
    assert found["calibration_error"].value == pytest.approx(np.sqrt(expected), rel=0.02)


@pytest.mark.parametrize("sharp", [1.0, 2.0])
def test_chance_alone_is_no_error_and_intervals_hold_the_true_one(sharp: float) -> None:
    true, scores = classes(200_000, sharp=sharp, seed=99)
    right = (scores.argmax(1) == true).astype(float)
    expected = np.sqrt(max(squared_error(scores.max(1).astype(float), right, 15), 0))
    found = [measured(*classes(400, sharp=sharp, seed=seed), resamples=100).before for seed in range(25)]
    squares = [at["calibration_error"].value ** 2 for at in found]
    inside = [at["calibration_error"].low <= expected <= at["calibration_error"].high for at in found]
    # Without the correction the mean square would be (C - 1) times that of chance too large: about 0.006 here.
    assert np.mean(squares) == pytest.approx(expected**2, abs=0.004)
    assert np.mean(inside) >= 0.8
    if sharp == 1.0:
        assert expected < 0.01
        assert np.median([at["calibration_error"].value for at in found]) < 0.03


def test_a_reliability_diagram_has_bins_of_as_many_answers() -> None:
    true, scores = classes(1500, sharp=2.0)
    bins = reliability("classification", true, scores)
    assert len(bins) == 15
    assert {at.count for at in bins} == {100}
    confidence, right = scores.max(1), scores.argmax(1) == true
    for at in bins:
        some = (confidence >= at.low) & (confidence <= at.high)
        hits = right[some].sum()
        assert (at.count, at.accuracy.value) == (some.sum(), pytest.approx(hits / 100))
        assert at.confidence == pytest.approx(confidence[some].mean(), rel=1e-5)
        assert at.accuracy.low == pytest.approx(beta.ppf(0.025, hits, 101 - hits))
        assert at.accuracy.high == pytest.approx(beta.ppf(0.975, hits + 1, 100 - hits))
    # Few rows, and equal confidences: fewer bins, and no two of the same.
    assert len(reliability("classification", true[:35], scores[:35])) == 3
    same = np.tile(np.array([[0.2, 0.8, 0.0]], dtype=np.float32), (1500, 1))
    assert [at.count for at in reliability("classification", true, same)] == [1500]


def test_an_overfitted_network_is_as_sure_as_it_is_right_after_scaling() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(2700, 20))
    y = (x[:, :3].argmax(1) + (random.random(2700) < 0.3) * random.integers(1, 3, 2700)) % 3
    network = MLPClassifier((64,), alpha=0, max_iter=500, random_state=0).fit(x[:300], y[:300])
    scores = network.predict_proba(x).astype(np.float32)
    assert (scores[:300].argmax(1) == y[:300]).mean() > 0.97
    answered = np.ones(2700, dtype=bool)
    calibration, by_others = calibrate(y[300:700], scores[300:700], answered[300:700], THREE)
    assert calibration.scalings["y"].method == "temperature"
    assert calibration.scalings["y"].temperature > 2  # type: ignore[operator]
    report = measure_calibration(calibration, y[700:], scores[700:], answered[700:])["y"]
    before, after = report.before, report.after
    assert before["calibration_error"].value > 0.2
    assert after["calibration_error"].high < before["calibration_error"].low / 3
    assert report.change["calibration_error"].high < 0
    assert report.change["log_loss"].high < 0
    assert report.change["brier"].high < 0
    assert before["accuracy"] == after["accuracy"]
    assert report.turned == 0
    # What the rows scaled by folds show is what other rows show.
    held = -np.log(by_others[np.arange(400), y[300:700]]).mean()
    assert held == pytest.approx(after["log_loss"].value, abs=0.08)


def test_a_report_reads_as_a_table_and_as_json() -> None:
    true, scores = classes(400, sharp=3.0)
    calibration, _ = calibrate(true, scores, np.ones(400, dtype=bool), THREE, "temperature")
    test = classes(300, sharp=3.0, seed=1)
    report = measure_calibration(calibration, *test, np.ones(300, dtype=bool), resamples=50)["y"]
    assert (report.rows, report.fitted_on, report.method) == (300, 400, "temperature")
    said = str(report)
    assert f"temperature {report.temperature:.3f}, fitted on 400 other rows" in said
    assert all(word in said for word in ("log loss", "Brier score", "calibration error, debiased", "accuracy"))
    data = report.data()
    assert set(data["before"]) == set(FIGURES)
    assert data["after"]["brier"]["value"] == report.after["brier"].value
    assert sum(at["count"] for at in data["diagram_after"]) == 300
    strict_json(data)


def test_nothing_to_measure_is_told() -> None:
    price = Target(name="price", task="regression")
    numbers = np.arange(60.0)
    with pytest.raises(InputError, match="a regression has no probabilities"):
        measure_calibration(calibrated(numbers, numbers, price), numbers, numbers, np.ones(60, dtype=bool))
    true, scores = classes(60)
    with pytest.raises(InputError, match="no row has an answer for 'y'"):
        measure_calibration(calibrated(true, scores), true[:0], scores[:0], np.ones(0, dtype=bool))
