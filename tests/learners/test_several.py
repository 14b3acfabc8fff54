"""A learner for each of several targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.data.schema import Target
from polyfuse.learners import LEARNERS
from polyfuse.learners.learner import Cells, Design
from polyfuse.learners.several import SeveralLearner, make_learner

ROWS = 200
KIND = Target(name="kind", task="classification", levels=["no", "yes"], frequencies=[0.5, 0.5])
PRICE = Target(name="price", task="regression", mean=50.0, std=10.0)
TAGS = Target(name="tags", task="multilabel", levels=["x", "y"], frequencies=[0.5, 0.3])
ALL = Target.of([KIND, PRICE, TAGS])


def make() -> tuple[Design, np.ndarray[Any, Any]]:
    """Return a design, and answers of which three in ten are missing."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(ROWS, 5)).astype(np.float32)
    numbers = random.normal(size=(ROWS, 2)).astype(np.float32)
    words = csr_matrix((random.random((ROWS, 7)) < 0.3).astype(np.float32))
    design = Design(
        {"image": vectors}, {"table": Cells(numbers, random.integers(0, 3, (ROWS, 1)), (3,))}, {"text": words}
    )
    signal = vectors[:, 0] + numbers[:, 0]
    answers = np.column_stack([signal > 0, 50 + 7 * signal, signal > 0, signal > 0.8]).astype(np.float64)
    for columns in ([0], [1], [2, 3]):
        answers[np.ix_(random.random(ROWS) < 0.3, columns)] = np.nan
    return design, answers


@pytest.mark.parametrize("name", LEARNERS)
def test_each_is_what_it_is_alone_on_its_rows(name: str, tmp_path: Path) -> None:
    design, answers = make()
    learner = make_learner(name, {}, ALL)
    held = np.arange(0, ROWS, 4)
    learner.choose(design, answers, held)
    learner.fit(design, answers)
    scores = learner.scores(design)
    assert scores.shape == (ROWS, 2 + 1 + 2)
    assert scores.dtype == np.float64
    alone = LEARNERS.build(name, {}, PRICE)
    rows = np.flatnonzero(~np.isnan(answers[:, 1]))
    alone.choose(design.rows(rows), answers[rows, 1], np.flatnonzero(np.isin(rows, held)))
    alone.fit(design.rows(rows), answers[rows, 1])
    np.testing.assert_allclose(scores[:, 2], alone.scores(design), rtol=1e-9)
    known = ~np.isnan(answers[:, 0])
    assert (scores[known, :2].argmax(1) == answers[known, 0]).mean() > 0.8
    assert ((scores[:, 3] > 0.5) == answers[:, 2])[~np.isnan(answers[:, 2])].mean() > 0.8
    learner.save(tmp_path)
    again = make_learner(name, {}, ALL)
    again.restore(tmp_path)
    np.testing.assert_allclose(again.scores(design), scores, rtol=1e-5, atol=1e-6)


def test_one_target_has_a_plain_learner() -> None:
    assert type(make_learner("linear", {}, PRICE)) is LEARNERS["linear"]
    with pytest.raises(InputError, match="did you mean 'strength'"):
        make_learner("linear", {"strenght": 1.0}, ALL)


def test_options_reach_each() -> None:
    learner = make_learner("linear", {"strength": 1e-6}, ALL)
    design, answers = make()
    learner.choose(design, answers, np.arange(0, ROWS, 4))
    learner.fit(design, answers)
    assert np.ptp(learner.scores(design), axis=0).max() < 0.05


def test_weights_of_rows_count_for_their_target() -> None:
    design, answers = make()
    learner = make_learner("linear", {}, ALL)
    learner.choose(design, answers, np.arange(0, ROWS, 4))
    learner.fit(design, answers)
    before = learner.scores(design)
    weights = np.ones((ROWS, 3))
    weights[:, 0] = np.where(answers[:, 0] == 1, 20.0, 1.0)
    learner.fit(design, answers, weights=weights)
    after = learner.scores(design)
    assert after[:, 1].mean() > before[:, 1].mean() + 0.05
    np.testing.assert_allclose(after[:, 2:], before[:, 2:], rtol=1e-6)


def test_where_too_few_rows_have_a_target_its_prior_answers(tmp_path: Path) -> None:
    design, answers = make()
    answers[3:, 1] = np.nan
    learner = make_learner("linear", {}, ALL)
    learner.choose(design, answers, np.arange(0, ROWS, 4))
    learner.fit(design, answers)
    scores = learner.scores(design)
    assert (scores[:, 2] == PRICE.mean).all()
    assert np.ptp(scores[:, 0]) > 0.5
    learner.save(tmp_path)
    assert json.loads((tmp_path / "targets.json").read_text()) == {"fitted": [True, False, True]}
    again = make_learner("linear", {}, ALL)
    again.restore(tmp_path)
    np.testing.assert_allclose(again.scores(design), scores, rtol=1e-5)
    # In one choice of rows after the other, one without the target may come first.
    _, whole = make()
    learner.choose(design, whole, np.arange(0, ROWS, 4))
    learner.fit(design.rows(np.arange(3)), answers[:3])
    learner.fit(design, whole)
    assert np.ptp(learner.scores(design)[:, 2]) > 5


def test_held_rows_without_the_target_do_not_decide() -> None:
    design, answers = make()
    held = np.arange(0, ROWS, 4)
    answers[held, 1] = np.nan
    learner = make_learner("linear", {}, ALL)
    learner.choose(design, answers, held)
    learner.fit(design, answers)
    assert np.ptp(learner.scores(design)[:, 2]) > 5


def test_damage_is_told(tmp_path: Path) -> None:
    learner = make_learner("linear", {}, ALL)
    assert isinstance(learner, SeveralLearner)
    with pytest.raises(ArtifactError, match="damaged"):
        learner.restore(tmp_path)
    (tmp_path / "targets.json").write_text('{"fitted": [true]}')
    with pytest.raises(ArtifactError, match="of 1 targets, not 3"):
        learner.restore(tmp_path)
    (tmp_path / "targets.json").write_text('{"fitted": [true, true, true]}')
    with pytest.raises(ArtifactError):
        learner.restore(tmp_path)
