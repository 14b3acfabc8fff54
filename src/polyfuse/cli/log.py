"""The command that turns a request log into a table."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from polyfuse.cli.options import AsJson


def log(
    folder: Annotated[
        Path, typer.Argument(help="The folder that [bold]serve --log[/bold] writes to.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to: a .parquet, media as bytes; else it is only counted.")
    ] = None,
    labelled: Annotated[bool, typer.Option("--labelled", help="Only rows of which feedback told some target.")] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Only rows of the last 7d, 12h, 90m; or from a date and time on (ISO 8601, UTC)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn the log of a server into a table for [bold]drift[/bold] and [bold]refit[/bold], or count what it holds.

    The table has the model's columns, its targets as far as feedback came, and request_id, row, time and answer:TARGET
    beside them. A server may go on writing meanwhile.

    Example:  polyfuse log requests --since 7d --out new.parquet
    """
    from polyfuse.cli.show import messages
    from polyfuse.core.errors import InputError
    from polyfuse.core.files import strict_json, whole_file
    from polyfuse.serving.journal import Journal

    if out is not None and out.suffix != ".parquet":
        raise InputError(f"--out {out}: a log holds media, so the ending must be .parquet")
    begin = None if since is None else _begin(since)
    journal = Journal.at(folder)
    try:
        counted = journal.count(since=begin)
        written = None
        if out is not None:
            table = journal.table(labelled=labelled, since=begin)
            with whole_file(out) as temporary:
                table.to_parquet(temporary, index=False)
            written = len(table)
    finally:
        journal.close()
    found = {**counted, "first": _shown(counted["first"]), "last": _shown(counted["last"]), "written": written}
    if as_json:
        typer.echo(strict_json(found), nl=False)
        return
    typer.echo(f"{found['rows']:,} rows, {found['labelled']:,} labelled, {found['bytes'] / 2**20:.1f} MiB")
    if found["rows"]:
        typer.echo(f"from {found['first']} to {found['last']}")
    if written is not None:
        messages().print(f"wrote {written:,} rows to {out}", markup=False)


def _begin(since: str) -> float:
    """Return seconds since 1970.

    Raises:
        InputError: it is neither a duration nor a time.
    """
    from polyfuse.core.errors import InputError
    from polyfuse.data.cells import parse_moment
    from polyfuse.training.settings import seconds

    ago: Any = seconds(since)
    begin = parse_moment(since) if isinstance(ago, str) else time.time() - ago
    if begin != begin:
        raise InputError(f"--since {since!r}: give a duration such as 7d, 12h or 90m, or a time such as 2026-11-30")
    return begin


def _shown(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")
