"""How long a fit takes against the number of rows: a frozen recipe, on 1,000 to 64,000 rows made from clothing reviews.

python benchmarks/rows.py DATA [PICTURE]     (docs/rows.png when left out)

Rows are drawn from the training table with noise: words are dropped and swapped, so that hardly a text occurs twice,
and numbers are moved. Every fit begins with an empty cache. The line of the picture is the one in proportion
to the largest table; the slope between neighbours says how far from it the rest is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import polyfuse as pf
from measure import about, cost, data_folder, empty_cache, peak_mb, show

TARGET = "Recommended IND"
ROWS = (1_000, 4_000, 16_000, 64_000)
RECIPE = {"columns": {"Rating": "ignore"}, "fusion": "concat", "training": {"trackers": []}}


def noisy(text: object, drawn: np.random.Generator) -> object:
    """Return a text with a tenth of its words dropped, and two neighbours swapped."""
    if not isinstance(text, str):
        return text
    words = [word for word in text.split() if drawn.random() >= 0.1] or text.split()
    if len(words) > 1:
        at = int(drawn.integers(len(words) - 1))
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def resampled(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    drawn = np.random.default_rng(rows)
    found = table.iloc[drawn.integers(len(table), size=rows)].reset_index(drop=True)
    for name in ("Title", "Review Text"):
        found[name] = [noisy(cell, drawn) for cell in found[name]]
    found["Age"] = found["Age"] + drawn.integers(-3, 4, size=rows)
    return found


def picture(rows: list[int], seconds: list[float], path: Path) -> None:
    figure = Figure(figsize=(6.4, 4), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(
        rows,
        [seconds[-1] * count / rows[-1] for count in rows],
        "--",
        color="#8a97a6",
        linewidth=1,
        label="in proportion to the rows",
    )
    axes.plot(rows, seconds, "o-", color="#1f6feb", label="fit, empty cache")
    for count, needed in zip(rows, seconds, strict=True):
        axes.annotate(f"{needed:.0f} s", (count, needed), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    axes.set(xlabel="rows", ylabel="seconds", title="A frozen recipe: seconds of a fit against rows")
    axes.set(xscale="log", yscale="log", xticks=rows, xticklabels=[f"{count:,}" for count in rows])
    axes.set(yticks=[10, 100], yticklabels=["10", "100"], ylim=(3, 1000))
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    table = pd.read_csv(data_folder("cloth") / "train.csv")
    about()
    found, seconds = [], []
    for rows in ROWS:
        some = resampled(table, rows)
        with empty_cache(), cost() as fit:
            predictor = pf.Predictor(TARGET, **RECIPE).fit(some, progress=False)
        seconds.append(fit.wall)
        epochs = len(predictor.metrics["training"]["history"])
        slope = np.log(seconds[-1] / seconds[-2]) / np.log(rows / found[-1][0]) if found else ""
        found.append([rows, fit.wall, fit.cpu, fit.wall / rows * 1000, epochs, slope, peak_mb()])
    show(["rows", "wall s", "CPU s", "ms a row", "epochs", "exponent from the row above", "peak MB so far"], found)
    picture(list(ROWS), seconds, Path(sys.argv[2] if len(sys.argv) > 2 else "docs/rows.png"))


if __name__ == "__main__":
    main()
