"""A DriftReport as one page that loads nothing: the verdict first, then all that was compared, the strongest first."""

from __future__ import annotations

import math
from html import escape

from polyfuse.drift.report import Bars, DriftReport, Performance, Shift, p_text
from polyfuse.evaluation.drawing import bar, between, short, svg, table
from polyfuse.evaluation.page import framed
from polyfuse.evaluation.report import number_text
from polyfuse.metrics.bootstrap import Interval

_KINDS = {
    "column": "Columns",
    "modality": "What encoders see",
    "prediction": "What the model answers",
    "answer": "What would have been right",
}
_TOLD = {
    "column": "Each column by itself: its values, what is measured of a text, an image or a recording, and missing"
    " cells.",
    "modality": "All of a modality at once: the distance of the Features (MMD, 0 where both samples are alike), and how"
    " well a linear classifier tells new rows from old ones (AUC, 0.5 where it cannot).",
    "prediction": "The answers themselves, and how sure the model is of them.",
    "answer": "The true answers, and how often the model is wrong.",
}


def page(report: DriftReport) -> str:
    """Return the whole page."""
    mark = "Drift was found" if report.found else "No drift was found"
    given = f" of {report.given:,} in the table" if report.given > report.rows else ""
    parts = [
        f"<h1>{mark}</h1>",
        f"<p><strong>{escape(report.verdict)}</strong></p>",
        f"<p>{report.rows:,} new rows{given} beside {report.reference:,} of the reference; the model answers"
        f" <em>{escape(report.target)}</em>. All comparisons share {report.dealings:,} random dealings of the rows to"
        f" the two samples, so that drift is found by chance in {100 * report.alpha:g} % of tables like the reference,"
        " however many comparisons there are.</p>",
        *_performances(report),
    ]
    for kind, heading in _KINDS.items():
        some = [shift for shift in report.shifts if shift.kind == kind]
        if some:
            parts += [f"<h2>{heading}</h2><p>{_TOLD[kind]}</p>", _table(some)]
    drawn = [shift for shift in report.drifted if shift.bars is not None]
    if drawn:
        parts.append("<h2>Before and after</h2><p>Shares of the reference (orange) and of the new rows (blue).</p>")
        parts += [f"<h3>{escape(shift.title)}</h3>{bars_drawn(shift.bars)}" for shift in drawn if shift.bars]
    if report.left_out:
        parts.append("<h2>What was not compared</h2>")
        parts += [f"<p><strong>{escape(name)}</strong>: {escape(why)}.</p>" for name, why in report.left_out.items()]
    return framed(f"Drift: {report.target}", "".join(parts))


def _table(shifts: list[Shift]) -> str:
    rows = [
        [
            escape(shift.title) + (" <small>drifted</small>" if shift.found else ""),
            f"<strong>{number_text(shift.effect)}</strong>",
            _strength(shift),
            escape(shift.unit) + ("" if shift.test in shift.unit else f" <small>{escape(shift.test)}</small>"),
            p_text(shift.adjusted),
            p_text(shift.p),
            f'<span style="display: inline-block; min-width: 9rem">{escape(shift.note)}</span>',
        ]
        for shift in shifts
    ]
    heads = ["", "Effect", "", "in", "p, corrected", "p, alone", "Before → after"]
    return table(heads, rows, "Comparisons")


def _strength(shift: Shift) -> str:
    """Draw an effect that lies between 0 and 1; of an AUC, how far it is from chance."""
    share = 2 * shift.effect - 1 if shift.unit == "AUC" else abs(shift.effect)
    if shift.test == "rise" or not math.isfinite(share):
        return ""
    width, fill = 80 * min(max(share, 0.0), 1.0), "var(--mark)" if shift.found else "var(--soft)"
    return (
        '<svg width="80" height="10" viewBox="0 0 80 10" style="max-width: none" aria-hidden="true">'
        '<rect width="80" height="10" fill="var(--line)"/>'
        f'<rect width="{width:.1f}" height="10" fill="{fill}"/></svg>'
    )


def _performances(report: DriftReport) -> list[str]:
    if not report.performance:
        return []
    parts = ["<h2>How good the answers are</h2>"]
    for each in report.performance:
        lines = {"before, on the reference": each.before}
        if each.expected is not None:
            lines["expected now, without answers"] = each.expected
        if each.measured is not None:
            lines["measured now"] = each.measured
        parts += [_performance(each, lines), f"<p>{escape(each.assumes)}</p>"]
    return parts


def _performance(each: Performance, lines: dict[str, Interval]) -> str:
    ends = [x for at in lines.values() for x in (at.value, at.low, at.high) if math.isfinite(x)]
    most = 1.0 if each.metric != "mae" else max([*ends, 1e-12])
    rows = [[name, number_text(at.value), between(at), bar(at, 0.0, most)] for name, at in lines.items()]
    heads = [f"{each.metric} of {each.target}", "Value", "95 % interval", f"From 0 to {most:.3g}"]
    return table(heads, rows, heads[0])


def bars_drawn(bars: Bars) -> str:
    """Draw two samples as pairs of bars."""
    most = max([*bars.before, *bars.after, 1e-12])
    drawn = []
    for i, (name, before, after) in enumerate(zip(bars.names, bars.before, bars.after, strict=True)):
        y = 4 + 30 * i
        drawn.append(
            f"<g><title>{escape(name)}: {before:.1%} before, {after:.1%} after</title>"
            f'<text x="172" y="{y + 17}" text-anchor="end">{escape(short(name, 24))}</text>'
            f'<rect x="180" y="{y}" width="{260 * before / most:.1f}" height="11" fill="var(--base)"/>'
            f'<rect x="180" y="{y + 12}" width="{260 * after / most:.1f}" height="11" fill="var(--mark)"/>'
            f'<text x="{184 + 260 * max(before, after) / most:.1f}" y="{y + 16}" class="soft">'
            f"{before:.0%} → {after:.0%}</text></g>"
        )
    said = f"Shares before and after of {len(bars.names)} values"
    return svg(540, 8 + 30 * len(bars.names), said, "".join(drawn))
