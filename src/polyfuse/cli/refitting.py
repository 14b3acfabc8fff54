"""The command that refits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyfuse.cli.options import AsJson, Rows, Run


def refit(
    run: Run,
    rows: Rows,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to save the new artifact, if it is promoted.", show_default=False)
    ],
    old: Annotated[
        list[Path] | None,
        typer.Option(
            help="The table that RUN learned from, replayed whole in place of the rows that RUN keeps; its digest must"
            " be the same. May be repeated.",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Old rows that RUN has not learned from, to measure on in place of those that it keeps."),
    ] = None,
    promote: Annotated[
        Path | None,
        typer.Option(help="A symbolic link, turned to OUT if it is promoted, e.g. runs/current.", metavar="LINK"),
    ] = None,
    replay: Annotated[
        bool, typer.Option(help="Learn from old rows too; without, what new rows do not show may be forgotten.")
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact at OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit a model further on new rows and old ones, and promote it only where it is better.

    It begins with the weights of RUN, which is never changed. Promoted, and saved, is what is better on new rows held
    out, and not worse on old ones, both beyond chance. Exit code 3 when it is not promoted.

    Example:  polyfuse refit runs/price new.csv --out runs/price-2 --promote runs/current
    """
    from polyfuse.predictor import load

    found = load(run).refit(
        rows,
        old=old or None,
        test=test,
        out=out,
        promote=promote,
        replay=replay,
        overwrite=overwrite,
        progress=True,
    )
    typer.echo(found.to_json() if as_json else str(found))
    if not found.promoted:
        raise typer.Exit(3)
    typer.echo(f"saved {out}{f', and turned {promote} to it' if promote is not None else ''}", err=True)
