"""The contract of a corruption."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from annotated_types import Ge, Le

from polyfuse.core.errors import InputError
from polyfuse.data.augmentation.contract import Other
from polyfuse.data.schema import Column

P = TypeVar("P")

#: From barely noticeable to heavy, though a person could still do the task.
Severity: TypeAlias = Annotated[int, Ge(1), Le(5)]


class Corruption(ABC, Generic[P]):
    """Damages a decoded cell at random as the world does, without a thought of the model (Hendrycks & Dietterich 2019).

    The builder supplies the column with its statistics. A corruption keeps nothing between two calls: what it returns
    follows from the cell, the generator and `other` alone.

    Args:
        column: that is changed.
        severity: of the damage.

    Attributes:
        reads: the column types that it can change.
        settings: what each severity stands for, in order.
        setting: that of the severity asked for.

    Raises:
        InputError: there is no such severity.
    """

    reads: ClassVar[frozenset[str]]
    settings: tuple[P, P, P, P, P]

    def __init__(self, column: Column, *, severity: Severity = 3) -> None:
        if severity not in range(1, 6):
            raise InputError(
                f"corruptions: {type(self).__name__}.severity: {severity!r:.80} given: a severity is a whole number"
                " from 1, barely noticeable, to 5, heavy; choose one of them"
            )
        self.column = column
        self.setting = self.settings[int(severity) - 1]

    @abstractmethod
    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Any:
        """Return a changed cell of the same kind, or the cell itself; what was given is never written to.

        Args:
            cell: a decoded cell of the column, not None.
            random: where every random number comes from.
            other: gives the same column's cell of another row; it draws from the same generator.

        Returns:
            The same number of images of the same sizes in pixels; a recording of the same rate and length, finite and
            in [-1, 1]; a cloud of at least one point, each of as many finite numbers; a text that is not blank unless
            it was; a finite number; a category that the column knows, or the one that was given; None for a cell that
            is lost, which only `missing_cells` returns.
        """
