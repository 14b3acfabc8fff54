"""The report as one page: the verdict first, then a section for each question, each drawing with what it shows."""

from __future__ import annotations

from html import escape
from typing import Any

from polyfuse.reporting.document import ModelReport
from polyfuse.reporting.sections import DRAWN, TITLES
from polyfuse.reporting.verdict import Fact, facts

_STYLE = """
:root { color-scheme: light dark; }
.pf { --ink: #16202a; --soft: #51606e; --line: #d5dde5; --paper: #ffffff; --sheet: #f5f7f9; --mark: #0b62a8;
  --base: #a85800; --third: #0a7a5c; --fourth: #9a3a8a; --fifth: #7a6a00; --good: #0a6b50; --bad: #a63a00; }
@media (prefers-color-scheme: dark) { .pf { --ink: #e6ecf2; --soft: #a3b1bf; --line: #35424f; --paper: #11171d;
  --sheet: #1a222b; --mark: #6cb5f5; --base: #f2a94f; --third: #4fd0a8; --fourth: #e28fd2; --fifth: #e0cf5a;
  --good: #5ed3ac; --bad: #ff9a63; } body { background: #11171d; } }
* { box-sizing: border-box; } body { margin: 0; }
.pf { color: var(--ink); background: var(--paper); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
.pf header, .pf main, .pf footer { max-width: 56rem; margin: 0 auto; padding: 0 1.25rem; }
.pf header { padding-top: 2rem; } .pf footer { padding-bottom: 3rem; color: var(--soft); font-size: .9rem; }
.pf h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
.pf h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .35rem; }
.pf h3 { font-size: 1rem; margin: 1.75rem 0 .35rem; }
.pf p { margin: .35rem 0 .9rem; max-width: 44rem; } .pf .lead, .pf figcaption, .pf small { color: var(--soft); }
.pf section { border-top: 1px solid var(--line); padding: 1.75rem 0 1rem; }
.pf .verdict { background: var(--sheet); border-radius: 12px; padding: 1.25rem 1.25rem .5rem; margin: 1.25rem 0 1rem; }
.pf .verdict .one { font-size: 1.15rem; font-weight: 600; margin: 0 0 1rem; max-width: none; }
.pf dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem;
  margin: 0 0 1rem; }
.pf dl.facts div { border-left: 3px solid var(--mark); padding-left: .75rem; }
.pf dl.facts div.bad { border-color: var(--bad); } .pf dl.facts div.good { border-color: var(--good); }
.pf dt { color: var(--soft); font-size: .85rem; } .pf dd { margin: 0; }
.pf dd b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.pf dd span { color: var(--soft); font-size: .85rem; }
.pf nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .35rem 1rem; padding: 0; margin: 0 0 1.5rem; }
.pf a { color: var(--mark); text-underline-offset: .2em; }
.pf table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
.pf th, .pf td { text-align: right; padding: .4rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: middle; }
.pf th:first-child { text-align: left; font-weight: 600; padding-left: 0; }
.pf thead th { color: var(--soft); font-weight: 500; white-space: nowrap; }
.pf td.text, .pf th.text { text-align: left; }
.pf td:not(.text) { white-space: nowrap; }
.pf .scroll { overflow-x: auto; margin: 0 0 1rem; } .pf .scroll:focus-visible { outline: 2px solid var(--mark); }
.pf .plots { display: flex; flex-wrap: wrap; gap: 1.25rem 1.5rem; }
.pf figure { margin: .75rem 0 1rem; max-width: 100%; } .pf .plots figure { flex: 0 1 264px; }
.pf figcaption { font-size: .9rem; max-width: 38rem; margin-top: .35rem; }
.pf svg, .pf img { max-width: 100%; height: auto; display: block; }
.pf td svg { max-width: none; } .pf th.drawn, .pf td.drawn { text-align: left; width: 174px; }
.pf svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } .pf svg .soft { fill: var(--soft); }
.pf code { background: var(--sheet); padding: .1rem .35rem; border-radius: 4px; font-size: .88em;
  overflow-wrap: anywhere; }
.pf ul.plain { padding-left: 1.1rem; } .pf ul.plain li { margin: .25rem 0; max-width: 44rem; }
.pf .words { line-height: 2; } .pf .words mark { color: inherit; border-radius: 3px; padding: .1rem .15rem; }
.pf .case { border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem .5rem; margin: 1rem 0; }
.pf .case h3 { margin-top: 0; } .pf .case h4 { font-size: .92rem; margin: 1rem 0 .3rem; }
@media print { .pf { font-size: 11pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .pf nav { display: none; } .pf figure, .pf .case,
  .pf table { break-inside: avoid; }
  .pf .scroll { overflow: visible; } }
@media (max-width: 40rem) { .pf { font-size: 15px; } .pf td:not(.text) { white-space: normal; }
  .pf td svg { width: 100px; height: auto; } .pf th.drawn, .pf td.drawn { width: 110px; }
  .pf th, .pf td { padding: .35rem .45rem; }
  .pf h1 { font-size: 1.4rem; } }
""".strip()


def page(report: ModelReport) -> str:
    """Return the whole page."""
    about = report.about
    title = f"{about['task'].capitalize()} of {about['target']}"
    shown = [name for name in report.parts if name in DRAWN]
    sections = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{TITLES[name]}</h2>'
        f"{DRAWN[name](report.parts[name], about)}</section>"
        for name in shown
    )
    links = "".join(f'<li><a href="#{name}">{TITLES[name]}</a></li>' for name in shown)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src"
        ' data:">\n'
        f"<title>Report: {escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f'<body class="pf">\n<header><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(_subtitle(about))}</p>{_verdict(report)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>{sections}{_missing(report)}</main>\n'
        f"<footer><p>{escape(_colophon(about))}</p></footer>\n</body>\n</html>\n"
    )


def _subtitle(about: dict[str, Any]) -> str:
    names, run, table = ", ".join(about["modalities"]), about["run"] or "", about["table"]
    of = f" of {table}" if table else ""
    return f"The model {run} on {about['rows']:,} rows{of}; it reads {names}.".replace("  ", " ")


def _verdict(report: ModelReport) -> str:
    one, rest = facts(report)
    return (
        f'<div class="verdict"><p class="one">{escape(one)}</p><dl class="facts">{"".join(map(_fact, rest))}</dl></div>'
    )


def _fact(fact: Fact) -> str:
    kind = f' class="{fact.kind}"' if fact.kind else ""
    return (
        f"<div{kind}><dt>{escape(fact.what)}</dt><dd><b>{escape(fact.figure)}</b>"
        f"<span>{escape(fact.said)}</span></dd></div>"
    )


def _missing(report: ModelReport) -> str:
    if not report.left_out:
        return ""
    items = "".join(f"<li><b>{TITLES.get(name, name)}</b>: {escape(why)}</li>" for name, why in report.left_out.items())
    return (
        '<section id="missing" aria-labelledby="missing-title"><h2 id="missing-title">What is not in this report</h2>'
        f'<ul class="plain">{items}</ul></section>'
    )


def _colophon(about: dict[str, Any]) -> str:
    left = f", {about['rows_left_out']:,} rows could not be read" if about["rows_left_out"] else ""
    return (
        f"Measured by polyfuse {about['polyfuse']} in {about['seconds']:.0f} s with seed {about['seed']}{left}."
        " Intervals hold 95 % of bootstrap resamples of the rows. Every figure is in report.json."
    )
