"""Errors that tell what was given, what the rule is, and what to do next."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType


class PolyfuseError(Exception):
    """The work failed. The command line ends with `exit_code`."""

    exit_code = 1


class InputError(PolyfuseError, ValueError):
    """The call, or something it was given, is wrong."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe does not describe a model."""


class ArtifactError(InputError):
    """A saved folder is missing, damaged, or from a version that cannot be read."""


class MissingExtra(InputError):
    """An optional dependency is not installed."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a table.

    Attributes:
        message: what is wrong and what to do.
        column: the column it stands in, if it is in one.
        rows: positions of the rows concerned; 0 is the first row of data.
    """

    message: str
    column: str | None = None
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        place = f"column {self.column!r}: " if self.column is not None else ""
        return f"{place}{self.message}{describe_rows(self.rows)}"


class DataError(InputError):
    """What is wrong with a table, all of it together.

    Attributes:
        problems: every problem found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(
            f"{count} problem{'s' if count != 1 else ''} in the data (row 0 is the first row of data):\n{lines}"
        )


def describe_rows(rows: Sequence[int], shown: int = 8) -> str:
    """Return row positions for a message: the first few, then how many more.

    >>> describe_rows([3, 5])
    ' (rows 3, 5)'
    >>> describe_rows(range(100), shown=2)
    ' (rows 0, 1 and 98 more)'
    """
    if not rows:
        return ""
    listed = ", ".join(str(row) for row in rows[:shown])
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return f" (row{'s' if len(rows) > 1 else ''} {listed}{more})"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known name, or all of them when none is near.

    >>> nearest("fusoin", ["fusion", "training"])
    "did you mean 'fusion'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known) or 'nothing'}"


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or raise an error that names the extra which brings it.

    Raises:
        MissingExtra: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{purpose} needs {module}: run  pip install 'polyfuse[{extra}]'") from error
