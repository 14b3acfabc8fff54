"""Words of a text, and how far one text is from another in edits of words."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeAlias

from polyfuse.data.letters import clusters

_TOKEN = re.compile(r"(\s*)(\S+)")
#: Blanks before a word, and the word.
Token: TypeAlias = tuple[str, str]
#: Positions [start, end).
Span: TypeAlias = tuple[int, int]


class Word(NamedTuple):
    """What stands between blanks: signs, letters, signs."""

    lead: str
    core: str
    trail: str

    @classmethod
    def of(cls, word: str) -> Word:
        """Part a word at its first and its last letter.

        >>> Word.of('"Hello!"')
        Word(lead='"', core='Hello', trail='!"')
        """
        letters = [i for i, sign in enumerate(word) if sign.isalpha()]
        if not letters:
            return cls(word, "", "")
        return cls(word[: letters[0]], word[letters[0] : letters[-1] + 1], word[letters[-1] + 1 :])

    def numeric(self) -> bool:
        """Tell whether a digit stands anywhere."""
        return any(sign.isnumeric() for part in self for sign in part)


def tokens_of(text: str) -> tuple[list[Token], str]:
    """Return the words of a text with the blanks before each, and the blanks at the end.

    >>> tokens_of("so it is ")
    ([('', 'so'), (' ', 'it'), (' ', 'is')], ' ')
    """
    found = list(_TOKEN.finditer(text))
    return [(match[1], match[2]) for match in found], text[found[-1].end() if found else 0 :]


def spans(clean: Sequence[Token], found: Sequence[Token]) -> list[Span] | None:
    """Return where each word of a text lies in an edited one, by the longest blocks that are alike.

    None where they cannot be matched: one word with one, one with the two it was split into, two with the one that they
    were joined to.
    """
    made: list[Span] = []
    for _, start, end, first, last in SequenceMatcher(None, clean, found, autojunk=False).get_opcodes():
        before, after = end - start, last - first
        if before == after:
            made += [(at, at + 1) for at in range(first, last)]
        elif (before, after) == (1, 2):
            made.append((first, last))
        elif (before, after) == (2, 1):
            made += [(first, last)] * 2
        else:
            return None
    return made


class Reading:
    """A text beside its clean one, matched word by word."""

    def __init__(self, clean: str, found: str) -> None:
        (self.clean, _), (self.found, self.tail) = tokens_of(clean), tokens_of(found)
        self._matched = spans(self.clean, self.found)
        self.spans = self._matched or []

    @cached_property
    def touched(self) -> int:
        """How many words are not what they were."""
        return sum(not self.same(at) for at in range(len(self.clean)))

    def same(self, at: int) -> bool:
        """Tell whether a word is as it was; so is what lies beyond the ends."""
        if not 0 <= at < len(self.clean):
            return True
        start, end = self.spans[at]
        return self.found[start:end] == [self.clean[at]]

    def spaced(self, at: int) -> bool:
        """Tell whether a word was split or joined."""
        if not 0 <= at < len(self.clean):
            return False
        start, end = self.spans[at]
        joined = any(self.spans[near] == (start, end) for near in (at - 1, at + 1) if 0 <= near < len(self.spans))
        return end - start > 1 or joined

    def matches(self, edits: int) -> bool:
        """Tell whether the words that are matched can have become each other."""
        if self._matched is None:
            return False
        return all(
            self.same(at) or self.spaced(at) or letters_apart(word, self.found[self.spans[at][0]][1], edits) <= edits
            for at, (_, word) in enumerate(self.clean)
        )


@lru_cache(maxsize=1024)
def reading(clean: str, found: str) -> Reading:
    """Return a text beside its clean one."""
    return Reading(clean, found)


def fewest(
    clean: Sequence[Token], found: Sequence[Token], alike: Callable[[str, str], bool], divisible: Callable[[str], bool]
) -> float:
    """Return the least number of words that must have been touched to make one text of another; ∞ where none will do.

    A word is replaced by one that is `alike` (1), split in two by a blank (1), or joined with the next (2): the
    shortest way from (0, 0) to the ends of both texts, by Dijkstra's algorithm, where words that agree cost nothing.

    Args:
        clean: words of the one text.
        found: words of the other.
        alike: whether a word may be replaced by another.
        divisible: whether a word may be split, and joined.
    """
    waiting, seen = [(0, 0, 0)], set()
    while waiting:
        cost, i, j = heapq.heappop(waiting)
        if (i, j) == (len(clean), len(found)):
            return cost
        if (i, j) in seen or i == len(clean) or j == len(found):
            continue
        seen.add((i, j))
        (blanks, word), (others, other) = clean[i], found[j]
        if blanks != others:
            continue
        if word == other:
            heapq.heappush(waiting, (cost, i + 1, j + 1))
            continue
        if alike(word, other):
            heapq.heappush(waiting, (cost + 1, i + 1, j + 1))
        if not divisible(word):
            continue
        if j + 1 < len(found) and found[j + 1][0] == " " and word == other + found[j + 1][1]:
            heapq.heappush(waiting, (cost + 1, i + 1, j + 2))
        if i + 1 < len(clean) and divisible(clean[i + 1][1]) and word + clean[i + 1][1] == other:
            heapq.heappush(waiting, (cost + 2, i + 2, j + 1))
    return float("inf")


def distance(one: Sequence[str], other: Sequence[str], most: int) -> int:
    """Return how many letters differ: left out, put in, replaced, or swapped with the next, each letter once at most.

    The optimal string alignment distance, in a band: O(length · most).

    Args:
        one: letters.
        other: letters.
        most: beyond which it does not matter; most + 1 is returned then.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    far = most + 1
    before: dict[int, int] = {}
    row = {j: j for j in range(min(most, len(other)) + 1)}
    for i in range(1, len(one) + 1):
        last, row, older = row, {}, before
        before = last
        for j in range(max(0, i - most), min(len(other), i + most) + 1):
            if j == 0:
                row[j] = i
                continue
            best = min(last.get(j, far), row.get(j - 1, far)) + 1
            best = min(best, last.get(j - 1, far) + (one[i - 1] != other[j - 1]))
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                best = min(best, older.get(j - 2, far) + 1)
            row[j] = min(best, far)
    return row.get(len(other), far)


@lru_cache(maxsize=65_536)
def letters_apart(word: str, other: str, most: int) -> int:
    """Return the distance of two words, in letters as a reader sees them; most + 1 where it is more."""
    return distance(clusters(word), clusters(other), most)
