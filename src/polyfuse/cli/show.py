"""What the commands print: results on standard output, messages on standard error."""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from polyfuse.core.errors import InputError
from polyfuse.core.files import strict_json, whole_file
from polyfuse.core.version import __version__
from polyfuse.data.schema import Schema
from polyfuse.evaluation import Report
from polyfuse.fairness import FairnessReport
from polyfuse.fitting import Plan
from polyfuse.inference import Answers
from polyfuse.predictor import Predictor
from polyfuse.recipe import Recipe

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas", "scikit-learn", "pydantic")
_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


def messages() -> Console:
    """Return the console of messages."""
    return Console(file=sys.stderr, highlight=False)


def with_fairness(report: Report, groups: FairnessReport | None, *, as_json: bool) -> str:
    """Return a report, and where groups were compared what was found below it, or under the key "fairness"."""
    if groups is None:
        return report.to_json() if as_json else str(report)
    if as_json:
        return strict_json({**json.loads(report.to_json()), "fairness": groups.data()})
    return f"{report}\n\n{groups}"


def plan(plan: Plan, *, searched: bool = False) -> None:
    """Show what a fit will do; or around what a search will look."""
    console, recipe, schema = messages(), plan.recipe, plan.schema
    assert isinstance(recipe.tuning, dict)
    for target in schema.target.each():
        detail = f"{len(target.levels)} labels" if target.levels else f"mean {target.mean:.4g}, std {target.std:.4g}"
        console.print(f"[bold]{escape(target.name)}[/bold]: {target.task} ({detail}), {len(plan.table.frame):,} rows")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("modality", "columns (type)", "encoder", "tuning"):
        table.add_column(heading, overflow="fold")
    for name, modality in (recipe.modalities or {}).items():
        columns = ", ".join(f"{column.name} ({column.type})" for column in schema.of(name))
        encoder = str(modality.encoder.as_data()) if modality.encoder else f"that of {modality.share}"
        tuning = str(recipe.tuning[modality.share or name].as_data())
        table.add_row(*map(escape, (name, columns, encoder, tuning)))
    console.print(table)
    about = ": one that a trial draws" if searched and recipe.fusion.name == "auto" else _about_fusion(recipe)
    console.print(f"fusion: {escape(str(recipe.fusion.as_data()))}{escape(about)}")
    left_out(schema)


def _about_fusion(recipe: Recipe) -> str:
    """Say what the search for the way to combine will do."""
    if recipe.fusion.name != "auto":
        return ""
    assert isinstance(recipe.tuning, dict)
    tuned = [
        f"{name} ({tuning.name})" for name, tuning in recipe.tuning.items() if tuning.name not in ("frozen", "full")
    ]
    then = f"; then {', '.join(tuned)} trained with the best fusion, kept if that is better" if tuned else ""
    return f": encoders run once, ways to combine are compared on unseen rows, the best is fitted on all{then}"


def left_out(schema: Schema) -> None:
    """Show which columns are not used, and why; and how others were read."""
    console = messages()
    for name, reason in schema.left_out.items():
        console.print(f"[dim]not used: {escape(name)} ({escape(reason)})[/dim]")
    for note in schema.notes:
        console.print(f"[dim]note: {escape(note)}[/dim]")


def fitted(predictor: Predictor, out: Path, *, as_json: bool) -> None:
    """Show how a fit went, and what to do next."""
    training = predictor.metrics["training"]
    if as_json:
        typer.echo(json.dumps({"run": str(out), **predictor.metrics}, indent=1, ensure_ascii=False))
        return
    from polyfuse.evaluation.report import Report

    typer.echo(str(Report.from_json(json.dumps(predictor.metrics["validation"]))))
    console = messages()
    how = f"best after epoch {training['epoch']}: {training['reason']}" if "epoch" in training else training["reason"]
    console.print(f"{training['rows']:,} rows in {training['seconds']:.1f} s. {escape(how)}.", soft_wrap=True)
    console.print("The rows above took part in the choice, so expect a little less: measure on others.")
    for note in training["notes"]:
        console.print(f"[dim]note: {escape(note)}[/dim]")
    console.print(f"saved [bold]{escape(str(out))}[/bold]; next:")
    console.print(f"  polyfuse evaluate {escape(str(out))} test.csv")
    console.print(f"  polyfuse predict {escape(str(out))} test.csv --out predictions.csv")


def tuned(predictor: Predictor) -> None:
    """Show what a search tried."""
    console = Console(highlight=False)
    for table in _trials(predictor.metrics["tuning"]):
        console.print(table)


def check_writable(out: Path | None) -> None:
    """Check where predictions are to go, before the work.

    Raises:
        InputError: the ending is unknown, or the folder is missing.
    """
    if out is None:
        return
    if out.suffix not in _ENDINGS:
        raise InputError(f"--out {out}: the ending must be one of {', '.join(_ENDINGS)}")
    if out.is_dir() or not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise InputError(f"--out {out}: no file can be written there")


def answers(answers: Answers, out: Path | None, *, proba: bool, as_json: bool) -> None:
    """Print predictions, or write them to a file."""
    frame = answers.frame()
    if proba:
        scores = answers.scores
        names = [":".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in scores.columns]
        frame = pd.concat([frame, scores.set_axis([f"p:{name}" for name in names], axis=1)], axis=1)
    frame["nothing_present"] = answers.nothing_present
    if out is not None:
        with whole_file(out) as temporary:
            _write(frame, temporary, out.suffix)
        messages().print(f"wrote {len(frame):,} rows to {escape(str(out))}")
    if as_json:
        typer.echo(
            json.dumps(
                {"rows": len(frame), "predictions": json.loads(frame.to_json(orient="records", double_precision=15))}
            )
        )
    elif out is None:
        typer.echo(_flat(frame).to_csv(index=False), nl=False)


def _write(frame: Any, path: Path, ending: str) -> None:
    if ending == ".parquet":
        frame.to_parquet(path, index=False)
    elif ending == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False, double_precision=15)
    else:
        _flat(frame).to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")


def _flat(frame: Any) -> Any:
    """Return a table in which a cell that holds several labels is a JSON list, as tables of text are read."""
    return frame.map(lambda cell: json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell)


def installation(*, as_json: bool) -> None:
    """Show versions, device, and every component with its options."""
    from polyfuse.attacks import ATTACKS, THREATS
    from polyfuse.core.compute import default_device, has_bf16
    from polyfuse.data.corruption import CORRUPTIONS
    from polyfuse.recipe.reading import FAMILIES

    device = default_device()
    versions = {name: _version(name) for name in _PACKAGES}
    about = {"polyfuse": __version__, "python": platform.python_version(), **versions}
    computing = {"device": str(device), "cores": os.cpu_count(), "bf16": has_bf16(device)}
    every = {**FAMILIES, "threats": THREATS, "attacks": ATTACKS, "corruptions": CORRUPTIONS}
    families = {family: {name: _component(registry, name) for name in registry} for family, registry in every.items()}
    if as_json:
        typer.echo(json.dumps({"versions": about, "compute": computing, "components": families}, indent=1))
        return
    console = Console(highlight=False)
    console.print(", ".join(f"{name} {found}" for name, found in about.items()))
    console.print(", ".join(f"{name} {found}" for name, found in computing.items()))
    for family, components in families.items():
        console.print(f"\n[bold]{family}[/bold]")
        for name, found in components.items():
            console.print(f"  [bold]{name}[/bold]: {escape(found['about'])}")
            options = ", ".join(f"{option}={value}" for option, value in found["options"].items())
            if options:
                console.print(f"      {escape(options)}", style="dim")


def artifact(run: Path, *, as_json: bool) -> None:
    """Show what stands in an artifact."""
    from polyfuse.artifact import summary

    about = summary(run)
    if as_json:
        typer.echo(json.dumps(about, indent=1, ensure_ascii=False))
    else:
        from rich.markdown import Markdown

        console = Console()
        console.print(Markdown((run / "README.md").read_text(encoding="utf-8")))
        for table in _tables(about["metrics"]):
            console.print(table)


def _tables(metrics: dict[str, Any]) -> Iterator[Table]:
    """Yield what was trained of each part, and what was compared."""
    weights = Table(title="Weights", title_justify="left")
    for heading in ("part", "tuning", "trained", "of", "share"):
        weights.add_column(heading, justify="left" if heading in ("part", "tuning") else "right")
    for line in metrics.get("weights", []):
        share = f"{line['trained'] / line['all']:.2%}"
        weights.add_row(escape(line["part"]), line["tuning"] or "", f"{line['trained']:,}", f"{line['all']:,}", share)
    yield weights
    of_losses = metrics.get("training", {}).get("loss_weights")
    if of_losses:
        losses = Table("target", "weight", title="Loss weights", title_justify="left")
        for name, weight in of_losses.items():
            losses.add_row(escape(name), f"{weight:.4g}")
        yield losses
    if metrics.get("tuning"):
        yield from _trials(metrics["tuning"])
    found = metrics.get("comparison")
    if not found:
        return
    compared = Table(title=f"Compared by {found['metric']}", title_justify="left", caption=escape(found["reason"]))
    for heading in ("candidate", "value", "95 % interval", "rows", "s", "weight", ""):
        compared.add_column(heading)
    for line in found["candidates"]:
        measured = line["value"] is not None
        value = f"{line['value']:.4f}" if measured else "–"
        interval = f"{line['low']:.4f} to {line['high']:.4f}" if measured else "–"
        figures = (f"{line['rows']:,}", f"{line['seconds']:.1f}", f"{line['weight']:.2f}" if line["weight"] else "")
        compared.add_row(escape(line["candidate"]), value, interval, *figures, escape(line["note"]))
    yield compared


def _trials(tuning: dict[str, Any]) -> Iterator[Table]:
    """Yield the trials of a search, the best first, and how much what was drawn matters."""
    from polyfuse.study import shown

    sign = -1 if tuning["greater_is_better"] else 1
    lines = sorted(tuning["trials"], key=lambda line: (line["state"] != "complete", sign * (line["value"] or 0.0)))
    told = f"{tuning['reason']}; the best is trial {tuning['best']}" + (
        f"; the study is {tuning['study']}" if tuning["study"] else ""
    )
    table = Table(title=f"Tried, by {tuning['metric']}", title_justify="left", caption=escape(told))
    for heading in ("trial", "value", "epochs", "s", "", "drawn"):
        table.add_column(heading, justify="left" if heading in ("", "drawn") else "right", overflow="fold")
    for line in lines:
        table.add_row(*map(escape, shown(line)))
    yield table
    if tuning["importance"]:
        matters = Table(title="How much of the differences it explains", title_justify="left")
        matters.add_column("drawn")
        matters.add_column("share", justify="right")
        for name, share in [(name, share) for name, share in tuning["importance"].items() if share >= 0.005]:
            matters.add_row(escape(name), f"{share:.0%}")
        yield matters


def _component(registry: Any, name: str) -> dict[str, Any]:
    options = registry.options(name)
    about = (inspect.getdoc(registry[name]) or "").partition("\n")[0]
    return {"about": about, "options": {option: _plain(parameter.default) for option, parameter in options.items()}}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
