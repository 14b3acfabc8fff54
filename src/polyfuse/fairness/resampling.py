"""Figures by group over resampled rows, and intervals for those that were chosen among many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyfuse.fairness.report import Gap
from polyfuse.metrics.bootstrap import Interval, counts_drawn, percentile_interval
from polyfuse.metrics.metric import Array, Floats, ratio

LEVEL = 0.95
NONE = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Rate:
    """A figure that is a mean over some rows.

    Attributes:
        name: of the figure.
        values: of each row (rows,).
        counted: which rows it is the mean of (rows,) bool.
        label: whose rate it is.
    """

    name: str
    values: Array
    counted: Array
    label: str | None = None


@dataclass(frozen=True)
class Drawn:
    """A figure of each group.

    Attributes:
        rate: the figure.
        values: (groups,), nan where it rests on too few rows.
        resampled: (resamples, groups).
    """

    rate: Rate
    values: Floats
    resampled: Floats

    def interval(self, group: int) -> Interval:
        """Return the figure of a group with its percentile interval."""
        return percentile_interval(float(self.values[group]), [self.resampled[:, group]], LEVEL)


def resampled(
    rates: Sequence[Rate], codes: Array, values: Sequence[Floats], least: int, resamples: int, seed: int
) -> list[Drawn]:
    """Return figures of each group over resamples of all rows.

    Args:
        rates: the figures.
        codes: group of each row (rows,).
        values: of each figure its value in each group (groups,).
        least: rows on which a figure has to rest.
        resamples: number of resamples of all rows, the same for every figure.
        seed: of the resamples.
    """
    from scipy.sparse import csr_array

    groups = len(values[0])

    def sums(parts: Sequence[Array]) -> Any:
        """Return a sparse matrix (figures x groups, rows) that sums each figure's rows by group."""
        kept = [np.flatnonzero(part) for part in parts]
        places = [number * groups + codes[some] for number, some in enumerate(kept)]
        data = np.concatenate([part[some] for part, some in zip(parts, kept, strict=True)])
        at = np.concatenate(places), np.concatenate(kept)
        return csr_array((data, at), shape=(len(parts) * groups, len(codes)))

    below = sums([rate.counted.astype(np.float64) for rate in rates])
    above = sums([np.where(rate.counted, rate.values, 0.0) for rate in rates])
    blocks = [ratio((above @ counts.T).T, (below @ counts.T).T) for counts in counts_drawn(len(codes), resamples, seed)]
    drawn = np.concatenate(blocks).reshape(resamples, len(rates), groups)
    enough = below.sum(axis=1).reshape(len(rates), groups) >= least
    return [
        Drawn(rate, np.where(many, value, np.nan), np.where(many, drawn[:, number], np.nan))
        for number, (rate, value, many) in enumerate(zip(rates, values, enough, strict=True))
    ]


def gap_of(figures: Sequence[Drawn], names: Sequence[str], *, ratios: bool = False) -> Gap | None:
    """Return the widest gap between two groups in any of some figures; None where no two groups have one.

    Args:
        figures: that are compared.
        names: of the groups.
        ratios: whether the ratio is told too.
    """
    first, second = np.triu_indices(len(names), 1)
    differences = [figure.values[first] - figure.values[second] for figure in figures]
    widest = [np.nanmax(np.abs(some)) if not np.isnan(some).all() else -1.0 for some in differences]
    if not widest or max(widest) < 0:
        return None
    which = int(np.argmax(widest))
    pair = int(np.nanargmax(np.abs(differences[which])))
    high, low = int(first[pair]), int(second[pair])
    if differences[which][pair] < 0:
        high, low = low, high
    drawn = (figure.resampled[:, first] - figure.resampled[:, second] for figure in figures)
    found = simultaneous(differences, drawn, which, pair)
    if differences[which][pair] < 0:
        found = Interval(-found.value, -found.high, -found.low)
    figure = figures[which]
    told = _ratio(figures, which, pair, first, second) if ratios else None
    return Gap(figure.rate.name, figure.rate.label, names[high], names[low], found, told)


def _ratio(figures: Sequence[Drawn], which: int, pair: int, first: Array, second: Array) -> Interval:
    """Return the lesser of two groups' figures over the greater one."""
    less = [figure.values[first] <= figure.values[second] for figure in figures]
    ordered = [(np.where(some, first, second), np.where(some, second, first)) for some in less]
    pairs = list(zip(figures, ordered, strict=True))
    values = [ratio(figure.values[low], figure.values[high]) for figure, (low, high) in pairs]
    drawn = (ratio(figure.resampled[:, low], figure.resampled[:, high]) for figure, (low, high) in pairs)
    found = simultaneous(values, drawn, which, pair)
    return Interval(found.value, max(found.low, 0.0) if not math.isnan(found.low) else math.nan, found.high)


def simultaneous(values: Sequence[Floats], drawn: Iterable[Floats], which: int, at: int) -> Interval:
    """Return one of many values with an interval that holds for all of them at once.

    v ± c s(v), with s the standard deviation over resamples and c the 95 % quantile of the largest |v* - v| / s(v) of
    all values in a resample (Romano and Wolf 2005): which of them is shown may have been chosen by looking at them.

    Args:
        values: vectors (values,).
        drawn: of each vector its resamples (resamples, values).
        which: vector that is shown.
        at: value in it.
    """
    value = float(values[which][at])
    if math.isnan(value):
        return NONE
    largest: Floats = np.zeros(1)
    spread = math.nan
    for number, (some, resamples) in enumerate(zip(values, drawn, strict=True)):
        known = (~np.isnan(resamples)).sum(0) * 2 >= len(resamples)
        known &= ~np.isnan(some)
        if not known.any():
            continue
        deviations = np.full(len(some), np.nan)
        deviations[known] = np.nanstd(resamples[:, known], axis=0, ddof=1)
        if number == which:
            spread = float(deviations[at])
        moved = known & (deviations > 0)
        off = np.abs(resamples[:, moved] - some[moved]) / deviations[moved]
        largest = np.fmax(largest, np.fmax.reduce(off, axis=1, initial=0.0))
    if math.isnan(spread):
        return Interval(value, math.nan, math.nan)
    reach = float(np.quantile(largest, LEVEL)) * spread
    return Interval(value, value - reach, value + reach)


def worst_of(figure: Drawn, *, greater_is_better: bool) -> tuple[int, Interval] | None:
    """Return the group with the worst figure, and the figure; None where no group has one."""
    if np.isnan(figure.values).all():
        return None
    at = int(np.nanargmin(figure.values) if greater_is_better else np.nanargmax(figure.values))
    return at, simultaneous([figure.values], [figure.resampled], 0, at)
