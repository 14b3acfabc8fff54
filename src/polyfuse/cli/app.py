"""The commands and their options. What they need is imported inside, so that `--help` is instant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from polyfuse.cli.arguments import predictor_of
from polyfuse.cli.checking import check
from polyfuse.cli.drifting import drift
from polyfuse.cli.explaining import explain
from polyfuse.cli.exporting import export
from polyfuse.cli.log import log
from polyfuse.cli.options import AsJson, Rows, Run
from polyfuse.cli.proving import attack, certify, detect, stress
from polyfuse.cli.refitting import refit
from polyfuse.cli.reporting import report
from polyfuse.cli.serving import serve
from polyfuse.core.version import __version__

app = typer.Typer(
    name="polyfuse",
    help="From a table of text, images, audio, point clouds and numbers to a trained, measured, saved model.\n\n"
    "Begin with  [bold]polyfuse demo[/bold],  then"
    "  [bold]polyfuse fit train.csv --target COLUMN --out runs/mine[/bold].",
    epilog="Exit codes: 0 done, 1 the work failed, 2 the call or its input is wrong, 3 drift was found, or a refit"
    " is not promoted. Results go to standard output, progress and messages to standard error.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)

TargetColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="The column to predict; repeated, several in one model. May stand in the recipe instead.",
        metavar="COLUMN",
    ),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="A recipe (YAML); what it leaves out is inferred.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", help="Set a key of the recipe, e.g. fusion=attention, training.epochs=5.", metavar="KEY=VALUE"
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        help="fast: few ways to combine; balanced: all of them, as without; best: the encoders are tuned too.",
        metavar="fast|balanced|best",
    ),
]
Without = Annotated[
    list[str] | None, typer.Option("--without", help="Take a modality away; may be repeated.", metavar="MODALITY")
]
Sensitive = Annotated[
    list[str] | None,
    typer.Option("--sensitive", help="Compare the groups of this column, too; may be repeated.", metavar="COLUMN"),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"polyfuse {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def fit(
    train: Rows,
    target: TargetColumn = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to save the artifact.")] = Path("runs/latest"),
    recipe: RecipeFile = None,
    settings: Settings = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            help="Rows that decide which weights are kept, or, with fusion=auto, to measure on; else split off TRAIN."
        ),
    ] = None,
    preset: Preset = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Be done 90s, 5m, 1h after the start, with the best so far.")
    ] = None,
    screen: Annotated[
        bool,
        typer.Option(
            "--screen", help="Learn to tell suspicious rows; at what false positive rate says --set screen.rate=0.01."
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left at OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on a table and save it.

    Column types, encoders, tuning and task are inferred and shown before training starts; [bold]polyfuse recipe[/bold]
    prints them to edit. The best way to combine is found, by comparing all of them on rows that they have not seen, or
    named with --set fusion=NAME. Ctrl-C stops and keeps the best so far. To share the work among N processes:
    torchrun --nproc-per-node N -m polyfuse fit …

    Example:  polyfuse fit train.csv --target price --out runs/price --set fusion=attention
    """
    from polyfuse.cli import show
    from polyfuse.core import processes

    chosen: dict[str, Any] = {"training.time_limit": time_limit, "screen": {} if screen else None}
    predictor = predictor_of(target, recipe, settings, preset=preset, **chosen)
    plan = predictor.plan(train)
    if processes.first():
        show.plan(plan)
    predictor.fit(plan.table, validation=validation, out=out, resume=resume, overwrite=overwrite, progress=True)
    if processes.first():
        show.fitted(predictor, out, as_json=as_json)


@app.command()
def tune(
    train: Rows,
    target: TargetColumn = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to save the artifact.")] = Path("runs/tuned"),
    trials: Annotated[int, typer.Option(help="Trials in all, those of earlier runs included.", min=1)] = 20,
    time_limit: Annotated[
        str | None, typer.Option(help="Be done 90s, 10m, 1h after the start, with the best so far.")
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="The study, an SQLite file, to go on with.", show_default="OUT.study.db")
    ] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to look, e.g. fusion=concat,gated or training.learning_rate=1e-4..1e-2.",
            metavar="KEY=LOW..HIGH|ONE,OTHER",
        ),
    ] = None,
    preset: Preset = None,
    seed: Annotated[int | None, typer.Option(help="Of the search, and of all else that is random.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact at OUT.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try many recipes on a table, fit the best one and save it.

    Searched are fusions, their options, those of the head, and how the model is trained; with --preset best tunings of
    pretrained encoders too. What --set says stays. A trial that is behind ends early. The same command goes on with the
    study until there are so many trials; Ctrl-C ends the search and fits the best recipe so far.

    Example:  polyfuse tune train.csv --target price --out runs/tuned --trials 30 --space fusion=concat,gated
    """
    from polyfuse.cli import show

    predictor = predictor_of(target, recipe, settings, preset=preset, **{"training.seed": seed})
    plan = predictor.plan(train)
    show.plan(plan, searched=True)
    predictor.tune(
        plan.table,
        trials=trials,
        time_limit=time_limit,
        out=out,
        study=study,
        space=space,
        overwrite=overwrite,
        progress=True,
    )
    if not as_json:
        show.tuned(predictor)
    show.fitted(predictor, out, as_json=as_json)


@app.command()
def predict(
    run: Run,
    rows: Rows,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to: .csv, .tsv, .jsonl or .parquet; else CSV is printed.")
    ] = None,
    proba: Annotated[
        bool,
        typer.Option("--proba", help="Add the probability of each class: p:CLASS, of several targets p:TARGET:CLASS."),
    ] = False,
    without: Without = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Add how suspicious each row is, in [0, 1], and whether it is flagged.")
    ] = False,
    level: Annotated[
        float | None,
        typer.Option(
            help="Add the set of labels, or low and high, that hold the truth in this share of the rows, e.g. 0.9.",
            min=0.01,
            max=0.9999,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer each row of a table, in a column for each target.

    Example:  polyfuse predict runs/price test.csv --out predictions.csv
    """
    from polyfuse.cli import show
    from polyfuse.predictor import load

    show.check_writable(out)
    answers = load(run).answer(rows, without=without or (), screen=screen, level=level, progress=True)
    show.answers(answers, out, proba=proba, as_json=as_json)


@app.command()
def evaluate(
    run: Run,
    rows: Rows,
    html: Annotated[Path | None, typer.Option(help="Also write the report as one page.")] = None,
    without: Without = None,
    sensitive: Sensitive = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on rows whose answers are known; each of several targets on the rows that have it.

    Example:  polyfuse evaluate runs/price test.csv --html report.html
    """
    from polyfuse.cli import show
    from polyfuse.predictor import load

    predictor = load(run)
    # First, for here something may be wrong with the call.
    groups = predictor.fairness(rows, sensitive, without=without or (), progress=True) if sensitive else None
    report = predictor.evaluate(rows, without=without or (), progress=True)
    if html is not None:
        report.to_html(html)
        typer.echo(f"wrote {html}", err=True)
    typer.echo(show.with_fairness(report, groups, as_json=as_json))


@app.command()
def recipe(
    train: Rows,
    target: TargetColumn = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    preset: Preset = None,
    as_json: AsJson = False,
) -> None:
    """Print the recipe that [bold]fit[/bold] would follow, to edit and give back with --recipe.

    Example:  polyfuse recipe train.csv --target price > recipe.yaml
    """
    from polyfuse.cli import show

    plan = predictor_of(target, recipe, settings, preset=preset).plan(train)
    show.left_out(plan.schema)
    if as_json:
        typer.echo(json.dumps(plan.recipe.as_data(), indent=1, ensure_ascii=False))
    else:
        typer.echo("# Every option of every component:  polyfuse info")
        typer.echo(plan.recipe.to_yaml(), nl=False)


@app.command()
def merge(
    run: Run,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to save the merged artifact.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artifact at OUT.")] = False,
) -> None:
    """Fold what a tuning such as lora added into the encoders: the same answers, in less time.

    Example:  polyfuse merge runs/price --out runs/price-merged
    """
    from polyfuse.predictor import load

    load(run).merge().save(out, overwrite=overwrite)
    typer.echo(f"saved {out}", err=True)


@app.command()
def info(
    run: Annotated[
        Path | None, typer.Argument(help="An artifact, to tell about it instead.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell about the installation: versions, device, every component with its options. Or about one artifact.

    Example:  polyfuse info runs/price
    """
    from polyfuse.cli import show

    if run is None:
        show.installation(as_json=as_json)
    else:
        show.artifact(run, as_json=as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to save the artifact.")] = Path("runs/keypad"),
    as_json: AsJson = False,
) -> None:
    """Do the whole job on data that comes with the installation.

    The keypad table: each row is a key press, with a picture of the digit, the tone of the key, a note by somebody who
    saw it, and a few figures; parts are covered, noisy, misspelt or missing. Each modality is tried alone, then the
    best way to combine them is found; at the end, what happens when one is taken away. Needs no network and no file.
    """
    from polyfuse.cli.demo import run_demo

    run_demo(out, as_json=as_json)


for _command in (check, attack, stress, certify, detect, explain, report, serve, drift, log, export, refit):
    app.command()(_command)
