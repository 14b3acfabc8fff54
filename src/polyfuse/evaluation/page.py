"""A Report as HTML: one page that loads nothing, or the part of it that a notebook shows."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from polyfuse.evaluation.report import Confusion, Report, interval_text, metric_called, number_text
from polyfuse.metrics.bootstrap import Interval

_STYLE = """
.pf { --ink: #1c2733; --soft: #5b6b7b; --line: #d8e0e8; --paper: #ffffff; --mark: #1f6feb; --base: #b26a00;
  color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 0 auto; padding: 1.5rem; }
@media (prefers-color-scheme: dark) { .pf { --ink: #e4eaf0; --soft: #9aa9b8; --line: #33414f; --paper: #12181f;
  --mark: #6cb0ff; --base: #f0b45a; } }
.pf h1 { font-size: 1.5rem; margin: 0 0 .25rem; } .pf h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.pf h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; } .pf section { border-top: 2px solid var(--line); margin: 2rem 0; }
.pf p { color: var(--soft); margin: .25rem 0 1rem; }
.pf table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.pf th, .pf td { text-align: right; padding: .4rem .8rem; border-bottom: 1px solid var(--line); }
.pf th:first-child { text-align: left; font-weight: 600; } .pf thead th { color: var(--soft); font-weight: 500; }
.pf small { color: var(--soft); font-weight: 400; }
.pf .scroll { overflow-x: auto; } .pf svg { max-width: 100%; height: auto; display: block; }
.pf svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } .pf svg .soft { fill: var(--soft); }
""".strip()


def page(report: Report) -> str:
    """Return the whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Report: {escape(report.target)}</title>\n"
        "<style>body { margin: 0; background: #fff; } @media (prefers-color-scheme: dark) "
        "{ body { background: #12181f; } }</style>\n"
        f"</head>\n<body>\n{fragment(report)}\n</body>\n</html>\n"
    )


def fragment(report: Report) -> str:
    """Return the content of the page, with its style, in one element."""
    names = ", ".join(f"<em>{escape(part.target)}</em>" for part in report.parts)
    parts = [
        f"<style>{_STYLE}</style>",
        f"<h1>{names or _title(report)}</h1>",
        f"<p>{report.rows:,} rows. Intervals: {100 * report.level:g} % of {report.resamples:,} bootstrap resamples of "
        "these rows. The prior answers every row with what the training rows had.</p>",
        _metrics(report),
        *_details(report, "h2"),
    ]
    for part in report.parts:
        heading = f"<h2>{_title(part)}</h2><p>{part.rows:,} of {report.rows:,} rows have it.</p>"
        parts += ["<section>", heading, _metrics(part), *_details(part, "h3"), "</section>"]
    if report.present:
        parts += ["<h2>Rows in which each modality is present</h2>", _shares(report.present)]
    return f'<div class="pf">{"".join(parts)}</div>'


def _title(report: Report) -> str:
    return f"{escape(report.task.capitalize())} of <em>{escape(report.target)}</em>"


def _details(report: Report, heading: str) -> list[str]:
    """Return what is drawn of one target, under headings of a level."""
    parts = []
    if report.confusion is not None:
        parts += [
            f"<{heading}>What was answered for each true label</{heading}>",
            f'<div class="scroll">{_heat(report.confusion)}</div>',
        ]
    points = [(a, b) for a, b in report.points if math.isfinite(a) and math.isfinite(b)]
    if points:
        note = f" ({len(points):,} of {report.rows:,} rows)" if len(points) < report.rows else ""
        parts += [f"<{heading}>Predicted against true values{note}</{heading}>", _scatter(points)]
    return parts


def _metrics(report: Report) -> str:
    rows = []
    for name, at in report.own.items():
        metric, base = metric_called(name), report.baseline.get(name, math.nan)
        better = "higher is better" if metric.greater_is_better else "lower is better"
        cells = (f"<strong>{number_text(at.value)}</strong>", interval_text(at), number_text(base), _dots(at, base))
        rows.append(
            f'<tr><th scope="row">{escape(metric.label)} <small>{better}</small></th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("Metric", "Value", f"{100 * report.level:g} % interval", "Prior", "Value and prior")
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _dots(at: Interval, base: float) -> str:
    """Draw a value with its interval, and the prior as a ring, on a line from 0 to 1 or to the greatest of them."""
    known_ones = [x for x in (at.value, at.low, at.high, base) if not math.isnan(x)]
    if math.isnan(at.value):
        return ""
    least, most = min(0.0, *known_ones), max(1.0, *known_ones)

    def x(value: float) -> float:
        return 6 + 148 * (value - least) / (most - least)

    drawn = ['<line x1="6" x2="154" y1="10" y2="10" stroke="var(--line)"/>']
    if not math.isnan(at.low):
        drawn.append(
            f'<line x1="{x(at.low):.1f}" x2="{x(at.high):.1f}" y1="10" y2="10" stroke="var(--mark)" stroke-width="4"/>'
        )
    if not math.isnan(base):
        drawn.append(f'<circle cx="{x(base):.1f}" cy="10" r="4" fill="none" stroke="var(--base)" stroke-width="2"/>')
    drawn.append(f'<circle cx="{x(at.value):.1f}" cy="10" r="5" fill="var(--mark)"/>')
    said = f"{number_text(at.value)} (dot), prior {number_text(base)} (ring), on a line from {least:.3g} to {most:.3g}"
    return _svg(160, 20, said, "".join(drawn))


def _heat(confusion: Confusion) -> str:
    """Draw a confusion matrix: each cell darker with its share of the true label's rows."""
    names, counts = confusion.names, np.asarray(confusion.counts)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    cell = 44 if len(names) <= 12 else 30
    left = 24 + 7 * min(16, max(len(name) for name in names)) + 8
    top = 40 if all(len(name) <= 4 for name in names) else 30 + 6 * min(16, max(len(name) for name in names))
    drawn = [f'<text x="{left + cell * len(names) / 2:.0f}" y="14" text-anchor="middle" class="soft">answered</text>']
    drawn.append(
        f'<text transform="translate(12 {top + cell * len(names) / 2:.0f}) rotate(-90)" text-anchor="middle"'
        ' class="soft">true</text>'
    )
    for i, name in enumerate(names):
        short, middle = escape(name if len(name) <= 16 else f"{name[:8]}…{name[-7:]}"), cell * i + cell / 2
        turn = "" if top == 40 else " rotate(-45)"
        anchor = "middle" if top == 40 else "start"
        drawn.append(f'<text x="{left - 8}" y="{top + middle + 4:.0f}" text-anchor="end">{short}</text>')
        drawn.append(
            f'<text transform="translate({left + middle:.0f} {top - 8}){turn}" text-anchor="{anchor}">{short}</text>'
        )
        for j, other in enumerate(names):
            share = shares[i, j]
            drawn.append(
                f"<g><title>{escape(name)} answered as {escape(other)}: {counts[i, j]} ({share:.0%})</title>"
                f'<rect x="{left + cell * j}" y="{top + cell * i}" width="{cell - 1}" height="{cell - 1}" '
                f'fill="var(--mark)" fill-opacity="{0.05 + 0.85 * share:.3f}"/>'
            )
            if counts[i, j]:
                fill = ' style="fill: var(--paper)"' if share > 0.7 else ""
                drawn.append(
                    f'<text x="{left + cell * j + cell / 2:.0f}" y="{top + cell * i + cell / 2 + 4:.0f}" '
                    f'text-anchor="middle"{fill}>{counts[i, j]}</text>'
                )
            drawn.append("</g>")
    width, height = left + cell * len(names) + (0 if top == 40 else 70), top + cell * len(names) + 4
    said = f"Confusion matrix of {len(names)} labels, {int(np.trace(counts))} of {counts.sum()} rows on the diagonal"
    return _svg(width, height, said, "".join(drawn))


def _scatter(points: list[tuple[float, float]]) -> str:
    """Draw predicted over true values with the line on which they agree."""
    least, most = min(min(pair) for pair in points), max(max(pair) for pair in points)
    span = (most - least) or 1.0

    def at(value: float) -> float:
        return 330 * (value - least) / span

    dots = "".join(
        f'<circle cx="{60 + at(true):.1f}" cy="{345 - at(predicted):.1f}" r="3.5"/>' for true, predicted in points
    )
    labels = "".join(
        f'<text x="{60 + at(v):.0f}" y="368" text-anchor="{"start" if v == least else "end"}">{v:.4g}</text>'
        f'<text x="52" y="{349 - at(v):.0f}" text-anchor="end">{v:.4g}</text>'
        for v in dict.fromkeys((least, most))
    )
    drawn = (
        '<rect x="60" y="15" width="330" height="330" fill="none" stroke="var(--line)"/>'
        '<line x1="60" y1="345" x2="390" y2="15" stroke="var(--base)" stroke-dasharray="5 4"/>'
        f'<g fill="var(--mark)" fill-opacity="0.45">{dots}</g>{labels}'
        '<text x="225" y="388" text-anchor="middle" class="soft">true</text>'
        '<text transform="translate(16 180) rotate(-90)" text-anchor="middle" class="soft">predicted</text>'
    )
    return _svg(420, 395, f"Predicted over true values, {len(points)} rows", drawn)


def _shares(present: dict[str, float]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{share:.1%}</td><td><svg width="160" height="12" '
        f'aria-hidden="true"><rect width="160" height="12" fill="var(--line)"/>'
        f'<rect width="{160 * share:.1f}" height="12" fill="var(--mark)"/></svg></td></tr>'
        for name, share in present.items()
    )
    heads = '<th scope="col">Modality</th><th scope="col">Share</th><td></td>'
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _svg(width: float, height: float, said: str, drawn: str) -> str:
    """Return a drawing, with what a screen reader says of it."""
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="{said}">{drawn}</svg>'
