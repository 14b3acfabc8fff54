"""What was measured by group, as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from polyfuse.metrics.bootstrap import Interval

FORMAT = 1
_SHOWN = {
    "selection_rate": "selection rate",
    "tpr": "true positive rate",
    "fpr": "false positive rate",
    "fnr": "false negative rate",
    "mean_error": "mean error",
    "mean_prediction": "mean prediction",
}


@dataclass(frozen=True)
class GroupFigures:
    """How a model answers one group.

    Attributes:
        group: its name.
        rows: in it.
        judged: whether there are enough of them; the figures of other groups are left out.
        values: by name, with intervals over resampled rows; nan where a figure rests on too few rows. Classification:
            the metric, "selection_rate", "tpr", "fpr", "fnr". Regression: "mae", "mean_error" (prediction - truth),
            "mean_prediction", in the target's unit.
    """

    group: str
    rows: int
    judged: bool
    values: dict[str, Interval]


@dataclass(frozen=True)
class Gap:
    """The two groups that a figure tells apart most.

    Attributes:
        measure: the figure.
        label: whose rate it is; None for figures of all labels.
        high: group in which it is greatest.
        low: group in which it is least.
        difference: high - low. The two groups (and label, and figure) were chosen for it, so the interval holds for
            all that they were chosen from at once; one that holds 0 says that no gap is proven.
        ratio: low / high in the same two groups, of rates; None of other figures.
    """

    measure: str
    label: str | None
    high: str
    low: str
    difference: Interval
    ratio: Interval | None = None


@dataclass(frozen=True)
class ThresholdMoving:
    """What it costs to narrow a gap by thresholds of each group's own, without another training (Hardt et al. 2016).

    Attributes:
        criterion: "demographic_parity" or "equalized_odds".
        fitted: rows on which the thresholds were chosen.
        measured: other rows, on which all that follows was measured.
        accuracy_before: with the model's own answers.
        accuracy_after: with the thresholds.
        cost: accuracy_before - accuracy_after, in the same rows.
        before: the criterion's gap with the model's own answers; None where fewer than two groups can be judged.
        after: with the thresholds.
    """

    criterion: str
    fitted: int
    measured: int
    accuracy_before: Interval
    accuracy_after: Interval
    cost: Interval
    before: Gap | None
    after: Gap | None


@dataclass(frozen=True)
class ColumnFairness:
    """How a model answers the groups of a column, or of several columns crossed.

    Attributes:
        column: its name; of several "sex & age".
        label: whose rates the groups show: the positive one of two, of more the one with the widest
            `demographic_parity`; None in regression.
        overall: the figures of all rows.
        groups: in the order of their names.
        demographic_parity: gap of the selection rate; in regression of the mean prediction. None where fewer than two
            groups can be judged, as are the next two.
        equalized_odds: the wider of the gaps of the true and the false positive rate; None in regression.
        metric_gap: gap of the metric.
        worst: the group with the worst metric; None where no group can be judged.
        worst_value: its metric, with an interval that holds for all groups at once.
        by_label: of more than one label, each one's differences.
        thresholds: what moving thresholds costs, of two labels.
        notes: what a reader has to know before believing the figures.
    """

    column: str
    label: str | None
    overall: dict[str, Interval]
    groups: list[GroupFigures]
    demographic_parity: Gap | None
    equalized_odds: Gap | None
    metric_gap: Gap | None
    worst: str | None
    worst_value: Interval
    by_label: dict[str, dict[str, float]] = field(default_factory=dict)
    thresholds: list[ThresholdMoving] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class FairnessReport:
    """How a model answers groups of rows.

    Attributes:
        task: what was asked.
        target: name of the column that was asked for.
        rows: number of rows.
        metric: that is compared: accuracy, subset_accuracy of several labels at once, mae of a regression.
        greater_is_better: whether more of it is better.
        least: rows on which a figure has to rest to be judged.
        resamples: of the rows, from which intervals (95 %) come.
        seed: of the resamples, and of the halves on which thresholds are chosen and measured.
        columns: each column; of several also all of them crossed.
    """

    task: str
    target: str
    rows: int
    metric: str
    greater_is_better: bool
    least: int
    resamples: int
    seed: int
    columns: list[ColumnFairness]

    def data(self) -> dict[str, Any]:
        """Return JSON values; undefined numbers are nan."""
        return {"format": FORMAT, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.task} of {self.target!r} on {self.rows} rows, by group"]
        for column in self.columns:
            lines += ["", *_column_lines(column, self.metric)]
        return "\n".join(lines)


def _column_lines(column: ColumnFairness, metric: str) -> list[str]:
    wide = max([24, *(len(group.group) + 2 for group in column.groups)])
    of = f", rates of {column.label!r}" if column.label is not None else ""
    names = list(column.overall)
    lines = [f"{column.column}{of}"]
    lines.append(f"{'':<{wide}}{'rows':>8}  " + "".join(f"{_SHOWN.get(name, name):<24}" for name in names).rstrip())
    whole = GroupFigures("(all)", sum(group.rows for group in column.groups), True, column.overall)
    for group in (*column.groups, whole):
        told = "".join(f"{group.values[name]!s:<24}" for name in names) if group.judged else "too few rows"
        lines.append(f"{group.group:<{wide}}{group.rows:>8}  {told.rstrip()}")
    for name, gap in (
        ("demographic parity", column.demographic_parity),
        ("equalized odds", column.equalized_odds),
        (metric, column.metric_gap),
    ):
        if gap is not None:
            ratio = f", ratio {gap.ratio}" if gap.ratio is not None else ""
            told = f"{gap.difference}{ratio}  {_between(gap)}"
            lines.append(f"{name + ' difference':<{wide + 10}}{told}")
    if column.worst is not None:
        lines.append(f"{'worst ' + metric:<{wide + 10}}{column.worst_value}  {column.worst}")
    for moved in column.thresholds:
        lines.append(f"thresholds by group for {moved.criterion.replace('_', ' ')}, on {moved.measured} other rows:")
        gaps = [gap.difference if gap is not None else "not judged" for gap in (moved.before, moved.after)]
        lines.append(f"  difference {gaps[0]} to {gaps[1]}")
        lines.append(f"  accuracy {moved.accuracy_before} to {moved.accuracy_after}, cost {moved.cost}")
    return lines + [f"note: {note}" for note in column.notes]


def _between(gap: Gap) -> str:
    what = _SHOWN.get(gap.measure, gap.measure)
    return f"({what}{f' of {gap.label}' if gap.label is not None else ''}: {gap.high} over {gap.low})"
