"""Where it is worst."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from polyfuse.evaluation.drawing import bar, between, table
from polyfuse.evaluation.report import in_prose, metric_called, number_text
from polyfuse.evaluation.slices import Slices


def draw(part: Slices, about: dict[str, Any]) -> str:
    """Draw the worst slices beside all other rows."""
    label = metric_called(part.metric).label
    if not part.worst:
        return f"<p>None of the {part.tried:,} kinds of rows that were looked at is answered worse than the rest.</p>"
    how = (
        "They were found on one half of the rows and measured on the other, so that chance is not counted twice."
        if part.apart
        else "There are too few rows to find them on some and measure them on others: take them as hints."
    )
    ends = [x for one in part.worst for x in (one.gap.value, one.gap.low, one.gap.high) if math.isfinite(x)]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    rows = [
        [
            escape(one.what),
            bar(one.gap, least, most),
            between(one.gap),
            number_text(one.value.value),
            number_text(one.rest.value),
            f"{one.rows:,}",
        ]
        for one in part.worst
    ]
    return (
        "<p>The kinds of rows (by category, size, length, what is absent, and pairs of these) with the worst"
        f" {escape(in_prose(label))}, of {part.tried:,} with at least {part.least} rows. {how} Where the interval holds"
        " 0 (the upright mark), the difference may be chance.</p>"
        + table(["Rows where", "Worse by", "Interval", label, "All others", "Rows"], rows, "The worst slices")
    )
