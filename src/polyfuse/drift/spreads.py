"""How samples are spread, as words and as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from polyfuse.drift.report import Bars
from polyfuse.metrics.metric import Array

_BINS = 12
_BARS = 8
_MISSING = -1
_NEW, _OTHERS = "(not known from training)", "(rare ones)"


def number_note(before: Array, after: Array) -> str:
    """Say how the median moved, and that of the middle half."""
    ends = [np.nanquantile(some, [0.25, 0.5, 0.75]) for some in (before, after)]
    told = [f"{middle:.3g} ({low:.3g} to {high:.3g})" for low, middle, high in ends]
    return f"{told[0]} → {told[1]}"


def number_bars(before: Array, after: Array) -> Bars:
    """Return shares of both samples in bins of equal width, what lies beyond 98 % of all rows in the outer ones."""
    some = [values[~np.isnan(values)] for values in (before, after)]
    low, high = np.quantile(np.concatenate(some), [0.01, 0.99])
    distinct = np.unique(np.concatenate(some))
    if len(distinct) <= _BARS:
        names = [f"{value:g}" for value in distinct]
        shares = [[float(np.mean(values == value)) for value in distinct] for values in some]
        return Bars(names, *shares)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    counts = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values) for values in some]
    names = [f"{left:.4g} to {right:.4g}" for left, right in pairwise(edges.tolist())]
    return Bars(names, *(count.tolist() for count in counts))


def mark_bars(names: Sequence[str], before: Array, after: Array) -> Bars:
    """Return the shares of rows that have each label, those that changed most."""
    order = np.argsort(-np.abs(after - before), kind="stable")[:_BARS]
    return Bars([names[i] for i in order], before[order].tolist(), after[order].tolist())


@dataclass(frozen=True)
class Spread:
    """How two samples are spread over levels.

    Attributes:
        variation: half the sum of the differences of shares, in [0, 1].
        note: the level that moved most, and the share of new rows with one that is not known from training.
        bars: of the levels that moved most.
    """

    variation: float
    note: str
    bars: Bars

    @classmethod
    def of(cls, before: Array, after: Array, names: Mapping[int, str]) -> Spread:
        """Return that of codes (rows,), those below 0 left out.

        Args:
            before: of the reference.
            after: of the new rows.
            names: of the codes; "" of one that is not known from training.
        """
        some = [codes[codes > _MISSING] for codes in (before, after)]
        levels = np.unique(np.concatenate(some))
        shares = [_shares(codes, levels) for codes in some]
        moved = shares[1] - shares[0]
        called = [names.get(int(level), _OTHERS) or _NEW for level in levels]
        joined: dict[str, Array] = {}
        for name, old, new in zip(called, *shares, strict=True):
            joined[name] = joined.get(name, np.zeros(2)) + np.array([old, new])
        order = sorted(joined, key=lambda name: -abs(joined[name][1] - joined[name][0]))[:_BARS]
        notes = [f"{name} {joined[name][0]:.1%} → {joined[name][1]:.1%}" for name in order[:1]]
        if _NEW in joined and joined[_NEW][1] > 0 and _NEW not in order[:1]:
            notes.append(f"{joined[_NEW][1]:.1%} are not known from training")
        bars = Bars(order, *([float(joined[name][i]) for name in order] for i in range(2)))
        return cls(float(np.abs(moved).sum() / 2), "; ".join(notes), bars)


def _shares(codes: Array, levels: Array) -> Array:
    counts = np.bincount(np.searchsorted(levels, codes), minlength=len(levels))
    return np.asarray(counts / max(len(codes), 1))
