"""What a change of text stands on: words, letters as a reader sees them, and the keys of a keyboard."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import numpy as np

#: A word, with the blanks after it.
WORD = re.compile(r"\S+\s*")
_JOINER = "\u200d"


def unblanked(text: str, change: Callable[[str], str]) -> str:
    """Return a changed text; the text itself where it is blank, or would become so."""
    if not text.strip():
        return text
    changed = change(text)
    return changed if changed.strip() else text


def clusters(text: str) -> list[str]:
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


#: For each letter key of a QWERTY keyboard, the letters that touch it.
KEYS = _neighbours()


def keys_beside(letter: str) -> list[str]:
    """Return the letters on the keys beside a letter's, in the same case; none where it is on no key.

    >>> keys_beside("Q")
    ['W', 'A']
    """
    near = KEYS.get(letter.lower(), "")
    return list(near.upper() if letter.isupper() else near)


def beside(letter: str, random: np.random.Generator, otherwise: str | None = None) -> str:
    """Return a letter on a key beside this one's, in the same case; for a letter without a key itself, or another."""
    keys = keys_beside(letter)
    if not keys:
        return letter if otherwise is None else otherwise
    return keys[random.integers(len(keys))]
