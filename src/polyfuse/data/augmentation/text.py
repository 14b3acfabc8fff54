"""Augmentations of text."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le

from polyfuse.core.options import Share
from polyfuse.data.augmentation.contract import Augmentation, Other
from polyfuse.data.letters import WORD, beside, clusters, unblanked
from polyfuse.data.schema import Column


class TextAugmentation(Augmentation):
    """What augmentations of text share: a blank text stays as it is, and no other becomes blank."""

    reads: ClassVar[frozenset[str]] = frozenset({"text"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> str:
        """Change a text."""
        return unblanked(cell, lambda text: self.change(text, random))

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
        words = WORD.findall(text)
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
        typed = clusters(text)
        hit = np.flatnonzero(random.random(len(typed)) < self.rate)
        kinds = random.integers(4, size=len(hit))
        for i, kind in zip(hit.tolist(), kinds.tolist(), strict=True):
            if not typed[i][:1].isalpha():
                continue
            if kind == 0:
                typed[i] = ""
            elif kind == 1:
                typed[i] += beside(typed[i], random)
            elif kind == 2:
                typed[i] = beside(typed[i], random, otherwise=typed[i] * 2)
            elif i + 1 < len(typed) and typed[i + 1][:1].isalpha():
                typed[i], typed[i + 1] = typed[i + 1], typed[i]
            elif i > 0 and typed[i - 1][:1].isalpha():
                typed[i], typed[i - 1] = typed[i - 1], typed[i]
        return "".join(typed)
