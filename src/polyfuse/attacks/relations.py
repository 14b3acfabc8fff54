"""Relations between the numbers of a row that hold in the world, and so must hold after an attack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.schema import Column


@dataclass(frozen=True)
class Relation:
    """One number is less than another, or no more than it.

    Attributes:
        left: place of the lesser column.
        right: of the greater one.
        strict: whether they must differ.
    """

    left: int
    right: int
    strict: bool

    @classmethod
    def of(cls, text: str, columns: Sequence[Column]) -> Self:
        """Read "a <= b" or "a < b".

        Raises:
            InputError: it is written otherwise, or names what is no number column.
        """
        places = {column.name: i for i, column in enumerate(columns) if column.type == "number"}
        # A column's own name may hold the sign.
        parts = [
            (text[: sign.start()].strip(), sign[0], text[sign.end() :].strip()) for sign in re.finditer("<=?", text)
        ]
        for left, sign, right in parts:
            if left in places and right in places and left != right:
                return cls(places[left], places[right], strict=sign == "<")
        advice = 'write two number columns as in "least <= most" or "least < most"'
        for left, _, right in parts[:1]:
            unknown = next((name for name in (left, right) if name and name not in places), None)
            if unknown is not None:
                advice = f"there is no number column {unknown!r}; {nearest(unknown, places)}"
        raise InputError(f"relations: {text!r} given; {advice}")

    def holds(self, value: Sequence[Any]) -> bool:
        """Tell whether it holds; where a number is missing it does."""
        left, right = value[self.left], value[self.right]
        if left is None or right is None:
            return True
        return bool(left < right if self.strict else left <= right)

    def share(self, value: Sequence[Any], clean: Sequence[Any]) -> float:
        """Return how far one may go from a clean row, for which it holds, to a row for which it does not, in [0, 1].

        The difference d = right - left is linear on the way: d(t) = d(0) + t (d(1) - d(0)) reaches 0 at
        t = d(0) / (d(0) - d(1)).
        """
        room = clean[self.right] / 2 - clean[self.left] / 2  # halved, for large numbers
        lack = value[self.left] / 2 - value[self.right] / 2
        share = room / (room + lack) if room + lack > 0 else 0.0
        return share * (0.999 if self.strict else 1.0)
