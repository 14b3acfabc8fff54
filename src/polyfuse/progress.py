"""Progress bars in a terminal or a notebook."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polyfuse.core.progress import Bar, Progress, Silent

_PATIENCE = 0.5  # seconds after which work is worth a bar


class RichProgress:
    """Bars on standard error, so that standard output stays clean."""

    def say(self, text: str) -> None:
        """Print a line."""
        from rich.console import Console

        Console(file=sys.stderr, highlight=False).print(text, markup=False)

    @contextmanager
    def bar(self, what: str, total: float | None = None) -> Iterator[Bar]:
        """Show one bar once the work has gone on for a while; it stays when it is done, with the time that it took."""
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Shown

        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        console = Console(file=sys.stderr)

        class WithTable(Shown):
            table: Any = None

            def get_renderables(self) -> Iterator[Any]:
                # Without a terminal only the last state is printed.
                if self.table is not None:
                    yield self.table
                yield from super().get_renderables()

        shown = WithTable(*columns, console=console)
        task = shown.add_task(what, total=total, note="")
        timer = threading.Timer(_PATIENCE, shown.start)
        timer.daemon = True
        timer.start()
        try:
            yield _RichBar(shown, task)
        finally:
            timer.cancel()
            timer.join()
            if shown.live.is_started:
                shown.stop()


class _RichBar:
    def __init__(self, shown: Any, task: Any) -> None:
        self._shown, self._task = shown, task

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Say that some steps are done."""
        self._shown.update(self._task, advance=steps, **({"note": note} if note else {}))

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Show a table above the bar."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        self._shown.table = table


def make_progress(wanted: bool | Progress | None) -> Progress:
    """Return bars: as wanted, or, when that is None, where standard error is a terminal or a notebook runs.

    Args:
        wanted: True, False, None, or something that shows progress itself.
    """
    if wanted is None:
        wanted = sys.stderr.isatty() or "ipykernel" in sys.modules
    if isinstance(wanted, bool):
        return RichProgress() if wanted else Silent()
    return wanted
