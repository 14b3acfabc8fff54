"""Augmentations of text."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le

from polyfuse.core.options import Share
from polyfuse.data.augmentation.contract import Augmentation, Other
from polyfuse.data.schema import Column

_WORD = re.compile(r"\S+\s*")
_JOINER = "\u200d"


class TextAugmentation(Augmentation):
    """What augmentations of text share: a blank text stays as it is, and no other becomes blank."""

    reads: ClassVar[frozenset[str]] = frozenset({"text"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> str:
        """Change a text."""
        text: str = cell
        if not text.strip():
            return text
        changed = self.change(text, random)
        return changed if changed.strip() else text

    @abstractmethod
    def change(self, text: str, random: np.random.Generator) -> str:
        """Return a changed text. text: not blank."""


class WordDropAugmentation(TextAugmentation):
    """Each word is left out with some probability (random deletion, Wei & Zou 2019); at least one stays.

    A word is what stands between blanks, so a text in a script without blanks stays as it is.

    Args:
        column: that is changed.
        share: of the words that are left out.
    """

    def __init__(self, column: Column, *, share: Share = 0.1) -> None:
        super().__init__(column)
        self.share = share

    def change(self, text: str, random: np.random.Generator) -> str:
        """Leave words out, each with the blanks after it."""
        words = _WORD.findall(text)
        stays = random.random(len(words)) >= self.share
        if stays.all():
            return text
        if not stays.any():
            stays[random.integers(len(words))] = True
        return "".join(word for word, kept in zip(words, stays.tolist(), strict=True) if kept).rstrip()


class TyposAugmentation(TextAugmentation):
    """Errors of typing: a letter is left out, hits the key beside it as well or instead, or is swapped with the next.

    Each letter suffers one of the four with some probability, all four alike (the errors that Damerau counted in
    1964). Keys are those of a QWERTY keyboard; a letter that is not on it is doubled instead. Digits, signs and emoji
    stay, for another digit says another thing, and a letter keeps its accents.

    Args:
        column: that is changed.
        rate: share of the letters that suffer an error.
    """

    def __init__(self, column: Column, *, rate: Annotated[float, Ge(0), Le(0.5)] = 0.02) -> None:
        super().__init__(column)
        self.rate = rate

    def change(self, text: str, random: np.random.Generator) -> str:
        """Mistype."""
        typed = _clusters(text)
        hit = np.flatnonzero(random.random(len(typed)) < self.rate)
        kinds = random.integers(4, size=len(hit))
        for i, kind in zip(hit.tolist(), kinds.tolist(), strict=True):
            if not typed[i][:1].isalpha():
                continue
            if kind == 0:
                typed[i] = ""
            elif kind == 1:
                typed[i] += _beside(typed[i], random)
            elif kind == 2:
                typed[i] = _beside(typed[i], random, otherwise=typed[i] * 2)
            elif i + 1 < len(typed) and typed[i + 1][:1].isalpha():
                typed[i], typed[i + 1] = typed[i + 1], typed[i]
            elif i > 0 and typed[i - 1][:1].isalpha():
                typed[i], typed[i - 1] = typed[i - 1], typed[i]
        return "".join(typed)


def _clusters(text: str) -> list[str]:
    """Split a text into characters as a reader sees them: marks, and what a joiner joins, stay with their letter."""
    if text.isascii():
        return list(text)
    found: list[str] = []
    for sign in text:
        belongs = sign == _JOINER or unicodedata.category(sign)[0] == "M" or "\U0001f3fb" <= sign <= "\U0001f3ff"
        if found and (belongs or found[-1][-1] == _JOINER):
            found[-1] += sign
        else:
            found.append(sign)
    return found


def _neighbours() -> dict[str, str]:
    """Return, for each letter key of a QWERTY keyboard, the letters that touch it."""
    places = {
        letter: (i + shift, row)
        for row, (shift, letters) in enumerate(((0.0, "qwertyuiop"), (0.25, "asdfghjkl"), (0.75, "zxcvbnm")))
        for i, letter in enumerate(letters)
    }
    return {
        letter: "".join(
            near
            for near, (left, upper) in places.items()
            if near != letter and abs(left - x) <= 1 and abs(upper - y) <= 1
        )
        for letter, (x, y) in places.items()
    }


_KEYS = _neighbours()


def _beside(letter: str, random: np.random.Generator, otherwise: str | None = None) -> str:
    """Return a letter on a key beside this one's, in the same case."""
    keys = _KEYS.get(letter.lower())
    if keys is None:
        return letter if otherwise is None else otherwise
    near = keys[random.integers(len(keys))]
    return near.upper() if letter.isupper() else near
