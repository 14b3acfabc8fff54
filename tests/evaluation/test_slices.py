"""Slices: one that is planted is found, none where there is none; curves against sklearn's areas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, roc_auc_score

import polyfuse as pf
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Target
from polyfuse.evaluation.curves import curves
from polyfuse.evaluation.slices import traits, worst_slices
from polyfuse.metrics import METRICS

ACCURACY = METRICS["accuracy"]


@pytest.fixture(scope="module")
def rows() -> Rows:
    drawn = np.random.default_rng(0)
    count = 1200
    frame = pd.DataFrame(
        {
            "brand": drawn.choice(["acme", "bolt", "coil"], count),
            "size": drawn.normal(size=count),
            "note": [" ".join(["word"] * n) for n in drawn.integers(1, 40, count)],
            "y": drawn.choice(["no", "yes"], count),
        }
    )
    frame.loc[drawn.random(count) < 0.1, "note"] = None
    plan = pf.Predictor("y", modalities={"text": {"columns": ["note"]}, "table": {"columns": ["brand", "size"]}})
    schema = plan.plan(frame).schema
    return read_rows(read_table(frame, media_root=None), schema, training=False, answers=True)


def scores(truth: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return probabilities that answer right but where told."""
    answers = np.where(wrong, 1 - truth, truth)
    return np.stack([1 - 0.8 * answers - 0.1, 0.8 * answers + 0.1], axis=1)


def test_a_planted_slice_is_found_and_measured_on_rows_that_did_not_find_it(rows: Rows) -> None:
    drawn = np.random.default_rng(1)
    truth = np.array([answer == "yes" for answer in rows.answers]).astype(int)
    bad = traits(rows)["brand = bolt"]
    wrong = drawn.random(len(rows)) < np.where(bad, 0.4, 0.1)
    found = worst_slices(rows, ACCURACY, truth, scores(truth, wrong))
    assert found.apart
    worst = found.worst[0]
    assert "brand = bolt" in worst.what
    assert worst.gap.low > 0.1
    assert worst.rows >= found.least
    measured = np.random.default_rng(0).permutation(len(rows))[1::2]
    whole = next(one for one in found.worst if one.what == "brand = bolt")
    assert whole.value.value == pytest.approx(1 - wrong[measured][bad[measured]].mean())
    assert whole.rest.value == pytest.approx(1 - wrong[measured][~bad[measured]].mean())


def test_two_traits_together_are_found(rows: Rows) -> None:
    truth = np.array([answer == "yes" for answer in rows.answers]).astype(int)
    known = traits(rows)
    both = known["brand = acme"] & (np.array([rows.cell("size", row) for row in range(len(rows))]) > 0)
    found = worst_slices(rows, ACCURACY, truth, scores(truth, both & (np.arange(len(rows)) % 3 > 0)))
    assert any("brand = acme" in one.what and "size from" in one.what for one in found.worst)


def test_where_nothing_is_planted_most_intervals_hold_nothing(rows: Rows) -> None:
    truth = np.array([answer == "yes" for answer in rows.answers]).astype(int)
    certain = 0
    for seed in range(10):
        wrong = np.random.default_rng(seed).random(len(rows)) < 0.2
        certain += sum(one.gap.low > 0 for one in worst_slices(rows, ACCURACY, truth, scores(truth, wrong)).worst)
    assert certain <= 8  # of 50, where 2.5 % on this side are by chance


def test_traits_know_lengths_and_absences(rows: Rows) -> None:
    known = traits(rows)
    lengths = [name for name in known if name.startswith("note from")]
    assert len(lengths) == 4
    covered = np.stack([known[name] for name in [*lengths, "note absent"]]).sum(0)
    assert (covered == 1).all()


def test_areas_under_thinned_curves_are_nearly_exact() -> None:
    drawn = np.random.default_rng(0)
    truth = drawn.integers(0, 2, 3000)
    second = 1 / (1 + np.exp(-(truth + drawn.normal(size=3000))))
    target = Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5])
    found = curves(truth, np.stack([1 - second, second], axis=1), target)
    assert list(found.roc) == ["b"]
    assert len(found.roc["b"]) <= 100
    fpr, tpr = zip(*found.roc["b"], strict=True)
    assert auc(fpr, tpr) == pytest.approx(roc_auc_score(truth, second), abs=2e-3)
    assert found.shares["b"] == truth.mean()


def test_residuals_are_of_some_rows() -> None:
    numbers = np.arange(1000.0)
    found = curves(numbers, numbers - 2, Target(name="y", task="regression"))
    assert len(found.residuals) == 400
    assert {residual for _, residual in found.residuals} == {2.0}
