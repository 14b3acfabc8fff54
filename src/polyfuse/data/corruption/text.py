"""Corruptions of text."""

from __future__ import annotations

import math
import re
import unicodedata
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from polyfuse.data.augmentation.contract import Other
from polyfuse.data.augmentation.text import WordDropAugmentation
from polyfuse.data.corruption.contract import Corruption, P
from polyfuse.data.letters import WORD, beside, clusters, unblanked

_BLANKS = re.compile(r"(\s+)")

_READ_AS = (
    "a=o c=e e=c g=q h=b i=l j=i l=1 m=rn n=h o=0 q=g r=n s=5 t=f u=v v=u w=vv y=v z=2"
    " B=8 C=G D=O E=F G=6 I=l O=0 Q=O S=5 T=7 U=V V=U Z=2 0=O 1=l 2=Z 5=S 6=G 7=T 8=B"
)
#: What a scanner reads instead of a letter or a digit.
LOOKALIKES = dict(pair.split("=") for pair in _READ_AS.split())
#: What stands in texts of the web and does not belong there.
STRAY_SIGNS = ("😀", "😂", "👍", "🔥", "🙏", "✨", "#", "***", "|", "~", "&nbsp;", "&amp;", "<br>", "\\n", "\ufffd")


class TextCorruption(Corruption[P]):
    """What corruptions of text share: a blank text stays as it is, and no other becomes blank."""

    reads: ClassVar[frozenset[str]] = frozenset({"text"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> str:
        """Change a text."""
        return unblanked(cell, lambda text: self.change(text, random))

    @abstractmethod
    def change(self, text: str, random: np.random.Generator) -> str:
        """Return a changed text. text: not blank."""


class LetterCorruption(TextCorruption[float]):
    """What happens to letters, each by itself with some probability. Setting: the probability."""

    def change(self, text: str, random: np.random.Generator) -> str:
        """Change letters."""
        letters = clusters(text)
        for i in np.flatnonzero(random.random(len(letters)) < self.setting).tolist():
            if self.suits(letters[i]):
                self.spoil(letters, i, random)
        return "".join(letters)

    def suits(self, letter: str) -> bool:
        """Tell whether it happens to this letter, or sign."""
        return letter[:1].isalpha()

    @abstractmethod
    def spoil(self, letters: list[str], i: int, random: np.random.Generator) -> None:
        """Change letters at a position."""


class KeyboardCorruption(LetterCorruption):
    """Letters hit on the key beside (QWERTY); one without a key comes twice. Setting: the probability of each."""

    settings = (0.02, 0.05, 0.09, 0.14, 0.2)

    def spoil(self, letters: list[str], i: int, random: np.random.Generator) -> None:
        """Hit another key."""
        letters[i] = beside(letters[i], random, otherwise=2 * letters[i])


class OcrCorruption(LetterCorruption):
    """Letters and digits that a scanner took for others of like shape. Setting: the probability of each."""

    settings = (0.03, 0.07, 0.12, 0.19, 0.28)

    def suits(self, letter: str) -> bool:
        """Tell whether it looks like another."""
        return letter in LOOKALIKES

    def spoil(self, letters: list[str], i: int, random: np.random.Generator) -> None:
        """Read another."""
        letters[i] = LOOKALIKES[letters[i]]


class MissingLettersCorruption(LetterCorruption):
    """Letters left out. Setting: the probability of each."""

    settings = (0.02, 0.05, 0.1, 0.16, 0.24)

    def spoil(self, letters: list[str], i: int, random: np.random.Generator) -> None:
        """Leave it out."""
        letters[i] = ""


class RepeatedLettersCorruption(LetterCorruption):
    """Letters that come two to four times. Setting: the probability of each."""

    settings = (0.02, 0.06, 0.12, 0.2, 0.3)

    def spoil(self, letters: list[str], i: int, random: np.random.Generator) -> None:
        """Repeat."""
        letters[i] *= int(random.integers(2, 5))


class SwappedLettersCorruption(LetterCorruption):
    """Letters that change places with the next letter of their word. Setting: the probability of each."""

    settings = (0.02, 0.05, 0.1, 0.16, 0.24)

    def spoil(self, letters: list[str], i: int, random: np.random.Generator) -> None:
        """Swap."""
        if i + 1 < len(letters) and self.suits(letters[i + 1]):
            letters[i], letters[i + 1] = letters[i + 1], letters[i]


class NoPunctuationCorruption(MissingLettersCorruption):
    """Punctuation left out (Unicode's P categories). Setting: the probability of each."""

    settings = (0.2, 0.4, 0.6, 0.8, 1.0)

    def suits(self, letter: str) -> bool:
        """Tell whether it is punctuation."""
        return unicodedata.category(letter[0])[0] == "P"


class NoSpacesCorruption(MissingLettersCorruption):
    """Blanks left out. Setting: the probability of each."""

    settings = (0.05, 0.12, 0.22, 0.35, 0.5)

    def suits(self, letter: str) -> bool:
        """Tell whether it is blank."""
        return letter.isspace()


class WordDropCorruption(TextCorruption[float]):
    """Words left out, as by the augmentation of this name. Setting: the probability of each."""

    settings = (0.05, 0.11, 0.19, 0.29, 0.4)

    def change(self, text: str, random: np.random.Generator) -> str:
        """Leave words out."""
        return WordDropAugmentation(self.column, share=self.setting).change(text, random)


class WordShuffleCorruption(TextCorruption[float]):
    """Words a little out of order: those at i in the order of i + U(0, k) (Lample et al. 2018). Setting: k."""

    settings = (1.3, 1.8, 2.6, 4.0, 6.0)

    def change(self, text: str, random: np.random.Generator) -> str:
        """Shuffle words among the blanks."""
        parts = _BLANKS.split(text.strip())
        words = parts[::2]
        order = np.argsort(np.arange(len(words)) + random.uniform(0, self.setting, len(words)))
        parts[::2] = [words[i] for i in order.tolist()]
        return "".join(parts)


class CasingCorruption(TextCorruption[float]):
    """Words typed with the shift lock on, capital letters small and small ones capital. Setting: their share."""

    settings = (0.1, 0.25, 0.45, 0.7, 1.0)

    def change(self, text: str, random: np.random.Generator) -> str:
        """Exchange capital and small letters."""
        words = _BLANKS.split(text)
        locked = random.random(len(words)) < self.setting
        return "".join(word.swapcase() if lock else word for word, lock in zip(words, locked.tolist(), strict=True))


class TruncationCorruption(TextCorruption[float]):
    """Cut off, as by a field too short. Setting: the share of the letters that is left."""

    settings = (0.9, 0.75, 0.6, 0.45, 0.3)

    def change(self, text: str, random: np.random.Generator) -> str:
        """Cut off."""
        letters = clusters(text)
        return "".join(letters[: math.ceil(self.setting * len(letters))])


class StraySignsCorruption(TextCorruption[float]):
    """Emoji, leftovers of HTML and the like after words. Setting: the probability, after each."""

    settings = (0.04, 0.1, 0.2, 0.33, 0.5)

    def change(self, text: str, random: np.random.Generator) -> str:
        """Strew signs."""
        words = WORD.findall(text)
        for i in np.flatnonzero(random.random(len(words)) < self.setting).tolist():
            words[i] = f"{words[i].rstrip()} {STRAY_SIGNS[random.integers(len(STRAY_SIGNS))]} "
        return "".join(words).rstrip()
