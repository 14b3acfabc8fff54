"""Annotations for what a user may set: the recipe checks values against them, and a search draws from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le, Lt


@dataclass(frozen=True)
class Usual:
    """Where a search looks, where that is less than what is allowed.

    Attributes:
        low: least value.
        high: greatest value.
        log: whether the logarithm is what is drawn evenly.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Doubled:
    """A search doubles and halves it and tries nothing between, so that one option stays a multiple of another."""


@dataclass(frozen=True)
class AtMost:
    """A search draws no more than what it drew for another option of the same component.

    Attributes:
        option: the other one, which stands before this one.
    """

    option: str


Share: TypeAlias = Annotated[float, Ge(0), Lt(1), Usual(0.0, 0.5)]
PositiveShare: TypeAlias = Annotated[float, Gt(0), Le(1)]
Rate: TypeAlias = Annotated[float, Gt(0), Le(10)]
Count: TypeAlias = Annotated[int, Ge(1), Le(1_000_000)]
Heads: TypeAlias = Annotated[int, Ge(1), Le(1_000_000), Doubled()]
Width: TypeAlias = Annotated[int, Ge(1), Le(16_384), Doubled()]
Depth: TypeAlias = Annotated[int, Ge(1), Le(64)]
