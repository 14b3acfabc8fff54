"""Scores side by side, drawn with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyfuse.core.errors import InputError
from polyfuse.core.files import whole_file
from polyfuse.metrics.bootstrap import Interval

_COLOURS = ("#8a97a6", "#1f6feb", "#b26a00", "#1a7f5a", "#8250df", "#c0392b")
_INK, _SOFT, _LINE = "#1c2733", "#5b6b7b", "#e3e9ef"
_DASHES = (0, (4, 3))


@dataclass(frozen=True)
class Score:
    """One line of the picture.

    Attributes:
        name: what was measured.
        group: lines of one group have one colour, e.g. "one modality", "fusion".
        interval: the value with its interval.
    """

    name: str
    group: str
    interval: Interval


def comparison_picture(
    panels: Mapping[str, Sequence[Score]],
    path: str | Path,
    *,
    title: str,
    axis: str,
    baseline: float | None = None,
) -> Path:
    """Draw a dot and an interval for each score, in panels one below the other on one axis, and return the path.

    Args:
        panels: heading of a panel to its scores, from top to bottom.
        path: of the file; its ending says the format: .png, .svg or .pdf.
        title: above the picture.
        axis: what is measured, below it.
        baseline: the metric of the training prior, drawn as a dashed line.

    Raises:
        InputError: there is no score, or the format is not one of these.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    panels = {heading: scores for heading, scores in panels.items() if scores}
    if not panels:
        raise InputError("picture: there is no score to draw; give at least one")
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise InputError(f"picture: {path.name!r} has no format that can be drawn; end it in .png, .svg or .pdf")
    sizes = [len(scores) + 0.9 for scores in panels.values()]
    figure = Figure(figsize=(8.2, 0.36 * sum(sizes) + 1.5), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
    groups = dict.fromkeys(score.group for scores in panels.values() for score in scores)
    colours = {group: _COLOURS[i % len(_COLOURS)] for i, group in enumerate(groups)}
    for axes, (heading, scores) in zip(all_axes, panels.items(), strict=True):
        _draw(axes, heading, scores, colours, baseline)
    all_axes[-1].set_xlabel(_plain(axis), color=_SOFT)
    figure.suptitle(_plain(title), x=0.015, ha="left", fontsize=13, fontweight="bold", color=_INK)
    handles = {_plain(group): _handle(colour) for group, colour in colours.items()}
    if baseline is not None:
        handles["training prior"] = _handle(_SOFT, marker="", linewidth=1, linestyle=_DASHES)
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    return path


def _draw(axes: Any, heading: str, scores: Sequence[Score], colours: Mapping[str, str], baseline: float | None) -> None:
    if baseline is not None:
        axes.axvline(baseline, color=_SOFT, linewidth=1, linestyle=_DASHES, zorder=1)
    for i, score in enumerate(scores):
        colour, at = colours[score.group], score.interval
        if math.isnan(at.value):
            continue
        if not math.isnan(at.low):
            axes.plot([at.low, at.high], [i, i], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot(at.value, i, "o", color=colour, markersize=8)
        right = at.value if math.isnan(at.high) else at.high
        axes.annotate(
            f"{at.value:.3f}",
            (right, i),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=_INK,
        )
    axes.set_yticks(range(len(scores)), [_plain(score.name) for score in scores], color=_INK)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_title(_plain(heading), loc="left", fontsize=10, color=_SOFT)
    axes.margins(x=0.1)
    axes.grid(axis="x", color=_LINE)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _handle(colour: str, **style: Any) -> Any:
    from matplotlib.lines import Line2D

    drawn: dict[str, Any] = {"color": colour, "marker": "o", "linewidth": 3, "markersize": 7}
    return Line2D([], [], **drawn | style)


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
