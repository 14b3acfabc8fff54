"""How long work tells how far it is; the default says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Say that some steps are done; the note replaces the last one, e.g. the current loss."""


class Progress(Protocol):
    """Shows pieces of work."""

    def bar(self, what: str, total: float | None = None) -> AbstractContextManager[Bar]:
        """Begin a piece of work of so many steps, None when that is not known."""


class Silent:
    """Shows nothing."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Do nothing."""

    @contextmanager
    def bar(self, what: str, total: float | None = None) -> Iterator[Bar]:
        """Do nothing."""
        yield self
