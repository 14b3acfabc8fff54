"""Statistics of words, beside scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from polyfuse.core.errors import ArtifactError
from polyfuse.learners.words import WordStatistics

TEXTS = [
    "The red dress fits well, the RED one!",
    "a blue dress",
    "Überraschung: naïve café, 3 times 3",
    "red dress red dress",
    "",
    "blue",
]


def test_it_is_tf_idf_of_words_and_pairs() -> None:
    theirs = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1, token_pattern=r"\w+")
    expected = theirs.fit_transform(TEXTS)
    ours = WordStatistics(least=1).fit(TEXTS)
    found = ours.transform(TEXTS)
    names = list(theirs.get_feature_names_out())
    assert len(ours) == len(names)
    places = [ours._places[name] for name in names]
    np.testing.assert_allclose(found.toarray()[:, places], expected.toarray(), atol=1e-6)


def test_rare_words_are_left_out_and_the_most_frequent_kept() -> None:
    assert set(WordStatistics(least=3).fit(TEXTS)._places) == {"dress"}
    assert set(WordStatistics(least=1, most=2).fit(TEXTS)._places) == {"dress", "blue"}


def test_absent_and_unknown_texts_are_rows_of_zeros() -> None:
    statistics = WordStatistics(least=1).fit([*TEXTS, None])
    found = statistics.transform([None, "", "zebra", "red"])
    assert found.shape == (4, len(statistics))
    np.testing.assert_allclose(np.asarray(found.power(2).sum(1)).ravel(), [0, 0, 0, 1], atol=1e-6)


def test_scripts_without_spaces_are_read_by_character() -> None:
    statistics = WordStatistics(least=1).fit(["我喜欢这件衣服"])
    assert {"我", "喜", "喜 欢"} <= set(statistics._places)


def test_nothing_to_count() -> None:
    statistics = WordStatistics().fit(["", None])
    assert statistics.transform(["a b"]).shape == (1, 0)


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), min_size=1, max_size=8))
def test_wild_texts(texts: list[str | None]) -> None:
    statistics = WordStatistics(least=1).fit(texts)
    found = statistics.transform(texts)
    lengths = np.sqrt(np.asarray(found.power(2).sum(1)).ravel())
    assert np.isfinite(found.data).all()
    assert all(abs(length) < 1e-6 or abs(length - 1) < 1e-5 for length in lengths)


def test_round_trip(tmp_path: Path) -> None:
    statistics = WordStatistics(least=1).fit(TEXTS)
    statistics.save(tmp_path / "words.json")
    again = WordStatistics.load(tmp_path / "words.json")
    assert (again.transform(TEXTS) != statistics.transform(TEXTS)).nnz == 0


@pytest.mark.parametrize(
    "text", ["", "[]", '{"words": ["a"]}', '{"words": ["a"], "idf": [1, 2]}', '{"words": 3, "idf": []}']
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "words.json").write_text(text)
    with pytest.raises(ArtifactError, match="damaged"):
        WordStatistics.load(tmp_path / "words.json")
