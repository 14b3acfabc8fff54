"""The contract of an augmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from annotated_types import Ge, Le

from polyfuse.data.schema import Column

#: Gives the cell of the same column in another row of the training, drawn at random; None where it is missing there.
Other: TypeAlias = Callable[[], Any]

Probability: TypeAlias = Annotated[float, Ge(0), Le(1)]
#: Most that one side of a box may be stretched against the other, relative to the picture.
Aspect: TypeAlias = Annotated[float, Ge(1), Le(10)]


class Augmentation(ABC):
    """Changes a decoded cell at random in a way that leaves the row's answer true.

    The builder supplies the column with its statistics: `__init__(self, column, *, options…)`. An augmentation keeps
    nothing between two calls: what it returns follows from the cell, the generator and `other` alone.

    Attributes:
        reads: the column types that it can change.
        idle: why it never changes a cell of its column, with these options; empty where it does.
    """

    reads: ClassVar[frozenset[str]]
    idle: str = ""

    def __init__(self, column: Column) -> None:
        self.column = column

    @abstractmethod
    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Any:
        """Return a changed cell of the same kind, or the cell itself; what was given is never written to.

        Args:
            cell: a decoded cell of the column, not None.
            random: where every random number comes from.
            other: gives the same column's cell of another row; it draws from the same generator.

        Returns:
            A cell that is still there: the same number of images, each with at least one pixel; a recording of the
            same rate and length, finite and in [-1, 1]; a cloud of at least one point, each of as many finite numbers;
            a text that is not blank unless it was; a finite number; a category that the column knows, or the one that
            was given.
        """
