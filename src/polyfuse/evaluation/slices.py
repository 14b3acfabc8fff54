"""The parts of some rows on which a model does worst, found by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polyfuse.data.rows import Rows
from polyfuse.metrics.bootstrap import Interval, draws, percentile_interval
from polyfuse.metrics.metric import Array, Metric

_LEAST = 20  # rows of a slice
_HALVES_FROM = 200  # rows from which some are kept to measure what was found on the others
_LEVELS, _PARTS = 12, 4  # of a category; of a number
_RESAMPLED, _LEVEL = 500, 0.95
_PAIRED = 12  # slices of which pairs are tried

Mask = NDArray[np.bool_]

#: By type of column, the unit and the size of a cell that parts rows.
_SIZES: dict[str, tuple[str, Callable[[Any], float]]] = {
    "number": ("", float),
    "datetime": ("", float),
    "text": (" words", lambda cell: float(len(cell.split()))),
    "audio": (" s", lambda cell: len(cell.samples) / cell.rate),
    "image": (" pixels wide", lambda cell: float(cell[0].width)),
    "points": (" points", lambda cell: float(len(cell))),
}


@dataclass(frozen=True)
class Slice:
    """Some rows that have something in common.

    Attributes:
        what: e.g. "brand = acme", "note of at most 4 words", "image absent", or two of these joined by " and ".
        rows: number of them among those measured.
        value: the metric on them.
        rest: the metric on all other rows.
        gap: by how much they are worse than the others, with its interval.
    """

    what: str
    rows: int
    value: Interval
    rest: Interval
    gap: Interval


@dataclass(frozen=True)
class Slices:
    """The worst slices, the worst first.

    Attributes:
        metric: that they are measured by.
        least: rows that a slice has at least.
        tried: how many were looked at.
        apart: whether they were found on one half of the rows and measured on the other; else their gaps are too wide.
        worst: those found.
    """

    metric: str
    least: int
    tried: int
    apart: bool
    worst: list[Slice]

    def __str__(self) -> str:
        lines = [f"the worst of {self.tried} slices of at least {self.least} rows, {self.metric} beside the rest"]
        lines += [f"{one.what:<48}{one.rows:>6}  {one.value}  worse by {one.gap}" for one in self.worst]
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def worst_slices(
    rows: Rows, metric: Metric, y_true: Array, y_score: Array, *, most: int = 5, least: int = _LEAST, seed: int = 0
) -> Slices:
    """Find the slices on which a metric is worst: by categories, parts of numbers, lengths, and what is absent.

    Where there are rows enough, slices are found on one half of them and measured on the other: the worst of many is
    bad by chance too, and that chance does not come twice.

    Args:
        rows: of a table.
        metric: that decides.
        y_true: (rows, …).
        y_score: (rows, …).
        most: number of slices.
        least: rows of a slice, in each half.
        seed: of the halves, and of the resamples.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    apart = len(rows) >= _HALVES_FROM
    finding, measuring = (order[::2], order[1::2]) if apart else (order, order)
    masks = {what: mask for what, mask in traits(rows).items() if _enough(mask, finding, measuring, least)}
    sign = 1.0 if metric.greater_is_better else -1.0

    def gap(mask: Mask, some: Array) -> float:
        inside, outside = some[mask[some]], some[~mask[some]]
        outer, inner = (metric.function(y_true[part], y_score[part]) for part in (outside, inside))
        return sign * (outer - inner)

    gaps = _ordered({what: gap(mask, finding) for what, mask in masks.items()})
    for (a, one), (b, other) in combinations([(what, masks[what]) for what in list(gaps)[:_PAIRED]], 2):
        both = one & other
        joint = f"{a} and {b}"
        if _enough(both, finding, measuring, least) and not (both == one).all() and not (both == other).all():
            masks[joint] = both
            gaps[joint] = gap(both, finding)
    worst: list[Slice] = []
    for what in _ordered(gaps):
        if len(worst) == most or not gaps[what] > 0:
            break
        # A slice that is nearly the same as a worse one says nothing new.
        if all(_overlap(masks[what], masks[other.what]) < 0.8 for other in worst):
            worst.append(_measured(what, masks[what][measuring], metric, y_true[measuring], y_score[measuring], seed))
    worst.sort(key=lambda one: -one.gap.value)
    return Slices(metric.name, least, len(masks), apart, worst)


def traits(rows: Rows) -> dict[str, Mask]:
    """Return what rows may have in common, each with which rows have it (rows,) bool."""
    found: dict[str, Mask] = {}
    for column in rows.schema.columns:
        cells = [rows.cell(column.name, row) for row in range(len(rows))]
        found |= {f"{column.name} {what}": mask for what, mask in _of_column(column.type, cells)}
    for name, here in zip(rows.schema.modalities, rows.present.T.numpy(), strict=True):
        if len(rows.schema.modalities[name]) > 1:
            found[f"{name} absent"] = ~here
    return found


def _of_column(kind: str, cells: list[Any]) -> Iterator[tuple[str, Mask]]:
    absent = np.asarray([cell is None for cell in cells])
    yield "absent", absent
    if kind == "category":
        for level in pd.Series(cells).value_counts().index[:_LEVELS]:
            yield f"= {level}", np.asarray([cell == level for cell in cells])
        return
    if kind not in _SIZES or absent.all():
        return
    unit, size = _SIZES[kind]
    numbers = np.asarray([np.nan if gone else size(cell) for cell, gone in zip(cells, absent, strict=True)])
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _PARTS + 1)))
    for low, high in pairwise(edges):
        last = high == edges[-1]
        text = (_text(low, kind), _text(high, kind))
        yield f"from {text[0]} to {text[1]}{unit}", (numbers >= low) & ((numbers <= high) if last else (numbers < high))


def _text(value: float, kind: str) -> str:
    return str(np.datetime64(int(value), "s"))[:10] if kind == "datetime" else f"{value:.4g}"


def _enough(mask: Mask, finding: Array, measuring: Array, least: int) -> bool:
    return all(least <= int(mask[some].sum()) <= len(some) - least for some in (finding, measuring))


def _ordered(gaps: Mapping[str, float]) -> dict[str, float]:
    """Return gaps, the widest first; those that are not defined are left out."""
    return dict(sorted(((what, at) for what, at in gaps.items() if at == at), key=lambda item: -item[1]))


def _overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _measured(what: str, mask: Mask, metric: Metric, y_true: Array, y_score: Array, seed: int) -> Slice:
    ends = [draws(metric, y_true[some], [y_score[some]], resamples=_RESAMPLED, seed=seed) for some in (mask, ~mask)]
    inside, outside = ((float(value[0]), drawn[0]) for value, drawn in ends)
    sign = 1.0 if metric.greater_is_better else -1.0
    apart = sign * (outside[0] - inside[0]), sign * (outside[1] - inside[1])
    value, rest, gap = (percentile_interval(at, [drawn], _LEVEL) for at, drawn in (inside, outside, apart))
    return Slice(what, int(mask.sum()), value, rest, gap)
