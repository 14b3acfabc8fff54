"""The tables that `peers.py` prints: quality, cost, ratios, and whether what was asked for holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from measure import show
from peer_systems import quality
from peer_systems.processes import Outcome
from polyfuse.metrics import METRICS
from polyfuse.metrics.bootstrap import Interval

MB = 1024 * 1024


@dataclass
class Measured:
    """All that was measured of one system.

    Attributes:
        title: as people read it.
        own: whether its packages are its own, and not those that this script runs in.
        fits: by seed.
        answers: by seed: of the process that loaded what was saved.
        scores: by seed, of the test rows.
    """

    title: str
    own: bool
    fits: dict[int, Outcome] = field(default_factory=dict)
    answers: dict[int, Outcome] = field(default_factory=dict)
    scores: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One column of the costs: how it is read, its unit, and whether more of it is better."""

    label: str
    unit: str
    more_is_better: bool = False


FIGURES = {
    "fit_wall": Figure("fit, wall", "s"),
    "fit_cpu": Figure("fit, CPU", "s"),
    "row": Figure("one row, p50", "ms"),
    "rate": Figure("rows", "a second", more_is_better=True),
    "import": Figure("import", "s"),
    "cold": Figure("cold start", "s"),
    "fit_peak": Figure("peak memory of the fit", "MB"),
    "answer_peak": Figure("peak memory of answers", "MB"),
    "model": Figure("saved model", "MB"),
    "packages": Figure("installed", "MB"),
}


def figures(system: Measured, rows: int) -> dict[str, float]:
    """Return the median over seeds of every cost. rows: of the test table."""
    fits, answers = list(system.fits.values()), list(system.answers.values())
    found = {
        "fit_wall": [fit.said["fit_wall_s"] for fit in fits],
        "fit_cpu": [fit.said["fit_cpu_s"] for fit in fits],
        "row": [answer.said["row_s"] * 1000 for answer in answers],
        "rate": [rows / answer.said["all_rows_s"] for answer in answers],
        "import": [answer.said["import_s"] for answer in answers],
        "cold": [answer.said["answered_at"] - answer.begun_at for answer in answers],
        "fit_peak": [fit.peak_bytes / MB for fit in fits],
        "answer_peak": [answer.peak_bytes / MB for answer in answers],
        "model": [fit.said["model_bytes"] / MB for fit in fits],
        "packages": [fit.said["packages"]["bytes"] / MB for fit in fits] if system.own else [],
    }
    return {name: float(median(values)) for name, values in found.items() if values}


def show_systems(systems: Mapping[str, Measured]) -> None:
    """Print versions, and the notes that systems have."""
    rows, notes = [], []
    for system in systems.values():
        fit = next(iter(system.fits.values())).said
        about: dict[str, Any] = fit["about"]
        count = fit["packages"]["count"] if system.own else ""
        keys = ("version", "python", "torch", "threads", "capability")
        rows.append([system.title, *(about.get(key, "") for key in keys), count])
        told = [*fit["notes"], *next(iter(system.answers.values())).said["notes"]]
        notes += [f"- {system.title}: {note}" for note in dict.fromkeys(told)]
    show(["system", "version", "Python", "torch", "threads", "CPU capability", "packages"], rows)
    if notes:
        print("\n".join(notes), end="\n\n")


def show_quality(systems: Mapping[str, Measured], y_true: np.ndarray, metrics: Sequence[str]) -> None:
    """Print metrics with their intervals."""
    first = METRICS[metrics[0]].label
    headings = ["system", "seeds"]
    for name in metrics:
        headings += [METRICS[name].label, "95 %"]
    headings.append(f"{first}, least to greatest seed")
    rows = []
    for system in systems.values():
        found = quality.measured(y_true, system.scores, metrics)
        least, most = quality.spread(y_true, system.scores, metrics[0])
        row: list[object] = [system.title, len(system.scores)]
        for name in metrics:
            row += [f"{found[name].value:.4f}", _bounds(found[name])]
        row.append(f"{least:.4f} to {most:.4f}" if len(system.scores) > 1 else "")
        rows.append(row)
    show(headings, rows)


def show_differences(systems: Mapping[str, Measured], y_true: np.ndarray, metrics: Sequence[str], beside: str) -> None:
    """Print by how much metrics differ from another system's on the same rows."""
    if beside not in systems:
        return
    other, rows = systems[beside], []
    for name, system in systems.items():
        if name != beside:
            apart = [quality.difference(y_true, system.scores, other.scores, metric) for metric in metrics]
            rows.append([system.title, *(f"{found.value:+.4f} ({_bounds(found)})" for found in apart)])
    print(f"Minus {other.title}, on the same rows, with 95 % intervals\n")
    show(["system", *(METRICS[name].label for name in metrics)], rows)


def show_costs(systems: Mapping[str, Measured], rows: int) -> None:
    table = []
    for system in systems.values():
        found = figures(system, rows)
        table.append([system.title, *(_short(found[name]) if name in found else "" for name in FIGURES)])
    show(["system", *(f"{figure.label} {figure.unit}" for figure in FIGURES.values())], table)


def show_ratios(systems: Mapping[str, Measured], beside: str, rows: int) -> None:
    """Print how many times better each system is than another, in every cost."""
    if beside not in systems:
        return
    print(f"Times better than {systems[beside].title} (below 1: worse)\n")
    other = figures(systems[beside], rows)
    table = []
    for name, system in systems.items():
        if name != beside:
            found = figures(system, rows)
            table.append([system.title, *(_short(times(found, other, key)) for key in FIGURES)])
    show(["system", *(figure.label for figure in FIGURES.values())], table)


def times(found: Mapping[str, float], other: Mapping[str, float], name: str) -> float:
    """Return how many times better one is than the other in a cost; nan where one of them has none."""
    mine, theirs = found.get(name, float("nan")), other.get(name, float("nan"))
    if FIGURES[name].more_is_better:
        mine, theirs = theirs, mine
    return theirs / mine if mine else float("nan")


def show_asked(systems: Mapping[str, Measured], y_true: np.ndarray, metric: str, beside: str) -> None:
    """Print whether presets are as much faster than the other as was asked for, and as good or better."""
    if beside not in systems:
        return
    other, rows = systems[beside], len(y_true)
    for name, least, strictly in (("fast", 10, False), ("best", 2, True)):
        if name not in systems:
            continue
        speed = times(figures(systems[name], rows), figures(other, rows), "fit_wall")
        apart = quality.difference(y_true, systems[name].scores, other.scores, metric)
        gain = quality.better(apart, metric)
        held = speed >= least and (gain > 0 if strictly else gain >= 0)
        wanted = f"at least {least} times faster to fit, {'better' if strictly else 'not worse'}"
        label = METRICS[metric].label
        print(
            f"- {systems[name].title} beside {other.title}; asked for: {wanted}. Measured: {speed:.1f} times faster,"
            f" {label} {apart.value:+.4f} ({_bounds(apart)}): {'holds' if held else 'DOES NOT HOLD'}."
        )
    print()


def _bounds(found: Interval) -> str:
    return f"{found.low:.3f} to {found.high:.3f}"


def _short(value: float) -> str:
    if value != value:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
