"""For whom it fails."""

from __future__ import annotations

from html import escape
from typing import Any

from polyfuse.evaluation.drawing import between, forest, table
from polyfuse.evaluation.report import in_prose, metric_called, number_text
from polyfuse.fairness.report import ColumnFairness, FairnessReport, Gap

_NAMES = {
    "selection_rate": "Answered so",
    "tpr": "Rightly found",
    "fpr": "False alarms",
    "fnr": "Missed",
    "mean_error": "Mean error",
    "mean_prediction": "Mean answer",
}


def draw(part: FairnessReport, about: dict[str, Any]) -> str:
    """Draw each column's groups, the widest gaps, and what closing them by thresholds costs."""
    label = in_prose(metric_called(part.metric).label)
    head = (
        f"<p>The {label} and the answers, group by group. A gap is between the two groups that differ most; where its"
        f" interval holds 0, chance alone may make it. Groups of fewer than {part.least} rows are counted, not judged."
        " Which gap is a wrong is not for figures to say.</p>"
    )
    return head + "".join(_column(column, part.metric) for column in part.columns)


def _column(column: ColumnFairness, metric: str) -> str:
    names = [name for name in column.overall if name != metric]
    heads = [
        "Group",
        "Rows",
        *(_NAMES.get(name, metric_called(name).label if name == metric else name) for name in names),
    ]
    rows = [
        [
            escape(group.group),
            f"{group.rows:,}",
            *(number_text(group.values[name].value) if group.judged else "–" for name in names),
        ]
        for group in column.groups
    ]
    of = f"; the rates are of {escape(column.label)}" if column.label is not None else ""
    parts = [f"<h3>{escape(column.column)}</h3>", table(heads, rows, f"Groups of {column.column}")]
    judged = {group.group: group.values[metric] for group in column.groups if group.judged and metric in group.values}
    if judged:
        parts.append(forest(judged, "Group", metric_called(metric).label))
    gaps = {
        "selected (demographic parity)": column.demographic_parity,
        "right and wrong (equalised odds)": column.equalized_odds,
        metric_called(metric).label: column.metric_gap,
    }
    found = {f"{name}: {_between(gap)}": gap.difference for name, gap in gaps.items() if gap is not None}
    if found:
        parts += [f"<p>The widest gaps{of}.</p>", forest(found, "Gap", "Difference")]
    if column.thresholds:
        parts += [
            "<p>What it would cost to narrow a gap by a threshold for each group, without another training: chosen on"
            " some rows, measured on others.</p>",
            table(
                ["Criterion", "Gap before", "Gap after", "Accuracy lost", "Interval"],
                [
                    [
                        escape(moved.criterion.replace("_", " ")),
                        _difference(moved.before),
                        _difference(moved.after),
                        number_text(moved.cost.value),
                        between(moved.cost),
                    ]
                    for moved in column.thresholds
                ],
                "Thresholds by group",
            ),
        ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in column.notes)
    return "".join(parts) + (f'<ul class="plain">{notes}</ul>' if notes else "")


def _between(gap: Gap) -> str:
    return f"{gap.high} over {gap.low}"


def _difference(gap: Gap | None) -> str:
    return "–" if gap is None else number_text(gap.difference.value)
