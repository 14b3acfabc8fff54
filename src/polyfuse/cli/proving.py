"""The commands that prove what a model stands: attacks, damage, noise, its screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyfuse.cli.arguments import FAST_SEARCH, budgets_of, deviation, listed
from polyfuse.cli.options import AsJson, Most, Rows, Run, Seed

Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        "-b",
        help="By how much: linf, l2, snr, patch, displace, drop, add, characters, words, ranges. May be repeated.",
        metavar="MODALITY=THREAT:RADIUS",
    ),
]
Search = Annotated[str, typer.Option("--attack", help="The search; [bold]polyfuse info[/bold] lists them.")]


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
    limit: Most = None,
    seed: Seed = 0,
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
    limit: Most = None,
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
    limit: Most = None,
    seed: Seed = 0,
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


def detect(
    run: Run,
    rows: Rows,
    modalities: Annotated[
        str | None, typer.Option(help="What the adversary may change; all that can be attacked.", metavar="A,B")
    ] = None,
    budget: Budgets = None,
    search: Search = "ensemble",
    fast: Annotated[bool, typer.Option("--fast", help="A weaker search on at most 200 rows.")] = False,
    limit: Most = None,
    seed: Seed = 0,
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
