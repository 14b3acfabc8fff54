"""Letters as a reader sees them, and the keys of a keyboard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyfuse.data.letters import KEYS, clusters


@pytest.mark.parametrize(("letter", "near"), [("g", "bfhtvy"), ("q", "aw"), ("p", "lo"), ("a", "qswz"), ("m", "jkn")])
def test_keys_that_touch(letter: str, near: str) -> None:
    assert "".join(sorted(KEYS[letter])) == near


def test_keys_touch_each_other() -> None:
    assert set(KEYS) == set("abcdefghijklmnopqrstuvwxyz")
    assert all(letter in KEYS[near] for letter, some in KEYS.items() for near in some)


@given(st.text())
def test_clusters_are_the_text(text: str) -> None:
    parts = clusters(text)
    assert "".join(parts) == text
    assert all(parts)


def test_clusters_hold_together_what_a_reader_sees_as_one() -> None:
    assert clusters("e\u0301👍🏽👩‍👩‍👧x") == ["e\u0301", "👍🏽", "👩‍👩‍👧", "x"]
