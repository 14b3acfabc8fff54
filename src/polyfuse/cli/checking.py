"""The command that looks for what is wrong with a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyfuse.cli.arguments import pair
from polyfuse.cli.options import AsJson, Rows, Seed


def check(
    train: Rows,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="The column to predict; may be repeated.", metavar="COLUMN"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Another table, whose rows are not to be among those of TRAIN.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="An artifact that has not learned from these rows: label errors are found by its probabilities."
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="The type of a column; ignore leaves it out.", metavar="COLUMN=TYPE"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="What is asked, where it is not inferred.", metavar="classification|multilabel|regression"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--rows", help="Rows whose labels are looked at, at most; 10,000.", min=1)
    ] = None,
    examples: Annotated[int, typer.Option(help="Of each kind, at most; the text shows 5 of them.", min=1)] = 10,
    fast: Annotated[bool, typer.Option("--fast", help="Labels of 2,000 rows at most, by 3 folds.")] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 1 where cells cannot be read, the target leaks, or equal rows have different answers.",
        ),
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with a table before anything is trained on it.

    Cells that cannot be read, rows that are there twice (exactly or nearly, also in TEST), equal rows with different
    answers, columns that give the answer away, labels that are likely wrong, rows whose modalities contradict each
    other. Ends with 0 whatever is found, unless --strict is given.

    Example:  polyfuse check train.csv --target price --test test.csv
    """
    from polyfuse.quality import check as look

    options: dict[str, Any] = {"test": test, "rows": limit, "examples": examples, "fast": fast, "seed": seed}
    if run is not None:
        report = look(train, **_of_model(run, train, target, types, task), **options, progress=True)
    else:
        chosen = dict(pair(text, "--type", "price=number") for text in types or [])
        report = look(train, target, types=_checked_types(chosen), task=_checked_task(task), **options, progress=True)
    typer.echo(report.to_json() if as_json else str(report))
    if strict and report.serious:
        raise typer.Exit(1)


def _of_model(run: Path, train: Path, target: Any, types: Any, task: Any) -> dict[str, Any]:
    """Return how a model reads tables, and its probabilities of each row."""
    from polyfuse.core.errors import DataError
    from polyfuse.predictor import load

    if target or types or task:
        raise typer.BadParameter("--run says what the target and the types are; leave out --target, --type and --task")
    predictor = load(run)
    schema = predictor.schema
    if schema.target.parts or not schema.target.levels:
        return {"schema": schema}
    try:
        return {"schema": schema, "scores": predictor.predict_proba(train).to_numpy()}
    except DataError:
        typer.echo("some cells cannot be read, so the model is not asked; fast models are cross-validated", err=True)
        return {"schema": schema}


def _checked_types(chosen: dict[str, str]) -> Any:
    from typing import get_args

    from polyfuse.core.errors import InputError, nearest
    from polyfuse.data.schema import ColumnType

    known = (*get_args(ColumnType), "ignore")
    for name, type in chosen.items():
        if type not in known:
            raise InputError(f"--type {name}={type}: there is no such type; {nearest(type, known)}")
    return chosen


def _checked_task(task: str | None) -> Any:
    from typing import get_args

    from polyfuse.core.errors import InputError, nearest
    from polyfuse.data.schema import ColumnTask

    known = get_args(ColumnTask)
    if task is not None and task not in known:
        raise InputError(f"--task {task}: there is no such task; {nearest(task, known)}")
    return task
