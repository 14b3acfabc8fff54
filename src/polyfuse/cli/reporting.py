"""The command that reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from polyfuse.cli.options import Rows, Run, Seed


def report(
    run: Run,
    rows: Rows,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for report.html and report.json.", file_okay=False)
    ] = Path(),
    train: Annotated[
        Path | None,
        typer.Option(
            help="The training table: simpler models are fitted on it, to stand beside, and nearest rows are shown.",
            show_default=False,
        ),
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(help="Compare the groups of this column; may be repeated.", metavar="COLUMN", show_default=False),
    ] = None,
    attack: Annotated[Path | None, typer.Option(help="What [bold]attack --json[/bold] printed.")] = None,
    stress: Annotated[Path | None, typer.Option(help="What [bold]stress --json[/bold] printed.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Fewer rows and resamples.")] = False,
    time_limit: Annotated[
        str | None, typer.Option(help="After this no further section is begun, e.g. 90s, 5m.", show_default=False)
    ] = None,
    seed: Seed = 0,
) -> None:
    """Measure what a model knows, why, for whom it fails, and how sure it is: report.html and report.json.

    Example:  polyfuse report runs/price test.csv --fast
    """
    from polyfuse.core.errors import InputError
    from polyfuse.predictor import load

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made ({error.strerror}); name another folder") from error
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out} is not a folder that you may write to; name another one")
    predictor = load(run)
    found = predictor.report(
        rows,
        train=train,
        references=predictor.baselines(train, progress=True) if train is not None else None,
        sensitive=sensitive or (),
        attack=attack,
        stress=stress,
        fast=fast,
        time_limit=time_limit,
        seed=seed,
        progress=True,
    )
    found.to_json(out / "report.json")
    found.to_html(out / "report.html")
    for name, why in found.left_out.items():
        typer.echo(f"left out: {name}: {why}", err=True)
    typer.echo(f"wrote {out / 'report.html'} and {out / 'report.json'}", err=True)
