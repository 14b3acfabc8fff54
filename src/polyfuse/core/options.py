"""Annotations for what a user may set: the recipe checks values against them, and a search draws from them."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

Share: TypeAlias = Annotated[float, Ge(0), Lt(1)]
Rate: TypeAlias = Annotated[float, Gt(0), Le(10)]
Count: TypeAlias = Annotated[int, Ge(1), Le(1_000_000)]
Width: TypeAlias = Annotated[int, Ge(1), Le(16_384)]
Depth: TypeAlias = Annotated[int, Ge(1), Le(64)]
