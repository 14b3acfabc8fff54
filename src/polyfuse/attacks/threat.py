"""The contract of a threat model: what an adversary may change of the values of one modality, and by how much."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.attacks.regions import Region
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError, nearest
from polyfuse.core.types import Tensors
from polyfuse.data.schema import Column

#: A decoded cell for each column of a modality, None where one is missing; as `Rows.value` gives it.
Value: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Seam:
    """The continuous tensor of an encoder's input for some rows.

    Attributes:
        name: among the prepared tensors.
        clean: (rows, …).
        free: bool of the same shape: what belongs to a value.
        low: least value of an entry.
        high: greatest value.
        encoder: whose input it is.
        values: that it was prepared from.
    """

    name: str
    clean: Tensor
    free: Tensor
    low: float
    high: float
    encoder: Encoder
    values: Sequence[Value | None]

    @classmethod
    def of(cls, encoder: Encoder, tensors: Tensors, values: Sequence[Value | None]) -> Seam:
        """Return the seam of an encoder that has one."""
        ((name, (low, high)),) = encoder.continuous.items()
        return cls(name, tensors[name], encoder.alterable(tensors), low, high, encoder, values)


@dataclass(frozen=True, eq=False)
class Sample:
    """One value, as it is measured against a threat model.

    Attributes:
        value: decoded cells.
        tensor: the row's part of the encoder's continuous tensor, prepared from it; None where it has no such tensor.
    """

    value: Value
    tensor: NDArray[Any] | None = None


class Threat(ABC):
    """What an adversary may change of a modality: norm, radius, bounds, and what stays as it is.

    The builder supplies the columns of the modality: `__init__(self, columns, *, options…)`. A continuous threat gives
    a region around the encoder's continuous tensor; a discrete one names values one edit away. One may do both.

    Attributes:
        reads: the column types that it can change.
        norm: in which changes are measured, in words for a report.
        main: the option that says how much; `name:number` sets it.
        continuous: whether it gives a region.
        discrete: whether it names neighbours.
        immutable: columns that it was told to leave as they are.
    """

    reads: ClassVar[frozenset[str]]
    norm: ClassVar[str]
    main: ClassVar[str]
    continuous: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    immutable: Sequence[str] = ()

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = list(columns)

    @abstractmethod
    def excess(self, clean: Sample, found: Sample) -> float:
        """Return by how much a value goes beyond what is allowed, relative to the radius; 0 or less within.

        It is measured on the value itself, and not by the means with which it was found.
        """

    def bound(self, encoder: Encoder) -> Self:
        """Return the threat to what an encoder reads, whose vocabulary it may use; itself where it needs none."""
        return self

    def region(self, seam: Seam) -> Region:
        """Return what may become of the continuous tensor."""
        raise TypeError(f"{type(self).__name__} has no region")

    def neighbours(
        self, value: Value, clean: Value, random: np.random.Generator, among: Sequence[int] | None = None
    ) -> list[Value]:
        """Return values one edit away from a value, all within the budget around the clean one, in no special order.

        Args:
            value: within the budget.
            clean: that it was made from.
            random: draws what is too much to be listed.
            among: numbers of the parts of the clean value, as `omissions` counts them, that are edited; all when left
                out.
        """
        raise TypeError(f"{type(self).__name__} has no neighbours")

    def omissions(self, clean: Value) -> list[Value]:
        """Return, for each part of a value that can be edited, the value without it: what that does tells its weight.

        No value that can be given, and none where the parts are so few that all of them are tried.
        """
        return []

    def admissible(self, values: Sequence[Value], clean: Sequence[Value]) -> list[bool]:
        """Tell which values pass for the clean ones as a whole, where that takes a model to say; all where it does not.

        Asked of those alone that a search is about to take.
        """
        return [True] * len(values)

    def mended(self, value: Value, clean: Value) -> Value:
        """Return a value that can really be given: whole numbers where the column has no others, and so on."""
        return value

    def scaled(self, factor: float) -> Self:
        """Return the same threat with its radius multiplied by a factor."""
        options = self.options()
        return type(self)(self.columns, **{**options, self.main: options[self.main] * factor})

    def options(self) -> dict[str, Any]:
        """Return what was set, as it would be given again: each option stands on the instance under its own name."""
        parameters = inspect.signature(type(self)).parameters.values()
        return {
            parameter.name: getattr(self, parameter.name)
            for parameter in parameters
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def unchanged(self) -> list[str]:
        """Return the columns that stay as they are."""
        return [column.name for column in self.columns if not self.changes(column)]

    def changes(self, column: Column) -> bool:
        """Tell whether cells of a column may change."""
        return column.type in self.reads and column.name not in self.immutable

    def known(self, option: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return names of columns that an option was given.

        Raises:
            InputError: there is no such column.
        """
        columns = [column.name for column in self.columns]
        for name in names:
            if name not in columns:
                raise InputError(f"{option}={list(names)!r}: there is no column {name!r}; {nearest(name, columns)}")
        return tuple(names)
