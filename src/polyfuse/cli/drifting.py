"""The command that looks for drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyfuse.cli.options import AsJson, Rows, Run, Seed

#: Exit code where drift was found.
FOUND = 3


def drift(
    run: Run,
    rows: Rows,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Rows to compare with, that the model has not learned from; those that the fit kept, when left out.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Rate of false alarms: of tables in which nothing drifted.", min=0.001, max=0.5)
    ] = 0.05,
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="A column that may move, e.g. a running number; may be repeated.", metavar="COLUMN"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the report as one page.", show_default=False)] = None,
    limit: Annotated[
        int | None, typer.Option("--rows", help="At most so many new rows, drawn at random; 2,000.", min=30)
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Tell whether new rows are like those that a model was made for, and how good its answers will be.

    Columns, Features of each modality and answers are compared with rows that the fit kept, in one test for all. Where
    ROWS has the answers, these and the errors are compared too. Exit codes: 0 nothing has drifted, 3 something has.

    Example:  polyfuse drift runs/price new.csv --html drift.html
    """
    from polyfuse.core.errors import InputError
    from polyfuse.predictor import load

    if html is not None and html.is_dir():
        raise InputError(f"--html {html} is a folder; name a file, e.g. {html / 'drift.html'}")
    report = load(run).drift(
        rows, reference=reference, alpha=alpha, ignore=ignore or (), rows=limit, seed=seed, progress=True
    )
    if html is not None:
        report.to_html(html)
        typer.echo(f"wrote {html}", err=True)
    typer.echo(report.to_json() if as_json else str(report))
    if report.found:
        raise typer.Exit(FOUND)
