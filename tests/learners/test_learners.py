"""What holds of every learner, and the formulas of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from polyfuse.core.errors import ArtifactError
from polyfuse.data.schema import Target
from polyfuse.learners import LEARNERS
from polyfuse.learners.boosting import BoostingLearner
from polyfuse.learners.learner import Cells, Design, Learner
from polyfuse.learners.linear import LinearLearner, side_by_side

ROWS = 240
BINARY = Target(name="y", task="classification", levels=["no", "yes"], frequencies=[0.5, 0.5])
THREE = Target(name="y", task="classification", levels=["a", "b", "c"], frequencies=[0.3, 0.3, 0.4])
MANY = Target(name="y", task="multilabel", levels=["a", "b"], frequencies=[0.5, 0.5])
NUMBER = Target(name="y", task="regression", mean=50.0, std=10.0)
TARGETS = [BINARY, THREE, MANY, NUMBER]


def make_design(rows: int = ROWS, seed: int = 0) -> tuple[Design, np.ndarray[Any, Any]]:
    """Return a design, and a number that each of its parts knows a little of."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, 6)).astype(np.float32) * 3 + 5
    numbers = random.normal(size=(rows, 2)).astype(np.float32)
    codes = random.integers(0, 4, size=(rows, 1))
    words = csr_matrix((random.random((rows, 9)) < 0.3).astype(np.float32))
    signal = vectors[:, 0] - 5 + 2 * numbers[:, 0] + 2.0 * (codes[:, 0] == 2) + 2 * words.toarray()[:, 3]
    vectors[::9] = np.nan
    numbers[::7, 1] = np.nan
    return Design({"image": vectors}, {"table": Cells(numbers, codes, (4,))}, {"text": words}), np.asarray(signal)


def make_answers(target: Target, signal: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ranks = signal.argsort().argsort() / len(signal)
    if target.task == "regression":
        return 50 + 3 * signal
    if target.task == "multilabel":
        return np.stack([ranks > 0.5, ranks > 0.7], axis=1).astype(np.float32)
    return (ranks * len(target.levels)).astype(np.int64)


def fitted(name: str, target: Target, **options: Any) -> tuple[Learner, Design, np.ndarray[Any, Any]]:
    design, signal = make_design()
    answers = make_answers(target, signal)
    learner = LEARNERS.build(name, options, target)
    learner.choose(design, answers, np.arange(0, ROWS, 4))
    learner.fit(design, answers)
    return learner, design, answers


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.task}{len(target.levels)}")
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner(name: str, target: Target, tmp_path: Path) -> None:
    learner, design, answers = fitted(name, target)
    scores = learner.scores(design)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    if target.task == "regression":
        assert scores.shape == (ROWS,)
        assert 1 - np.var(answers - scores) / np.var(answers) > 0.5
    else:
        assert scores.shape == (ROWS, len(target.levels))
        assert ((scores >= 0) & (scores <= 1)).all()
        if target.task == "classification":
            np.testing.assert_allclose(scores.sum(1), 1, atol=1e-9)
            assert (scores.argmax(1) == answers).mean() > 0.6
        else:
            assert ((scores > 0.5) == answers).mean() > 0.7
    # A row's answer depends on that row alone.
    some = np.array([5, 0, 77])
    np.testing.assert_allclose(learner.scores(design.rows(some)), scores[some], rtol=1e-6, atol=1e-9)
    learner.save(tmp_path)
    again = LEARNERS.build(name, {}, target)
    again.restore(tmp_path)
    np.testing.assert_allclose(again.scores(design), scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_absent_and_new_values_are_answered(name: str) -> None:
    learner, design, _ = fitted(name, THREE)
    nothing = Design(
        {"image": np.full((2, 6), np.nan, dtype=np.float32)},
        {"table": Cells(np.full((2, 2), np.nan, dtype=np.float32), np.zeros((2, 1), dtype=np.int64), (4,))},
        {"text": csr_matrix((2, 9), dtype=np.float32)},
    )
    scores = learner.scores(nothing)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores[0], scores[1])
    assert np.isfinite(learner.scores(design.rows(np.arange(0)))).all() or len(design) == 0


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("target", [THREE, MANY], ids=["classification", "multilabel"])
def test_labels_that_some_rows_lack(name: str, target: Target) -> None:
    learner, design, answers = fitted(name, target)
    if target.task == "classification":
        only = np.flatnonzero(answers < 2)
        learner.fit(design.rows(only), answers[only])
        scores = learner.scores(design.rows(only))
        assert (scores.argmax(1) == answers[only]).mean() > 0.6
        assert scores[:, 2].max() < 0.1
        learner.fit(design.rows(only[:3]), np.zeros(3, dtype=np.int64)) if name == "linear" else None
    else:
        rows = np.flatnonzero(answers[:, 1] == 0)
        learner.fit(design.rows(rows), answers[rows])
        assert learner.scores(design)[:, 1].max() < 0.1


@pytest.mark.parametrize("name", LEARNERS)
def test_weights_of_rows_count(name: str) -> None:
    learner, design, answers = fitted(name, BINARY)
    before = learner.scores(design)[:, 1].mean()
    learner.fit(design, answers, weights=np.where(answers == 1, 20.0, 1.0))
    assert learner.scores(design)[:, 1].mean() > before + 0.05


@pytest.mark.parametrize("name", LEARNERS)
def test_only_some_modalities(name: str) -> None:
    design, signal = make_design()
    answers = make_answers(BINARY, signal)
    for part in (design.only(["table"]), design.only(["text"], parts=["words"]), design.only(["image", "table"])):
        learner = LEARNERS.build(name, {}, BINARY)
        learner.choose(part, answers, np.arange(0, ROWS, 4))
        learner.fit(part, answers)
        assert learner.scores(part).shape == (ROWS, 2)
    assert design.only(["image"], parts=["words"]).width == 0


def test_linear_is_the_minimum_of_its_penalised_loss() -> None:
    """The formula in the docstring, minimised by something else."""
    learner, design, answers = fitted("linear", BINARY, strength=2.0)
    assert isinstance(learner, LinearLearner)
    blocks = {name: csr_matrix(block).toarray() for name, block in learner._blocks(design).items()}
    x = np.hstack([*blocks.values()]).astype(np.float64)
    gains = np.concatenate([np.full(block.shape[1], learner._gains[name]) for name, block in blocks.items()])

    def objective(w: np.ndarray[Any, Any]) -> float:
        eta = w[0] + x @ w[1:]
        return float(np.logaddexp(0, -np.where(answers == 1, eta, -eta)).sum() + (w[1:] ** 2 / (2 * 2.0 * gains)).sum())

    found = np.concatenate([learner._intercept, *[part[:, 0] for part in learner._coefficients.values()]])
    best = minimize(objective, np.zeros(x.shape[1] + 1), options={"maxiter": 2000})
    assert objective(found) <= best.fun * (1 + 1e-3)
    for name, block in blocks.items():
        if not name.startswith("words"):
            np.testing.assert_allclose(block.mean(0), 0, atol=1e-5)
            assert np.square(block).sum(1).mean() == pytest.approx(1, rel=0.15)


def test_blocks_of_many_rows_stand_side_by_side() -> None:
    random = np.random.default_rng(0)
    dense = random.normal(size=(9_001, 3)).astype(np.float32)
    dense[::5] = 0
    words = csr_matrix((random.random((9_001, 4)) < 0.2).astype(np.float32))
    factors = [np.float32(0.5), np.float32(3)]
    expected = np.hstack([dense * 0.5, words.toarray() * 3])
    joined = side_by_side([dense, words], factors)
    np.testing.assert_array_equal(joined.toarray(), expected)
    assert joined.has_canonical_format
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(side_by_side([dense, words.toarray()], factors), expected)


def test_ridge_is_the_closed_form() -> None:
    learner, design, answers = fitted("linear", NUMBER, strength=3.0)
    assert isinstance(learner, LinearLearner)
    x = np.hstack([csr_matrix(b).toarray() * learner._gains[n] ** 0.5 for n, b in learner._blocks(design).items()])
    x = x.astype(np.float64)
    z = (answers - 50) / 10
    centred = x - x.mean(0)
    w = np.linalg.solve(centred.T @ centred + np.eye(x.shape[1]) / 3.0, centred.T @ (z - z.mean()))
    expected = (z.mean() + centred @ w) * 10 + 50
    np.testing.assert_allclose(learner.scores(design), expected, atol=0.05)


def test_strength_holds_back() -> None:
    weak, design, answers = fitted("linear", BINARY, strength=1e-6)
    strong, _, _ = fitted("linear", BINARY, strength=1e3)
    assert np.ptp(weak.scores(design)[:, 1]) < 0.01 < np.ptp(strong.scores(design)[:, 1])
    assert len(answers) == ROWS


def trees(learner: Learner) -> dict[str, Any]:
    assert isinstance(learner, BoostingLearner)
    dumped: dict[str, Any] = learner._boosters[0].dump_model()
    return dumped


def test_every_option_of_boosting_has_its_effect() -> None:
    few, _, _ = fitted("boosting", BINARY, rounds=3)
    assert len(trees(few)["tree_info"]) <= 3
    small, _, _ = fitted("boosting", BINARY, leaves=2)
    assert all(tree["num_leaves"] <= 2 for tree in trees(small)["tree_info"])
    slow, _, _ = fitted("boosting", BINARY, learning_rate=0.01)
    assert trees(slow)["tree_info"][1]["shrinkage"] == pytest.approx(0.01)
    narrow, _, _ = fitted("boosting", BINARY, words=2)
    assert len(trees(narrow)["feature_names"]) == 2 + 1 + 6 + 2
    one, _, _ = fitted("boosting", BINARY, columns=0.01)
    assert "[feature_fraction: 0.01]" in one._boosters[0].model_to_string()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", LEARNERS)
def test_damage_is_told(name: str, tmp_path: Path) -> None:
    learner, _, _ = fitted(name, BINARY)
    learner.save(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtifactError):
        LEARNERS.build(name, {}, BINARY).restore(tmp_path)
    with pytest.raises(ArtifactError):
        LEARNERS.build(name, {}, BINARY).restore(tmp_path / "none")


def test_a_model_for_other_labels_is_refused(tmp_path: Path) -> None:
    learner, _, _ = fitted("linear", BINARY)
    learner.save(tmp_path)
    with pytest.raises(ArtifactError, match="labels"):
        LinearLearner(THREE).restore(tmp_path)
