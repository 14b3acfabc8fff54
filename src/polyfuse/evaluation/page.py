"""A Report as HTML: one page that loads nothing, or the part of it that a notebook shows."""

from __future__ import annotations

import math
from html import escape

from polyfuse.evaluation.drawing import dots, heat, scatter
from polyfuse.evaluation.report import Report, interval_text, metric_called, number_text

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
    return document(f"Report: {report.target}", fragment(report))


def framed(title: str, inside: str) -> str:
    """Return a page of some content, in the style of a report's."""
    return document(title, f'<div class="pf"><style>{_STYLE}</style>{inside}</div>')


def document(title: str, body: str) -> str:
    """Return a page that loads nothing. body: HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        "<style>body { margin: 0; background: #fff; } @media (prefers-color-scheme: dark) "
        "{ body { background: #12181f; } }</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
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
            f'<div class="scroll">{heat(report.confusion)}</div>',
        ]
    points = [(a, b) for a, b in report.points if math.isfinite(a) and math.isfinite(b)]
    if points:
        note = f" ({len(points):,} of {report.rows:,} rows)" if len(points) < report.rows else ""
        parts += [f"<{heading}>Predicted against true values{note}</{heading}>", scatter(points)]
    return parts


def _metrics(report: Report) -> str:
    rows = []
    for name, at in report.own.items():
        metric, base = metric_called(name), report.baseline.get(name, math.nan)
        better = "higher is better" if metric.greater_is_better else "lower is better"
        cells = (f"<strong>{number_text(at.value)}</strong>", interval_text(at), number_text(base), dots(at, base))
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


def _shares(present: dict[str, float]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{share:.1%}</td><td><svg width="160" height="12" '
        f'aria-hidden="true"><rect width="160" height="12" fill="var(--line)"/>'
        f'<rect width="{160 * share:.1f}" height="12" fill="var(--mark)"/></svg></td></tr>'
        for name, share in present.items()
    )
    heads = '<th scope="col">Modality</th><th scope="col">Share</th><td></td>'
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
