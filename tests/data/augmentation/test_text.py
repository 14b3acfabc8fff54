"""Augmentations of text: what is left out, what is mistyped, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.data.augmentation.text import TextAugmentation
from polyfuse.data.letters import KEYS, clusters
from polyfuse.data.schema import Column

COLUMN = Column(name="note", type="text")
WORDS = [f"{letter}{i}" for i in range(15) for letter in "abcd"]
FOX = "the quick brown fox jumps over the lazy dog and runs into the dark forest at night"


def augmented(name: str, text: str, seed: int, **options: Any) -> str:
    found = AUGMENTATIONS.build(name, options, COLUMN)(text, np.random.default_rng(seed), lambda: None)
    assert isinstance(found, str)
    return found


def distance(a: str, b: str) -> int:
    """Return how many letters must be put in, left out, replaced or swapped with the next to come from a to b.

    Optimal string alignment (Damerau 1964), from its recurrence.
    """
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0, :] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return int(table[-1, -1])


def test_words_are_left_out_at_their_share() -> None:
    left = [len(augmented("word_drop", " ".join(WORDS), seed, share=0.3).split()) for seed in range(200)]
    assert np.mean(left) / 60 == pytest.approx(0.7, abs=0.02)
    assert np.var(left) == pytest.approx(60 * 0.3 * 0.7, rel=0.4)  # each word by itself: binomial


def test_what_stays_keeps_its_order_and_its_blanks() -> None:
    pieces = ["one  ", "two\n", "three\t", "four   ", "five "]
    for seed in range(50):
        found = augmented("word_drop", "".join(pieces), seed, share=0.5)
        kept = found.split()
        assert found.rstrip() == "".join(piece for piece in pieces if piece.rstrip() in kept).rstrip()
    assert "two\nthree" in {augmented("word_drop", "two\nthree x", seed, share=0.4) for seed in range(50)}


def test_one_word_always_stays_and_it_may_be_any() -> None:
    found = {augmented("word_drop", "one two three", seed, share=0.999) for seed in range(200)}
    assert found == {"one", "two", "three"}


def test_texts_without_a_change_come_back_as_they_are() -> None:
    text = "  two   words \n"
    assert augmented("word_drop", text, 0, share=0.0) == text
    assert augmented("typos", text, 0, rate=0.0) == text
    assert augmented("word_drop", "alone", 0, share=0.9) == "alone"


def test_typos_come_at_their_rate() -> None:
    letters = len(FOX.replace(" ", ""))
    errors = [distance(FOX, augmented("typos", FOX, seed, rate=0.05)) for seed in range(120)]
    # An error may undo another, and one of a doubled letter may not show: a little below the rate.
    assert np.mean(errors) / letters == pytest.approx(0.05, rel=0.15)


def test_a_single_error_is_one_of_the_four() -> None:
    kinds = {"left out": 0, "as well": 0, "instead": 0, "swapped": 0}
    for seed in range(4000):
        found = augmented("typos", "gh", seed, rate=0.05)
        if found == "gh":
            continue
        if distance("gh", found) > 1:
            continue
        if len(found) == 1:
            kinds["left out"] += 1
        elif len(found) == 3:
            kinds["as well"] += 1
            extra = found[1] if found[0] == "g" and found[2] == "h" else found[2]
            assert extra in KEYS["g"] + KEYS["h"]
        elif found == "hg":
            kinds["swapped"] += 1
        else:
            kinds["instead"] += 1
            assert (found[0] in KEYS["g"] and found[1] == "h") or (found[0] == "g" and found[1] in KEYS["h"])
    total = sum(kinds.values())
    assert total > 300
    # Hit on g beside: "hh" is as a replacement; the four are alike up to such chances.
    assert min(kinds.values()) > 0.17 * total


def test_case_is_kept_by_the_key_beside() -> None:
    found = "".join(augmented("typos", "GHJ" * 20, seed, rate=0.5) for seed in range(5))
    assert found == found.upper()


@pytest.mark.parametrize("text", ["1234 5678, 90%!", "👩‍👩‍👧 🇪🇺 👍🏽 😀", "  \n ", "…—-_/()"])
def test_digits_signs_and_emoji_stay(text: str) -> None:
    assert all(augmented("typos", text, seed, rate=0.5) == text for seed in range(20))


def test_a_letter_keeps_its_marks() -> None:
    text = "cafe\u0301 nai\u0308ve \u0928\u092e\u0938\u094d\u0924\u0947"
    whole = set(clusters(text))
    for seed in range(100):
        found = clusters(augmented("typos", text, seed, rate=0.4))
        marked = [part for part in found if len(part) > 1]
        assert all(part in whole for part in marked)


def test_scripts_without_keys_are_doubled_swapped_or_left_out() -> None:
    for seed in range(100):
        assert set(augmented("typos", "привет мир", seed, rate=0.5)) <= set("привет мир")


class Blanking(TextAugmentation):
    def change(self, text: str, random: np.random.Generator) -> str:
        assert text.strip()
        return " \n"


@pytest.mark.parametrize("text", ["", " \t", "word"])
def test_the_outer_call_guards_what_is_written_inside(text: str) -> None:
    assert Blanking(COLUMN)(text, np.random.default_rng(0), lambda: None) == text


def test_the_last_letter_of_a_word_is_swapped_with_the_one_before() -> None:
    found = {augmented("typos", "a bc", seed, rate=0.1) for seed in range(300)}
    assert "a cb" in found
    assert not any(text.startswith("  ") or text.endswith(" a") for text in found)


def test_a_text_never_becomes_blank() -> None:
    assert {augmented("typos", "a", seed, rate=0.5) for seed in range(100)} > {"a"}
    assert all(augmented("typos", "a", seed, rate=0.5).strip() for seed in range(100))
