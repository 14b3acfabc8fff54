"""`polyfuse demo`: the whole job on the keypad table."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from rich.table import Table as Shown

from polyfuse.artifact import check_free
from polyfuse.cli.show import messages
from polyfuse.core.files import whole_file
from polyfuse.data.keypad import keypad_moved, keypad_split
from polyfuse.evaluation.picture import Score, comparison_picture
from polyfuse.evaluation.report import Report
from polyfuse.predictor import Predictor
from polyfuse.progress import RichProgress

TARGET = "key"
TRAIN_ROWS, TEST_ROWS, SEED = 1000, 400, 0


@dataclass(frozen=True)
class Tried:
    """A model that was tried: fitted, and measured on the test rows."""

    name: str
    predictor: Predictor
    report: Report


def run_demo(out: Path, *, as_json: bool) -> None:
    """Try each modality alone, find the best way to combine them, save it, and show what it does without each.

    Args:
        out: where the artifact goes; the picture and the tables stand beside it.
        as_json: print one JSON document instead of the table.
    """
    begun = time.monotonic()
    # A demo may be run again: what it replaces is an artifact, never anything else.
    check_free(out, overwrite=True)
    console = messages()
    console.print(
        f"[bold]The keypad table[/bold]: which key was it? {TRAIN_ROWS} presses to learn from, {TEST_ROWS} to test on."
    )
    train, test = keypad_split(TRAIN_ROWS, TEST_ROWS, seed=SEED)
    modalities = Predictor(TARGET).plan(train).recipe.as_data()["modalities"]
    alone = [
        _try(f"{name} alone", train, test, modalities={name: one}, fusion="concat") for name, one in modalities.items()
    ]
    # Rows that were kept aside choose: the test rows are for the figures only.
    # Not twice over with augmentation, and not for long: a demo is to be over soon.
    best = _try("all of them", train, test, augmentation="none", fusion={"name": "auto", "seconds": 12})
    console.print(f"found: {best.predictor.metrics['comparison']['reason']}")
    taken = [_without(best, name, test) for name in modalities]
    best.predictor.save(out, overwrite=True)
    files = {part: out.with_name(f"{out.name}-{part}.parquet") for part in ("train", "test", "new")}
    new = keypad_moved(TEST_ROWS, seed=SEED)
    for (part, path), table in zip(files.items(), (train, test, new), strict=True):
        with whole_file(path) as temporary:
            _portable(table).to_parquet(temporary)
        console.print(f"wrote the {part} table: {path}", style="dim")
    picture = out.with_name(f"{out.name}.png")
    _draw(alone, taken, best, picture)
    if as_json:
        typer.echo(json.dumps(_as_data(alone, taken, best, out, picture), indent=1))
    else:
        _show(alone, taken, best)
    console.print(f"saved it in [bold]{out}[/bold], the picture in [bold]{picture}[/bold]")
    console.print(f"{time.monotonic() - begun:.0f} seconds in all. Try next:")
    for command in (
        f"evaluate {out} {files['test']} --html {out.with_name(out.name + '.html')}",
        f"predict {out} {files['test']} --without audio --proba",
        f"drift {out} {files['new']} --html {out.with_name(out.name + '-drift.html')}",
        f"fit {files['train']} --target {TARGET} --out {out.with_name('mine')} --set fusion=attention",
    ):
        console.print(f"  polyfuse {command}", soft_wrap=True)


def _try(name: str, train: pd.DataFrame, test: pd.DataFrame, **settings: Any) -> Tried:
    messages().print(f"\n[bold]{name}[/bold]")
    progress = RichProgress()
    predictor = Predictor(TARGET, **settings).fit(train, progress=progress)
    return Tried(name, predictor, predictor.evaluate(test))


def _without(best: Tried, modality: str, test: pd.DataFrame) -> Tried:
    report = best.predictor.evaluate(test, without=[modality])
    return Tried(f"without {modality}", best.predictor, report)


def _portable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with images as PNG and recordings as WAV, so that a file can hold it."""
    images = [None if cell is None else {"bytes": _png(cell), "path": None} for cell in table["image"]]
    sounds = [None if cell is None else {"bytes": _wav(*cell), "path": None} for cell in table["audio"]]
    return table.assign(image=pd.Series(images, table.index), audio=pd.Series(sounds, table.index))


def _png(cell: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(cell).save(buffer, format="PNG")
    return buffer.getvalue()


def _wav(samples: Any, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _show(alone: list[Tried], taken: list[Tried], best: Tried) -> None:
    from rich.console import Console

    table = Shown(title=f"Accuracy on {TEST_ROWS} key presses that no model has seen", title_justify="left")
    table.add_column("model")
    for heading in ("accuracy", "95 % interval"):
        table.add_column(heading, justify="right")
    chance = best.report.baseline["accuracy"]
    table.add_row("always the most frequent key", f"{chance:.3f}", "", end_section=True)
    for group in (alone, [best], taken):
        for tried in group:
            found = tried.report.intervals["accuracy"]
            table.add_row(tried.name, f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}")
        table.add_section()
    Console().print(table)


def _draw(alone: list[Tried], taken: list[Tried], best: Tried, path: Path) -> None:
    def scores(group: str, some: list[Tried]) -> list[Score]:
        return [Score(tried.name, group, tried.report.intervals["accuracy"]) for tried in some]

    panels = {
        "Each modality alone, and all of them": scores("one modality", alone) + scores("all", [best]),
        "What is left of it when one is taken away": scores("all", taken),
    }
    comparison_picture(
        panels,
        path,
        title="Which key was pressed?",
        axis=f"accuracy on {TEST_ROWS} unseen rows, with 95 % intervals",
        baseline=best.report.baseline["accuracy"],
    )


def _as_data(alone: list[Tried], taken: list[Tried], best: Tried, out: Path, picture: Path) -> dict[str, Any]:
    def figures(some: list[Tried]) -> dict[str, Any]:
        return {tried.name: vars(tried.report.intervals["accuracy"]) for tried in some}

    return {
        "alone": figures(alone),
        "all": figures([best]),
        "without": figures(taken),
        "comparison": best.predictor.metrics["comparison"],
        "run": str(out),
        "picture": str(picture),
    }
