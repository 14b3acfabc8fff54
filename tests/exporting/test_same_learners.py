"""What the runner makes of learned models is what polyfuse makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polyfuse.calibration.scaling import fit_scaling
from polyfuse.data.schema import Target
from polyfuse.learners import LEARNERS
from polyfuse.learners.learner import Cells, Design
from polyfuse.learners.words import WordStatistics
from polyfuse_runner.learners import LEARNERS as RUNNING
from polyfuse_runner.learners import Forest, Read, Words, tensors
from polyfuse_runner.scoring import Part

ROWS = 300
TEXTS = ["the good dog", "a bad cat", None, "日本 dog", "Good GOOD dog's", "", "x" * 3]


def forest(**settings: Any) -> tuple[lightgbm.Booster, np.ndarray[Any, Any]]:
    """Return trees grown on numbers with holes and zeros and on a category, and the table."""
    random = np.random.default_rng(0)
    table = random.normal(size=(ROWS, 4)).astype(np.float32)
    table[random.random((ROWS, 4)) < 0.2] = np.nan
    table[random.random((ROWS, 4)) < 0.2] = 0.0
    table[:, 3] = random.integers(0, 70, ROWS)
    answers = (np.nan_to_num(table[:, 0]) + table[:, 3] % 3).astype(int) % settings.get("num_class", 2)
    common = {"verbosity": -1, "num_leaves": 12, "min_data_in_leaf": 3, "num_threads": 1, "min_data_per_group": 3}
    data = lightgbm.Dataset(table, answers, categorical_feature=[3], params={**common, **settings}, free_raw_data=False)
    return lightgbm.train({**common, **settings}, data, num_boost_round=8), table


FORESTS = {
    "binary": forest(objective="binary"),
    "multiclass": forest(objective="multiclass", num_class=3),
    "zeros are missing": forest(objective="regression", zero_as_missing=True),
    "nothing is missing": forest(objective="regression", use_missing=False),
    "single leaves": forest(objective="regression", min_gain_to_split=1e9),
}
NUMBERS = st.one_of(st.floats(width=32), st.sampled_from([np.nan, 0.0, -0.0, 1e-36, -1.0, 3.0, 64.0, 1e9, np.inf]))


@pytest.mark.parametrize("name", FORESTS)
def test_trees(name: str) -> None:
    booster, table = FORESTS[name]
    wild = np.vstack([table, np.roll(table, 1, axis=1)]).astype(np.float64)
    found = Forest(booster.model_to_string()).raw(wild)
    expected = np.asarray(booster.predict(wild, raw_score=True)).reshape(len(wild), -1)
    assert np.abs(found - expected).max() < 1e-12


def test_trees_that_run_in_a_circle_are_refused() -> None:
    text = FORESTS["binary"][0].model_to_string()
    assert "left_child=1 " in text
    with pytest.raises(ValueError, match="a tree is damaged"):
        Forest(text.replace("left_child=1 ", "left_child=0 ", 1))


@settings(max_examples=60)
@given(hnp.arrays(np.float64, (3, 4), elements=NUMBERS), st.sampled_from(sorted(FORESTS)))
def test_trees_of_wild_values(table: np.ndarray[Any, Any], name: str) -> None:
    booster, _ = FORESTS[name]
    found = Forest(booster.model_to_string()).raw(table)
    assert np.abs(found - np.asarray(booster.predict(table, raw_score=True)).reshape(3, -1)).max() < 1e-12


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(["good", "dog", "日", "İ", "a-b"])).map(" ".join)))
def test_words(text: str) -> None:
    assert_same_words(STATISTICS, text)


STATISTICS = WordStatistics(least=1).fit([*TEXTS, "good dog", "日 本 a b"])


def assert_same_words(statistics: WordStatistics, text: str | None) -> None:
    expected = statistics.transform([text]).toarray()[0]
    found = np.zeros(len(statistics))
    places, values = RUNNER_WORDS.read(text)
    found[places] = values
    assert np.abs(found - expected).max() < 1e-6


@pytest.fixture(scope="module", autouse=True)
def _saved(tmp_path_factory: pytest.TempPathFactory) -> None:
    global RUNNER_WORDS
    path = tmp_path_factory.mktemp("words") / "words.json"
    STATISTICS.save(path)
    RUNNER_WORDS = Words(path)


RUNNER_WORDS: Words
TARGETS = {
    "two": Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5]),
    "three": Target(name="y", task="classification", levels=["a", "b", "c"], frequencies=[0.4, 0.3, 0.3]),
    "labels": Target(name="y", task="multilabel", levels=["a", "b"], frequencies=[0.5, 0.5]),
    "number": Target(name="y", task="regression", mean=100.0, std=20.0),
}


@pytest.mark.parametrize("kind", sorted(RUNNING))
@pytest.mark.parametrize("target", TARGETS)
def test_learners(kind: str, target: str, tmp_path: Path) -> None:
    random, asked = np.random.default_rng(0), TARGETS[target]
    texts = [TEXTS[i] for i in random.integers(0, len(TEXTS), ROWS)]
    vectors = random.normal(size=(ROWS, 5)).astype(np.float32)
    vectors[::9] = np.nan
    numbers = random.normal(size=(ROWS, 2)).astype(np.float32)
    numbers[::7, 0] = np.nan
    codes = random.integers(0, 4, (ROWS, 1))
    statistics = WordStatistics().fit(texts)
    design = Design({"face": vectors}, {"table": Cells(numbers, codes, (4,))}, {"text": statistics.transform(texts)})
    drawn = np.nan_to_num(vectors[:, 0]) + codes[:, 0]
    answers: Any = (
        (drawn * 20 + 100)
        if target == "number"
        else (drawn > 1.5).astype(np.int64) + (drawn > 2.5) * (target == "three")
    )
    if target == "labels":
        answers = np.stack([drawn > 1.5, drawn < 1], axis=1).astype(np.float32)
    learner = LEARNERS.build(kind, {}, asked)
    learner.choose(design, answers, np.arange(0, ROWS, 4))
    learner.fit(design, answers)
    learner.save(tmp_path)
    statistics.save(tmp_path / "words.json")
    words = Words(tmp_path / "words.json")
    read = Read(
        ROWS, {"face": vectors}, {"table": (numbers, codes, [4])}, {"text": [words.read(text) for text in texts]}
    )
    found = RUNNING[kind](tmp_path, asked.model_dump(mode="json")).scores(read)
    expected = learner.scores(design).reshape(ROWS, -1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * (asked.std if target == "number" else 1)


def test_a_damaged_file_of_tensors_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "a.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, path)
    assert np.array_equal(tensors(path)["a"], [[0, 1, 2], [3, 4, 5]])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="damaged"):
        tensors(path)


#: What rounding makes equal, and so another answer.
NEARLY_EQUAL = [[1 / 3, np.nextafter(1 / 3, 1), 0.2], [np.nextafter(0.5, 0), 0.2, 0.2]]


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_calibration(task: str, method: Any) -> None:
    random = np.random.default_rng(0)
    scores = random.dirichlet([0.3] * 3, size=200)
    truth = random.integers(0, 3, 200) if task == "classification" else random.integers(0, 2, (200, 3))
    scaling = fit_scaling(task, truth, scores, method)
    about = {"name": "y", "task": task, "levels": ["a", "b", "c"]}
    about["scaling"] = {"method": method, "weights": scaling.weights.tolist(), "biases": scaling.biases.tolist()}
    wild = np.vstack([scores, [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0], [0.5, 0.25, 0.25]], NEARLY_EQUAL])
    found, expected = Part(about, 0).calibrated(wild), scaling.apply(wild)
    assert np.abs(found - expected).max() < 1e-12
    if method == "temperature":
        chosen = (lambda p: p.argmax(axis=1)) if task == "classification" else (lambda p: p >= 0.5)
        assert np.array_equal(chosen(found), chosen(wild))
