"""What an option may be drawn from, derived from the annotation that is its only schema."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from polyfuse.core.options import AtMost, Doubled, Usual

Value: TypeAlias = bool | int | float | str

_TIMES = 4  # how far an integer goes from its default, both ways
_TWICE = 2  # how often one is doubled and halved
_RATE = 30.0  # how far what is drawn by its logarithm goes from its default, both ways
_WIDE = 100.0  # ratio of the ends beyond which the logarithm is drawn


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]

    def suggest(self, trial: Any, name: str) -> Value:
        """Let an Optuna trial draw a value."""
        value: Value = trial.suggest_categorical(name, self.values)
        return value

    def nearest(self, value: Value) -> Value:
        """Return the value itself if it is one of these, else the first of these."""
        return value if value in self.values else self.values[0]

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Integers:
    """An integer between two, both included; `log`: its logarithm is drawn evenly."""

    low: int
    high: int
    log: bool = False

    def suggest(self, trial: Any, name: str) -> int:
        """Let an Optuna trial draw a value."""
        return int(trial.suggest_int(name, self.low, self.high, log=self.log))

    def nearest(self, value: Any) -> int:
        """Return the nearest value."""
        return int(min(max(value, self.low), self.high))

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{' by its logarithm' if self.log else ''}"


@dataclass(frozen=True)
class Reals:
    """A number between two, both included; `log`: its logarithm is drawn evenly."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Any, name: str) -> float:
        """Let an Optuna trial draw a value."""
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def nearest(self, value: Any) -> float:
        """Return the nearest value."""
        return float(min(max(value, self.low), self.high))

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{' by its logarithm' if self.log else ''}"


Domain: TypeAlias = Choices | Integers | Reals


@dataclass(frozen=True)
class Kind:
    """An annotation, taken apart.

    Attributes:
        type: what is left without bounds and without None.
        optional: whether None is allowed.
        notes: bounds, and marks of `core.options`.
    """

    type: Any
    optional: bool
    notes: tuple[Any, ...]

    @classmethod
    def of(cls, annotation: Any) -> Kind:
        """Take an annotation apart: Annotated at any depth, and a union with None."""
        notes: list[Any] = []
        optional = False
        while True:
            if get_origin(annotation) is Annotated:
                annotation, *more = get_args(annotation)
                notes += _flat(more)
            elif get_origin(annotation) in (Union, types.UnionType):
                rest = [each for each in get_args(annotation) if each is not type(None)]
                if len(rest) != 1:
                    return cls(annotation, optional, tuple(notes))
                annotation, optional = rest[0], True
            else:
                return cls(annotation, optional, tuple(notes))

    @property
    def usual(self) -> Usual | None:
        """Where a search looks."""
        return next((note for note in self.notes if isinstance(note, Usual)), None)

    @property
    def doubled(self) -> bool:
        """Whether nothing is tried between a value and its double."""
        return any(isinstance(note, Doubled) for note in self.notes)

    @property
    def at_most(self) -> str | None:
        """The option that this one does not exceed."""
        return next((note.option for note in self.notes if isinstance(note, AtMost)), None)

    @property
    def low(self) -> float:
        """The greatest lower bound, -inf where there is none."""
        return max([_of(note, "ge", "gt") for note in self.notes if isinstance(note, Ge | Gt)], default=-math.inf)

    @property
    def high(self) -> float:
        """The least upper bound, inf where there is none."""
        return min([_of(note, "le", "lt") for note in self.notes if isinstance(note, Le | Lt)], default=math.inf)

    def open(self, end: type[Gt] | type[Lt]) -> bool:
        """Tell whether the greatest lower bound, or the least upper one, is not allowed itself."""
        bound = self.low if end is Gt else self.high
        return any(isinstance(note, end) and _of(note, "gt", "lt") == bound for note in self.notes)


def domain_of(annotation: Any, default: Any) -> Domain | None:
    """Return what an option is drawn from where nothing else is said.

    A choice or a bool is drawn from all its values. An integer goes from a fourth of its default to four times that,
    by its logarithm; one that is `Doubled` is halved and doubled, twice each way. A number goes where `Usual` says,
    else from bound to bound; by its logarithm, and to a thirtieth and to thirty times its default at most, where the
    bounds are more than two decades apart, as they are from 0 if 0 itself is not allowed, or where the default is more
    than two decades below the upper one.

    >>> from typing import Annotated, Literal
    >>> from annotated_types import Ge, Gt, Le
    >>> domain_of(Literal["relu", "tanh"], "relu")
    Choices(values=('relu', 'tanh'))
    >>> domain_of(Annotated[int, Ge(1)], 8)
    Integers(low=2, high=32, log=True)
    >>> domain_of(Annotated[float, Gt(0), Le(10)], 0.003)
    Reals(low=0.0001, high=0.09, log=True)
    >>> domain_of(Annotated[float, Ge(0), Le(1)], 0.5)
    Reals(low=0.0, high=1.0, log=False)

    Returns:
        None where the annotation says too little: free text, tuples, no bounds, None as the default.
    """
    kind = Kind.of(annotation)
    if default is None:
        return None
    if kind.type is bool:
        return Choices((False, True))
    # Of a choice or something else, such as a number for each target, the choice.
    for each in get_args(kind.type) if get_origin(kind.type) in (Union, types.UnionType) else ():
        values = get_args(each) if get_origin(each) is Literal else ()
        if len(values) > 1 and default in values:
            return Choices(values)
    if get_origin(kind.type) is Literal:
        return Choices(get_args(kind.type))
    if kind.type is int and not isinstance(default, bool) and default >= 1:
        return _integers(kind, default)
    return _reals(kind, float(default)) if kind.type is float else None


def doubling(low: int, high: int) -> Choices:
    """Return a value and its doubles up to another.

    >>> doubling(32, 200).values
    (32, 64, 128)
    """
    return Choices(tuple(low << times for times in range((high // low).bit_length())))


def _integers(kind: Kind, default: int) -> Domain | None:
    low, high = max(kind.low + kind.open(Gt), 1), kind.high - kind.open(Lt)
    if kind.doubled:
        halves = [default >> times for times in range(_TWICE, 0, -1) if default % (1 << times) == 0]
        values = (*halves, *(default << times for times in range(_TWICE + 1)))
        return Choices(tuple(value for value in values if low <= value <= high))
    least, most = int(max(low, default // _TIMES)), int(min(high, default * _TIMES))
    return Integers(least, most, log=True) if least < most else None


def _reals(kind: Kind, default: float) -> Domain | None:
    usual, low, high = kind.usual, kind.low, kind.high
    if usual is not None:
        return Reals(usual.low, usual.high, usual.log)
    wide = low > 0 and high > _WIDE * low
    if (wide or (low == 0 and (kind.open(Gt) or default <= high / _WIDE))) and default > 0:
        least, most = max(low, default / _RATE), min(high * (0.99 if kind.open(Lt) else 1), default * _RATE)
        return Reals(least, most, log=True) if least < most else None
    if math.isinf(low) or math.isinf(high):
        return None
    edge = 0.01 * (high - low)  # a bound that is not allowed itself
    return Reals(low + edge * kind.open(Gt), high - edge * kind.open(Lt))


def _flat(notes: list[Any]) -> Iterator[Any]:
    """Yield notes, those inside a pydantic field one by one."""
    for note in notes:
        if isinstance(note, FieldInfo):
            yield from note.metadata
        else:
            yield note


def _of(note: Any, *names: str) -> float:
    """Return the number of a bound."""
    return float(next(getattr(note, name) for name in names if hasattr(note, name)))
