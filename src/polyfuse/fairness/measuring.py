"""What a model answers group by group, through fairlearn's MetricFrame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from polyfuse.core.errors import InputError, import_extra
from polyfuse.data.groups import Grouping
from polyfuse.data.schema import Target
from polyfuse.fairness.report import ColumnFairness, FairnessReport, GroupFigures
from polyfuse.fairness.resampling import NONE, Drawn, Rate, gap_of, resampled, worst_of
from polyfuse.fairness.thresholds import CRITERIA, Unmovable, moved
from polyfuse.metrics.metric import Array, Floats
from polyfuse.metrics.multilabel import THRESHOLD

LEAST = 20
_METRICS = {"classification": "accuracy", "multilabel": "subset_accuracy", "regression": "mae"}
_RATES = ("selection_rate", "tpr", "fpr", "fnr")


@dataclass(frozen=True)
class _Figure:
    """A figure of any rows: as a mean, and as fairlearn computes it from (y_true, y_pred)."""

    rate: Rate
    function: Callable[[Array, Array], float]
    y_true: Array
    y_pred: Array


@dataclass(frozen=True)
class _Groups:
    """The groups of one column, or of several crossed."""

    column: str
    names: tuple[str, ...]
    codes: Array


def measure(
    y_true: Array,
    y_score: Array,
    target: Target,
    groups: Mapping[str, pd.Series],
    *,
    positive: Any = None,
    least: int = LEAST,
    resamples: int = 1000,
    seed: int = 0,
) -> FairnessReport:
    """Compare how a model answers the groups of each column, and of all columns crossed.

    Numbers of more than five distinct values are cut at their quartiles, and missing values are a group of their own.
    Rates of two labels are those of the positive one; of more, each label stands against the rest, and the widest gap
    is shown. Gaps are differences between the two groups that lie furthest apart (Agarwal et al. 2018 for demographic
    parity and equalized odds). Of two labels, thresholds of each group's own are tried too (Hardt et al. 2016).

    Args:
        y_true: codes (rows,), 0/1 (rows, labels) of a multilabel task, or numbers (rows,).
        y_score: probabilities (rows, labels), or numbers (rows,).
        target: what was asked.
        groups: by column, the value of each row, in the order of y_true.
        positive: the positive label of two; the second one when left out.
        least: rows on which a figure has to rest to be judged: rows of the group, of a true positive rate those of the
            group that are positive, and so on.
        resamples: of all rows, for intervals of 95 %.
        seed: of the resamples and of the halves for thresholds.

    Raises:
        InputError: several targets, no column, one of another length or with more than 20 groups, or a label that does
            not exist.
        MissingExtra: fairlearn is not installed; it comes with the extra `report`.
    """
    _check(y_true, y_score, target, groups, positive, least)
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    import_extra("fairlearn.metrics", "report", "measuring fairness")
    figures = _figures(y_true, y_score, target, positive)
    divided = []
    for name, values in groups.items():
        grouping = Grouping.of(name, values)
        divided.append(_Groups(name, grouping.names, grouping.codes(values)))
    if len(divided) > 1:
        divided.append(_crossed(divided))
    whole = _Groups("", ("(all)",), np.zeros(len(y_true), dtype=np.int64))
    rates = [figure.rate for figure in figures]
    all_rows = resampled(rates, whole.codes, _by_group(figures, whole), least, resamples, seed)
    columns = []
    for some in divided:
        found = _column(figures, some, all_rows, target, least, resamples, seed)
        if len(target.levels) == 2 and target.task == "classification":
            code = _positive(target, positive)
            both = y_true == code, y_score.argmax(axis=1) == code
            found = _with_thresholds(found, some, *both, y_score[:, code], least, resamples, seed)
        columns.append(found)
    metric = _METRICS[target.task]
    better = target.task != "regression"
    return FairnessReport(target.task, target.name, len(y_true), metric, better, least, resamples, seed, columns)


def _check(
    y_true: Array, y_score: Array, target: Target, groups: Mapping[str, pd.Series], positive: Any, least: int
) -> None:
    if target.parts:
        raise InputError("fairness: the model answers several targets; fit a model of one")
    if len(y_true) != len(y_score):
        raise InputError(f"y_true has {len(y_true)} rows, y_score {len(y_score)}; give scores of the same rows")
    if not len(groups):
        raise InputError("fairness: no column is named; name at least one whose values divide the rows into groups")
    for name, values in groups.items():
        if len(values) != len(y_true):
            raise InputError(f"fairness: {name!r} has {len(values)} values for {len(y_true)} rows; give one for each")
    if least < 2:
        raise InputError(f"fairness: least is {least}: a figure has to rest on 2 rows at least")
    if positive is not None and (len(target.levels) != 2 or positive not in target.levels):
        raise InputError(f"fairness: {positive!r} is not one of two labels; the labels are {target.levels[:20]}")


def _positive(target: Target, positive: Any) -> int:
    return 1 if positive is None else target.levels.index(positive)


def _figures(y_true: Array, y_score: Array, target: Target, positive: Any) -> list[_Figure]:
    """Return all figures of a task, the metric first."""
    from fairlearn.metrics import mean_prediction
    from sklearn.metrics import accuracy_score, mean_absolute_error

    every = np.ones(len(y_true), dtype=bool)
    if target.task == "regression":
        wrong = y_score - y_true
        return [
            _Figure(Rate("mae", np.abs(wrong), every), mean_absolute_error, y_true, y_score),
            _Figure(Rate("mean_error", wrong, every), _mean_error, y_true, y_score),
            _Figure(Rate("mean_prediction", y_score, every), mean_prediction, y_true, y_score),
        ]
    if target.task == "multilabel":
        true, decided = y_true > 0, y_score >= THRESHOLD
        right = (true == decided).all(axis=1)
        labels = range(len(target.levels))
    else:
        answers = y_score.argmax(axis=1)
        codes = np.arange(len(target.levels))
        true, decided = y_true[:, None] == codes, answers[:, None] == codes
        right = answers == y_true
        labels = range(len(codes)) if len(codes) != 2 else range(c := _positive(target, positive), c + 1)
    figures = [_Figure(Rate(_METRICS[target.task], right, every), accuracy_score, every, right)]
    for code in labels:
        figures += _rates(true[:, code], decided[:, code], str(target.levels[code]))
    return figures


def _mean_error(y_true: Array, y_pred: Array) -> float:
    return float(np.mean(np.asarray(y_pred) - np.asarray(y_true)))


def _rates(true: Array, decided: Array, label: str) -> list[_Figure]:
    """Return the rates of one label."""
    from fairlearn import metrics

    every = np.ones(len(true), dtype=bool)
    functions = (
        metrics.selection_rate,
        metrics.true_positive_rate,
        metrics.false_positive_rate,
        metrics.false_negative_rate,
    )
    rows = ((decided, every), (decided, true), (decided, ~true), (~decided, true))
    y_true, y_pred = true.astype(int), decided.astype(int)
    return [
        _Figure(Rate(name, values, counted, label), function, y_true, y_pred)
        for name, function, (values, counted) in zip(_RATES, functions, rows, strict=True)
    ]


def _by_group(figures: list[_Figure], groups: _Groups) -> list[Floats]:
    """Return of each figure its value in each group (groups,), by fairlearn; nan where a group has no row for it."""
    from fairlearn.metrics import MetricFrame

    alike: dict[tuple[int, int], dict[str, _Figure]] = {}
    for number, figure in enumerate(figures):  # a frame takes its time, so figures of the same answers share one
        alike.setdefault((id(figure.y_true), id(figure.y_pred)), {})[str(number)] = figure
    values: dict[str, Floats] = {}
    for some in alike.values():
        first = next(iter(some.values()))
        frame = MetricFrame(
            metrics={name: figure.function for name, figure in some.items()},
            y_true=first.y_true,
            y_pred=first.y_pred,
            sensitive_features=pd.Series(groups.codes, name="group"),
        )
        by_group = frame.by_group.reindex(range(len(groups.names)))
        values |= {name: by_group[name].to_numpy(dtype=np.float64) for name in some}
    # fairlearn takes a rate of no rows for 0.
    rows = [np.bincount(groups.codes[figure.rate.counted], minlength=len(groups.names)) for figure in figures]
    return [np.where(some > 0, values[str(number)], np.nan) for number, some in enumerate(rows)]


def _column(
    figures: list[_Figure],
    groups: _Groups,
    all_rows: list[Drawn],
    target: Target,
    least: int,
    resamples: int,
    seed: int,
) -> ColumnFairness:
    """Measure the groups of one column."""
    rates, names = [figure.rate for figure in figures], groups.names
    drawn = resampled(rates, groups.codes, _by_group(figures, groups), least, resamples, seed)
    metric, named = drawn[0], _by_name(drawn)
    selection = named.get("selection_rate") or named["mean_prediction"]
    parity = gap_of(selection, names, ratios=target.task != "regression")
    odds = gap_of([*named["tpr"], *named["fpr"]], names) if "tpr" in named else None
    label = (parity.label if parity is not None else None) or rates[-1].label
    shown = [place for place, rate in enumerate(rates) if rate.label in (None, label)]
    counts = np.bincount(groups.codes, minlength=len(names))
    told = [
        GroupFigures(
            name,
            int(counts[group]),
            bool(counts[group] >= least),
            {rates[place].name: drawn[place].interval(group) for place in shown} if counts[group] >= least else {},
        )
        for group, name in enumerate(names)
    ]
    worst = worst_of(metric, greater_is_better=target.task != "regression")
    return ColumnFairness(
        groups.column,
        label,
        {rates[place].name: all_rows[place].interval(0) for place in shown},
        told,
        parity,
        odds,
        gap_of([metric], names),
        names[worst[0]] if worst is not None else None,
        worst[1] if worst is not None else NONE,
        _by_label(named),
        notes=_notes(told, least),
    )


def _by_name(drawn: list[Drawn]) -> dict[str, list[Drawn]]:
    named: dict[str, list[Drawn]] = {}
    for figure in drawn:
        named.setdefault(figure.rate.name, []).append(figure)
    return named


def _by_label(named: Mapping[str, list[Drawn]]) -> dict[str, dict[str, float]]:
    """Return the differences of each label, where there is more than one."""
    selections = named.get("selection_rate", [])
    if len(selections) < 2:
        return {}

    def widest(*figures: Drawn) -> float:
        known = [figure.values[~np.isnan(figure.values)] for figure in figures]
        return max((float(np.ptp(some)) for some in known if len(some) > 1), default=float("nan"))

    return {
        str(selection.rate.label): {"demographic_parity": widest(selection), "equalized_odds": widest(*rates)}
        for selection, *rates in zip(selections, named["tpr"], named["fpr"], strict=True)
    }


def _notes(groups: list[GroupFigures], least: int) -> list[str]:
    small = [group for group in groups if not group.judged]
    notes = []
    if small:
        named = ", ".join(repr(group.group) for group in small[:8]) + (" and others" if len(small) > 8 else "")
        rows = sum(group.rows for group in small)
        notes.append(f"not judged, for they have less than {least} rows: {named} ({rows} rows)")
    if len(groups) - len(small) < 2:
        notes.append("fewer than two groups can be judged, so there is nothing to compare; give more rows")
    return notes


def _crossed(columns: list[_Groups]) -> _Groups:
    """Return the groups of all columns at once; those that do not occur are left out."""
    every = np.stack([some.codes for some in columns], axis=1)
    kinds, codes = np.unique(every, axis=0, return_inverse=True)
    names = tuple(" & ".join(some.names[code] for some, code in zip(columns, kind, strict=True)) for kind in kinds)
    return _Groups(" & ".join(some.column for some in columns), names, codes.reshape(-1))


def _with_thresholds(
    found: ColumnFairness,
    groups: _Groups,
    true: Array,
    decided: Array,
    scores: Array,
    least: int,
    resamples: int,
    seed: int,
) -> ColumnFairness:
    """Return the same with what moving thresholds costs, or why it cannot be told."""
    judged = np.array([group.judged for group in found.groups])
    if judged.sum() < 2:
        return found
    thresholds, notes = [], list(found.notes)
    for criterion in CRITERIA:
        try:
            of_groups = groups.codes, groups.names, judged
            thresholds.append(moved(true, decided, scores, *of_groups, criterion, least, resamples, seed))
        except Unmovable as reason:
            notes.append(str(reason))
            break
    return replace(found, thresholds=thresholds, notes=notes)
