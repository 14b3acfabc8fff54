"""How long work tells how far it is; the default says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Say that some steps are done; the note replaces the last one, e.g. the current loss."""

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Show what is known so far; the table replaces the last one, and stays when the work is done."""


class Progress(Protocol):
    """Shows pieces of work."""

    def bar(self, what: str, total: float | None = None) -> AbstractContextManager[Bar]:
        """Begin a piece of work of so many steps, None when that is not known."""

    def say(self, text: str) -> None:
        """Say something that stays."""


class Silent:
    """Shows nothing."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Do nothing."""

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    @contextmanager
    def bar(self, what: str, total: float | None = None) -> Iterator[Bar]:
        """Do nothing."""
        yield self
