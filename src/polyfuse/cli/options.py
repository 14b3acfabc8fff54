"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="An artifact: the folder that [bold]fit[/bold] wrote.", show_default=False)]
Rows = Annotated[
    Path,
    typer.Argument(help="CSV, TSV, JSON Lines, Parquet, or a saved datasets folder.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Most = Annotated[int | None, typer.Option("--rows", help="At most so many rows, drawn at random.", min=1)]
Seed = Annotated[int, typer.Option(help="Of all random numbers.", min=0)]
