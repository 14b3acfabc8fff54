"""Corruptions of text: what happens to which letters and words, and how often."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from polyfuse.data.corruption import CORRUPTIONS, corruptions_for
from polyfuse.data.corruption.text import LOOKALIKES, STRAY_SIGNS
from polyfuse.data.letters import KEYS
from polyfuse.data.schema import Column

COLUMN = Column(name="note", type="text")
SEVERITIES = (1, 3, 5)
FOX = "The quick brown fox jumps over the lazy dog, and runs; into the dark forest (at night)! " * 3
WORDS = [f"w{i:02d}" for i in range(60)]


def damaged(name: str, text: str, severity: int, seed: int = 0) -> tuple[str, Any]:
    """Return what becomes of a text, and the setting."""
    corruption = CORRUPTIONS.build(name, {"severity": severity}, COLUMN)
    return corruption(text, np.random.default_rng(seed), lambda: None), corruption.setting


def mean(found: Callable[[int], float], seeds: int = 60) -> float:
    return float(np.mean([found(seed) for seed in range(seeds)]))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("name", "eligible"), [("keyboard", str.isalpha), ("ocr", lambda letter: letter in LOOKALIKES)]
)
def test_letters_become_others_with_their_probability(
    name: str, eligible: Callable[[str], bool], severity: int
) -> None:
    text = FOX.replace("m", "x").replace("w", "x")  # of which OCR would make two letters

    def changed(seed: int) -> float:
        found, _ = damaged(name, text, severity, seed)
        assert len(found) == len(text)
        for old, new in zip(text, found, strict=True):
            if new != old:
                assert new == LOOKALIKES[old] if name == "ocr" else new.lower() in KEYS[old.lower()]
                assert name == "ocr" or new.isupper() == old.isupper()
        return sum(old != new for old, new in zip(text, found, strict=True)) / sum(map(eligible, text))

    assert mean(changed) == pytest.approx(damaged(name, text, severity)[1], rel=0.15)


def test_a_scanner_reads_shapes() -> None:
    found = {damaged("ocr", "modern 150 B", 5, seed)[0] for seed in range(400)}
    assert {"rnodern 150 B", "modern l50 B", "modern 1S0 B", "modern 150 8"} & found
    assert all(len(sign) <= 2 and sign != letter for letter, sign in LOOKALIKES.items())


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    ("name", "eligible"),
    [("missing_letters", str.isalpha), ("no_spaces", str.isspace), ("no_punctuation", lambda sign: sign in ",;()!")],
)
def test_signs_are_left_out_with_their_probability(name: str, eligible: Callable[[str], bool], severity: int) -> None:
    def missing(seed: int) -> float:
        found, _ = damaged(name, FOX, severity, seed)
        others = [sign for sign in FOX if not eligible(sign)]
        assert [sign for sign in found if not eligible(sign)] == others, "nothing else is touched"
        return (len(FOX) - len(found)) / sum(map(eligible, FOX))

    assert mean(missing) == pytest.approx(damaged(name, FOX, severity)[1], rel=0.15)


def test_all_punctuation_is_gone_at_last() -> None:
    assert damaged("no_punctuation", "«Ja», sagte er: 5 % — “no”, 3 > 2、好。", 5)[0] == "Ja sagte er 5   no 3 > 2好"
    assert damaged("no_punctuation", "...!?", 5)[0] == "...!?", "a text of nothing else stays"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_letters_come_two_to_four_times(severity: int) -> None:
    text, runs = "abcdefgh" * 20, []
    for seed in range(40):
        found, share = damaged("repeated_letters", text, severity, seed)
        lengths = np.diff(np.flatnonzero([a != b for a, b in zip(" " + found, found + " ", strict=True)]))
        assert "".join(np.array(list(found))[np.cumsum(lengths) - 1]) == text
        runs += lengths.tolist()
    counts = np.bincount(runs, minlength=5) / len(runs)
    assert counts[1:] == pytest.approx([1 - share, share / 3, share / 3, share / 3], abs=0.02)
    assert len(counts) == 5


@pytest.mark.parametrize("severity", SEVERITIES)
def test_letters_are_swapped_within_their_word(severity: int) -> None:
    def swapped(seed: int) -> float:
        text = "ab " * 50
        found, _ = damaged("swapped_letters", text, severity, seed)
        pairs = found.split()
        assert set(pairs) <= {"ab", "ba"}
        return pairs.count("ba") / 50

    # Hit on the first letter of a pair alone: the last of a word has no next.
    assert mean(swapped) == pytest.approx(damaged("swapped_letters", "ab", severity)[1], rel=0.15)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_words_are_left_out_with_their_probability(severity: int) -> None:
    def left(seed: int) -> float:
        words = damaged("word_drop", " ".join(WORDS), severity, seed)[0].split()
        assert words == [word for word in WORDS if word in words]
        return 1 - len(words) / 60

    assert mean(left) == pytest.approx(damaged("word_drop", FOX, severity)[1], rel=0.15)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_words_move_less_than_the_window(severity: int) -> None:
    text, moved = " ".join(WORDS[:30]) + "\n" + "  ".join(WORDS[30:]), []
    for seed in range(30):
        found, window = damaged("word_shuffle", text, severity, seed)
        words = found.split()
        assert sorted(words) == WORDS
        assert [sign for sign in found if sign.isspace()] == [sign for sign in text if sign.isspace()]
        moved += (np.argsort(np.argsort(words)) - np.arange(60)).tolist()
    assert np.any(moved)
    assert np.abs(moved).max() < window


@pytest.mark.parametrize("severity", SEVERITIES)
def test_words_change_their_case_with_their_share(severity: int) -> None:
    text = " ".join(WORDS)

    def locked(seed: int) -> float:
        found, _ = damaged("casing", text, severity, seed)
        assert found.lower() == text
        return sum(word.isupper() for word in found.split()) / 60

    assert mean(locked) == pytest.approx(damaged("casing", text, severity)[1], rel=0.15)
    assert damaged("casing", "Good Morning", 5)[0] == "gOOD mORNING"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_text_is_cut_off_at_its_share(severity: int) -> None:
    found, share = damaged("truncation", FOX, severity)
    assert FOX.startswith(found)
    assert len(found) == np.ceil(share * len(FOX))
    assert damaged("truncation", "e\u0301" * 10, severity)[0] == "e\u0301" * int(np.ceil(share * 10))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_stray_signs_stand_after_words(severity: int) -> None:
    text = " ".join(WORDS)

    def strewn(seed: int) -> float:
        words = damaged("stray_signs", text, severity, seed)[0].split(" ")
        assert [word for word in words if word not in STRAY_SIGNS] == WORDS
        assert all(word in WORDS or before in WORDS for before, word in pairwise(words))
        return len(words) / 60 - 1

    assert mean(strewn) == pytest.approx(damaged("stray_signs", text, severity)[1], rel=0.15)


@pytest.mark.parametrize("name", ["keyboard", "missing_letters", "repeated_letters", "swapped_letters"])
def test_digits_signs_and_emoji_stay(name: str) -> None:
    text = "1234 5678, 90%! 👩‍👩‍👧 🇪🇺 👍🏽 😀"
    assert all(damaged(name, text, 5, seed)[0] == text for seed in range(10))


def test_letters_without_a_key_come_twice() -> None:
    found = {damaged("keyboard", "мир", 5, seed)[0] for seed in range(100)}
    assert {"мир", "ммир", "миир", "мирр"} <= found


@pytest.mark.parametrize("name", corruptions_for([COLUMN]))
def test_no_text_becomes_blank_and_blank_ones_stay(name: str) -> None:
    for seed in range(40):
        assert all(damaged(name, text, 5, seed)[0].strip() for text in ("I", "?", "  a", "e\u0301", ". ."))
        assert all(damaged(name, text, 5, seed)[0] == text for text in ("", " ", "\n\t"))
