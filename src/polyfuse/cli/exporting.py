"""The command that exports."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from polyfuse.cli.options import AsJson, Run


class Form(StrEnum):
    """What a model is exported as."""

    onnx = "onnx"
    torch = "torch"
    hub = "hub"


def export(
    run: Run,
    to: Annotated[
        Form,
        typer.Option(
            help="onnx runs without torch; torch is a program of torch.export; hub a folder with a card for the Hub."
        ),
    ] = Form.onnx,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to.", show_default="RUN-onnx, …")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the weights of an ONNX graph.")] = False,
    check: Annotated[
        Path | None,
        typer.Option(help="Rows to compare answers on; made from the schema when left out.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="What a probability may differ by.", show_default="1e-4; int8 0.25", min=0)
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Of a folder for the Hub, e.g. apache-2.0.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export at OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model to a folder that runs without polyfuse and torch, checked to answer as the model does.

    Then:  pip install numpy pillow soundfile tokenizers onnxruntime
           cd OUT; python -m polyfuse_runner . rows.csv

    Example:  polyfuse export runs/price --to onnx --check test.csv
    """
    import json

    from polyfuse import artifact
    from polyfuse.exporting import check_free
    from polyfuse.predictor import load

    folder = out if out is not None else run.with_name(f"{run.name}-{to.value}")
    (artifact.check_free if to is Form.hub else check_free)(folder, overwrite=overwrite)
    options: dict[str, Any] = {"to": to.value, "int8": int8, "check": check, "tolerance": tolerance}
    found = load(run).export(folder, overwrite=overwrite, license=license, **options)
    typer.echo(json.dumps(found.data(), indent=1, ensure_ascii=False) if as_json else str(found))
