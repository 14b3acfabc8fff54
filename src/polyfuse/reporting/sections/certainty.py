"""How sure it is."""

from __future__ import annotations

from html import escape
from typing import Any

from polyfuse.calibration import Bin, CalibrationReport, ConformalReport
from polyfuse.evaluation.drawing import between, svg, table
from polyfuse.evaluation.report import number_text
from polyfuse.metrics.bootstrap import Interval
from polyfuse.reporting.certainty import Certainty

_GROUPS = 6  # that are shown
_FIGURES = {
    "log_loss": "Log loss (NLL)",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "accuracy": "Accuracy",
}


def draw(part: Certainty, about: dict[str, Any]) -> str:
    """Draw reliability before and after scaling, its figures, and whether sets and intervals hold."""
    several = len(set(part.calibration) | set(part.coverage)) > 1
    parts = []
    for name, report in part.calibration.items():
        parts += [f"<h3>{escape(name)}</h3>" if several else "", _calibration(report)]
    for name, covered in part.coverage.items():
        parts.append(_coverage(covered, f" of {escape(name)}" if several else ""))
    parts += [f"<p>{escape(why)}</p>" for why in part.missing.values()]
    return "".join(parts)


def _calibration(report: CalibrationReport) -> str:
    heads = ["Figure", "Before", "After", "Interval", "Change", "Its interval"]
    rows = [
        [
            label,
            number_text(report.before[key].value),
            f"<b>{number_text(report.after[key].value)}</b>",
            between(report.after[key]),
            number_text(report.change[key].value),
            between(report.change[key]),
        ]
        for key, label in _FIGURES.items()
        if key in report.after
    ]
    scaled = report.method != "none"
    how = (
        f"Its probabilities are scaled ({escape(report.method)}, fitted on {report.fitted_on:,} validation rows, none"
        " of these)."
        if scaled
        else f"Its probabilities stand as they are: {escape(report.why)}."
    )
    plots = [_reliability(report.diagram_after, "after scaling" if scaled else "as they are")]
    if scaled:
        plots.insert(0, _reliability(report.diagram_before, "before scaling"))
    else:
        heads, rows = ["Figure", "Value", "Interval"], [[first, *rest[1:3]] for first, *rest in rows]
    return (
        f"<p>Of the rows that it is 80 % sure of, 80 % should be right. {how}</p>"
        f'<div class="plots">{"".join(plots)}</div>' + table(heads, rows, "Calibration")
    )


def _reliability(bins: list[Bin], when: str) -> str:
    said = (
        f"{when.capitalize()}: each dot is answers of about the same confidence, its bar where their accuracy may lie."
        " On the dotted line the model is as often right as it says; below it, it is too sure."
    )
    return f"<figure>{_diagram(bins, when)}<figcaption>{said}</figcaption></figure>"


def _diagram(bins: list[Bin], when: str) -> str:
    def px(value: float) -> float:
        return 46 + 244 * value

    def py(value: float) -> float:
        return 222 - 210 * value

    most = max([one.count for one in bins], default=1)
    drawn = [
        '<rect x="46" y="12" width="244" height="210" fill="none" stroke="var(--line)"/>'
        '<line x1="46" y1="222" x2="290" y2="12" stroke="var(--soft)" stroke-dasharray="3 4"/>'
    ]
    for one in bins:
        x, at = px(one.confidence), one.accuracy
        drawn.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{py(at.low):.1f}" y2="{py(at.high):.1f}" stroke="var(--mark)"'
            ' stroke-opacity="0.5" stroke-width="3"/>'
            f'<circle cx="{x:.1f}" cy="{py(at.value):.1f}" r="{3 + 2 * one.count / most:.1f}" fill="var(--mark)"/>'
        )
    drawn.append(
        '<text x="46" y="238">0</text><text x="290" y="238" text-anchor="end">1</text>'
        '<text x="41" y="222" text-anchor="end">0</text><text x="41" y="22" text-anchor="end">1</text>'
        '<text x="168" y="252" text-anchor="middle" class="soft">how sure it is</text>'
        '<text transform="translate(12 117) rotate(-90)" text-anchor="middle" class="soft">share that is right</text>'
    )
    return svg(304, 260, f"Reliability diagram {when}, {len(bins)} bins", "".join(drawn))


def _coverage(report: ConformalReport, of: str) -> str:
    sets = report.task == "classification"
    size = "Labels in a set" if sets else "Width"
    rows = [
        [
            f"{at.level:.0%}",
            f"{at.coverage.value:.1%}",
            _percent(at.coverage),
            _percent(at.expected),
            number_text(at.size.value),
        ]
        for at in report.levels
    ]
    what = "sets of labels" if sets else "intervals"
    (middle,) = [at for at in report.levels if at.level == 0.9] or report.levels[:1]
    found = [(f"{by}: {name}", one) for by, groups in middle.groups.items() for name, one in groups.items()]
    worst = sorted(found, key=lambda item: item[1].coverage.value)[:_GROUPS]
    judged = [
        [escape(name), f"{one.rows:,}", f"{one.coverage.value:.1%}", _percent(one.coverage)] for name, one in worst
    ]
    by_group = (
        f"<p>At {middle.level:.0%} the groups with the least: the promise is for all rows together, not for each"
        f" group.</p>{table(['Group', 'Rows', 'Inside', 'Interval'], judged, 'Coverage by group')}"
        if judged
        else ""
    )
    call = "polyfuse predict … --level 0.9"
    return (
        f"<h3>{what.capitalize()} that hold{of}</h3><p>Instead of one answer, <code>{call}</code> gives {what} in which"
        f" the truth is as often as asked for (split conformal prediction, from {report.fitted_on:,} validation rows)."
        f" Here is how often it was, on {report.rows:,} rows; what so few validation rows let expect stands beside.</p>"
        + table(["Asked for", "Inside", "Interval", "To be expected", size], rows, "Coverage")
        + by_group
    )


def _percent(at: Interval) -> str:
    return f"{at.low:.1%} to {at.high:.1%}"
