"""The commands and their options. What they need is imported inside, so that `--help` is instant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from polyfuse.cli.arguments import FAST_SEARCH, budgets_of, deviation, listed, predictor_of
from polyfuse.core.version import __version__

app = typer.Typer(
    name="polyfuse",
    help="From a table of text, images, audio and numbers to a trained, measured, saved model.\n\n"
    "Begin with  [bold]polyfuse demo[/bold],  then"
    "  [bold]polyfuse fit train.csv --target COLUMN --out runs/mine[/bold].",
    epilog="Exit codes: 0 done, 1 the work failed, 2 the call or its input is wrong. Results go to standard output,"
    " progress and messages to standard error.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)

Run = Annotated[Path, typer.Argument(help="An artifact: the folder that [bold]fit[/bold] wrote.", show_default=False)]
Rows = Annotated[
    Path,
    typer.Argument(help="CSV, TSV, JSON Lines, Parquet, or a saved datasets folder.", show_default=False),
]
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
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        "-b",
        help="By how much: linf, l2, snr, patch, characters, words, ranges. May be repeated.",
        metavar="MODALITY=THREAT:RADIUS",
    ),
]
Search = Annotated[str, typer.Option("--attack", help="The search; [bold]polyfuse info[/bold] lists them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


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
    as_json: AsJson = False,
) -> None:
    """Answer each row of a table, in a column for each target.

    Example:  polyfuse predict runs/price test.csv --out predictions.csv
    """
    from polyfuse.cli import show
    from polyfuse.predictor import load

    show.check_writable(out)
    answers = load(run).answer(rows, without=without or (), screen=screen, progress=True)
    show.answers(answers, out, proba=proba, as_json=as_json)


@app.command()
def evaluate(
    run: Run,
    rows: Rows,
    html: Annotated[Path | None, typer.Option(help="Also write the report as one page.")] = None,
    without: Without = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on rows whose answers are known; each of several targets on the rows that have it.

    Example:  polyfuse evaluate runs/price test.csv --html report.html
    """
    from polyfuse.predictor import load

    report = load(run).evaluate(rows, without=without or (), progress=True)
    if html is not None:
        report.to_html(html)
        typer.echo(f"wrote {html}", err=True)
    typer.echo(report.to_json() if as_json else str(report))


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


@app.command()
def attack(
    run: Run,
    rows: Rows,
    modalities: Annotated[
        str | None,
        typer.Option(help="What the adversary may change; all that can be attacked when left out.", metavar="A,B"),
    ] = None,
    budget: Budgets = None,
    absent: Annotated[
        str | None,
        typer.Option(help="What the adversary may take away, too; one modality of each row stays.", metavar="A,B"),
    ] = None,
    towards: Annotated[
        str | None,
        typer.Option(help="The label that the adversary wants to be answered; any wrong one, when left out."),
    ] = None,
    search: Search = "ensemble",
    fast: Annotated[bool, typer.Option("--fast", help="A weaker search on at most 200 rows, unchecked.")] = False,
    factor: Annotated[
        list[float] | None,
        typer.Option("--factor", help="Also with all radii multiplied by this; may be repeated.", min=0.001, max=1000),
    ] = None,
    limit: Annotated[int | None, typer.Option("--rows", help="At most so many rows, drawn at random.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.", min=0)] = 0,
    examples: Annotated[
        Path | None, typer.Option(help="A new folder for changed rows, to look at and to listen to.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for inputs near those of a table that the model answers wrongly, in every subset of its modalities.

    Example:  polyfuse attack runs/digits test.csv --budget image=linf:8/255 --budget audio=snr:20
    """
    from polyfuse.predictor import load

    report = load(run).attack(
        rows,
        modalities=listed(modalities),
        budgets=budgets_of(budget),
        absent=listed(absent) or (),
        towards=towards,
        attack=search,
        options=FAST_SEARCH if fast and search == "ensemble" else {},
        factors=factor or (),
        rows=min(limit or 200, 200) if fast else limit,
        seed=seed,
        examples=examples,
        checked=not fast,
        progress=True,
    )
    if examples is not None:
        typer.echo(f"wrote {examples}", err=True)
    typer.echo(report.to_json() if as_json else str(report))


@app.command()
def stress(
    run: Run,
    rows: Rows,
    modalities: Annotated[
        str | None, typer.Option(help="Whose values are damaged; all when left out.", metavar="A,B")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Severities 1, 3 and 5, one seed, at most 200 rows.")] = False,
    train: Annotated[
        Path | None,
        typer.Option(
            help="The training table: late fusion and each modality's own model are fitted on it, and measured beside."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--rows", help="At most so many rows, drawn at random.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model where modalities are missing, and where values are damaged by noise, blur, typos and so on.

    Example:  polyfuse stress runs/digits test.csv --fast
    """
    from polyfuse.predictor import load

    predictor = load(run)
    report = predictor.stress(
        rows,
        references=predictor.references(train, progress=True) if train is not None else None,
        modalities=listed(modalities),
        severities=(1, 3, 5) if fast else (1, 2, 3, 4, 5),
        seeds=1 if fast else 3,
        rows=min(limit or 200, 200) if fast else limit,
        progress=True,
    )
    typer.echo(report.to_json() if as_json else str(report))


@app.command()
def certify(
    run: Run,
    rows: Rows,
    noise: Annotated[
        list[str],
        typer.Option(
            "--noise",
            "-n",
            help="Standard deviation of the noise, e.g. image=0.25 of pixels from 0 to 1. May be repeated.",
            metavar="MODALITY=SIGMA",
            show_default=False,
        ),
    ],
    samples: Annotated[int, typer.Option(help="Draws that certify an answer.", min=1)] = 1000,
    selection: Annotated[int, typer.Option(help="Other draws that choose it.", min=1)] = 100,
    alpha: Annotated[float, typer.Option(help="Probability, for each row, that its certificate is wrong.")] = 0.001,
    limit: Annotated[int | None, typer.Option("--rows", help="At most so many rows, drawn at random.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Smooth a model by noise, and find for each row a radius within which no change can turn its answer.

    Where no answer is sure to be the most likely one, it abstains, which counts as wrong. Train with the same noise:
    fit … --set training.noise.image=0.25

    Example:  polyfuse certify runs/digits test.csv --noise image=0.25 --samples 10000 --rows 500
    """
    from polyfuse.predictor import load

    deviations = dict(deviation(text) for text in noise)
    report = load(run).certify(
        rows,
        deviations,
        samples=samples,
        selection=selection,
        alpha=alpha,
        rows=limit,
        seed=seed,
        progress=True,
    )
    typer.echo(report.to_json() if as_json else str(report))


@app.command()
def detect(
    run: Run,
    rows: Rows,
    modalities: Annotated[
        str | None, typer.Option(help="What the adversary may change; all that can be attacked.", metavar="A,B")
    ] = None,
    budget: Budgets = None,
    search: Search = "ensemble",
    fast: Annotated[bool, typer.Option("--fast", help="A weaker search on at most 200 rows.")] = False,
    limit: Annotated[int | None, typer.Option("--rows", help="At most so many rows, drawn at random.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a screen: on damaged rows, under attack, and under attack by an adversary who knows it.

    The model needs a screen: [bold]polyfuse fit … --screen[/bold]. Give rows that it has not learned from.

    Example:  polyfuse detect runs/digits test.csv --budget image=linf:8/255
    """
    from polyfuse.predictor import load

    report = load(run).detect(
        rows,
        modalities=listed(modalities),
        budgets=budgets_of(budget),
        attack=search,
        options=FAST_SEARCH if fast and search == "ensemble" else {},
        rows=min(limit or 200, 200) if fast else limit,
        seed=seed,
        progress=True,
    )
    typer.echo(report.to_json() if as_json else str(report))
