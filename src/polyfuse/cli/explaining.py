"""The command that says why a model answers as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyfuse.cli.options import AsJson, Rows, Run, Seed


def explain(
    run: Run,
    rows: Rows,
    method: Annotated[
        str | None,
        typer.Option(
            help="Integrated gradients where a gradient says all, else occlusion, when left out.",
            metavar="integrated_gradients|occlusion|gradient_input|rollout",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new folder for pictures, words and explanations.json.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="The training table: its nearest rows are named, and modalities swapped with theirs."),
    ] = None,
    limit: Annotated[int, typer.Option("--rows", help="At most so many rows, drawn at random.", min=1)] = 8,
    fast: Annotated[bool, typer.Option("--fast", help="Fewer steps, shorter curves, fewer training rows.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Say why rows got their answers: what in them speaks for it, what would change it, which training rows are near.

    Example:  polyfuse explain runs/digits test.csv --train train.csv --out explained
    """
    from polyfuse.predictor import load

    chosen: Any = method
    found = load(run).explain(
        rows, method=chosen, train=train, rows=limit, fast=fast, seed=seed, out=out, progress=True
    )
    if out is not None:
        typer.echo(f"wrote {out}", err=True)
    typer.echo(found.to_json() if as_json else str(found))
