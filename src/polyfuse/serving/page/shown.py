"""What the page shows of a model and of an answer, as HTML. Every word that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polyfuse.data.schema import Schema, Target
from polyfuse.serving.telling import Explained, Said, Share, Told

_MOST = 8  # bars of one answer

STYLE = """
.pf table { width: 100%; border-collapse: collapse; border: 0; margin: 0.3em 0 0.8em; }
.pf tr, .pf td, .pf th { border: 0; background: none; padding: 0.2em 0.4em 0.2em 0; font-weight: 400; }
.pf th { text-align: left; }
.pf th { width: 30%; max-width: 9em; overflow-wrap: anywhere; }
.pf td.figure { width: 4.5em; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding: 0; }
.pf .track { position: relative; height: 0.7em; border-radius: 0.35em; background: var(--border-color-primary); }
.pf .bar { position: absolute; top: 0; bottom: 0; border-radius: 0.35em; background: var(--color-accent); }
.pf .against { background: var(--error-icon-color, #b91c1c); }
.pf .said { font-size: 1.7em; font-weight: 600; line-height: 1.2; margin: 0.1em 0 0.3em; overflow-wrap: anywhere; }
.pf .said small { font-size: 0.6em; font-weight: 400; opacity: 0.8; margin-left: 0.5em; }
.pf h2 { font-size: 1em; font-weight: 600; margin: 0.2em 0; opacity: 0.8; }
.pf table + h2, .pf p + h2 { margin-top: 1.2em; }
.pf a { color: inherit; text-decoration: underline; }
.pf p { margin: 0.3em 0; }
.pf .quiet { opacity: 0.8; font-size: 0.92em; }
.pf .warning { border-left: 4px solid var(--error-icon-color, #b91c1c); padding: 0.3em 0.7em; margin: 0.6em 0; }
"""


def card(schema: Schema, metrics: Mapping[str, Any]) -> str:
    """Return what a model is: its title, what it is asked, how good it was on validation rows."""
    targets = schema.target.each()
    asked = "; ".join(f"{escape(target.name)}: {escape(_task(target))}" for target in targets)
    rows = metrics.get("training", {}).get("rows")
    learned = f" Learned from {rows:,} rows." if rows else ""
    reads = ", ".join(f"{escape(name)}" for name in schema.modalities)
    return (
        f'<div class="pf"><h1>{escape(schema.target.name)}</h1>'
        f'<p class="quiet">{asked}. It reads {reads}; what is left empty is absent.{learned}{_measured(metrics)}'
        ' <a href="model">The model</a>, <a href="docs">the API</a>.</p></div>'
    )


def heading(modality: str) -> str:
    """Return what stands above the fields of a modality that is not named as its column."""
    return f'<div class="pf"><h2>{escape(modality)}</h2></div>'


def nothing_yet() -> str:
    """Return what stands in the place of an answer before there is one."""
    return '<div class="pf"><p class="quiet">The answer will stand here.</p></div>'


def trouble(message: str) -> str:
    """Return what went wrong, instead of an answer."""
    return f'<div class="pf" role="alert"><p class="warning">{_lines(message)}</p></div>'


def answered(schema: Schema, found: Explained, within: Told | None, level: float) -> str:
    """Return an answer, its confidence, and what each modality gave to it.

    Args:
        schema: of the model.
        found: the answer and the shares of its modalities.
        within: the same answer with sets and intervals, where there are any.
        level: of those.
    """
    told = found.told if within is None else within
    parts = [_target(target, told.said[target.name], level) for target in schema.target.each()]
    parts.append(_suspicion(told))
    if not told.present:
        parts.append('<p class="warning">Nothing was given: this is what is usual in the training rows.</p>')
    else:
        parts += [_shares(share, schema, told.present) for share in _worth(found.shares)]
    return f'<div class="pf" role="status">{"".join(parts)}</div>'


def _task(target: Target) -> str:
    if target.task == "regression":
        return "a number"
    return f"{'some' if target.task == 'multilabel' else 'one'} of {len(target.levels)} labels"


def _measured(metrics: Mapping[str, Any]) -> str:
    """Say the first metric on the validation rows."""
    found = metrics.get("validation", {}).get("metrics", {})
    for name, figure in found.items():
        if figure.get("value") is not None:
            between = ""
            if figure.get("low") is not None and figure.get("high") is not None:
                between = f" ({figure['low']:.3g} to {figure['high']:.3g})"
            return f" On its validation rows: {escape(name)} {figure['value']:.3g}{between}."
    return ""


def _target(target: Target, said: Said, level: float) -> str:
    parts = [f"<h2>{escape(target.name)}</h2>"]
    if target.task == "regression":
        parts.append(f'<p class="said">{said.answer:.6g}</p>')
        if said.low is not None and said.high is not None:
            between = f"between {said.low:.6g} and {said.high:.6g}"
            parts.append(f'<p class="quiet">In {level:.0%} of such rows the truth is {between}.</p>')
        return "".join(parts)
    proba = said.probabilities or {}
    if isinstance(said.answer, list):
        parts.append(f'<p class="said">{escape(", ".join(map(str, said.answer))) or "none of them"}</p>')
    else:
        sure = proba.get(_name(said.answer), 0.0)
        parts.append(f'<p class="said">{escape(str(said.answer))}<small>{sure:.1%}</small></p>')
    shown = sorted(proba.items(), key=lambda pair: -pair[1])[:_MOST]
    parts.append(_table([(name, 0.0, share, f"{share:.1%}") for name, share in shown], "Probabilities"))
    if len(proba) > len(shown):
        parts.append(f'<p class="quiet">and {len(proba) - len(shown)} more labels</p>')
    if said.labels is not None:
        some = ", ".join(escape(str(label)) for label in said.labels) or "none of the labels"
        parts.append(f'<p class="quiet">In {level:.0%} of such rows the truth is among: <b>{some}</b>.</p>')
    return "".join(parts)


def _suspicion(told: Told) -> str:
    if told.suspicion is None:
        return ""
    if told.suspicious:
        what = "Suspicious: this row looks unlike those that the model was made for."
        return f'<p class="warning">{what} Suspicion {told.suspicion:.2f}.</p>'
    return f'<p class="quiet">Suspicion {told.suspicion:.2f}: it looks like an ordinary row.</p>'


def _worth(shares: Sequence[Share]) -> Sequence[Share]:
    """Return the shares that are shown: of many labels, those to which something was given most."""
    most = sorted(shares, key=lambda share: -max(map(abs, share.gives.values()), default=0.0))
    return [share for share in shares if share in most[:_MOST]]


def _shares(share: Share, schema: Schema, present: Sequence[str]) -> str:
    of = f"the probability of {escape(share.label)}" if share.label is not None else "the number"
    several = f"{escape(share.target)}: what" if schema.target.parts else "What"
    figure = "+.3f" if share.label is not None else "+.3g"
    lines = []
    values = {name: value for name, value in share.gives.items() if name in present}
    # One scale for all bars: from the least that is reached to the most.
    reach = max(1e-12, sum(value for value in values.values() if value > 0), -sum(v for v in values.values() if v < 0))
    for name, value in share.gives.items():
        if name in present:
            start, end = sorted((0.0, value / reach))
            lines.append((name, start, end, format(value, figure)))
        else:
            lines.append((name, 0.0, 0.0, "absent"))
    return (
        f"<h2>{several} each modality gave to {of}</h2>{_table(lines, 'What each modality gave')}"
        f'<p class="quiet">From {share.nothing:.3g} without any of them to {share.everything:.3g}.</p>'
    )


def _table(lines: Sequence[tuple[str, float, float, str]], caption: str) -> str:
    """Return bars with their names and figures; a bar reaches from start to end, both in [-1, 1], towards its sign."""
    signed = any(start < 0 for _, start, _, _ in lines)
    zero, scale = (50.0, 50.0) if signed else (0.0, 100.0)
    rows = []
    for name, start, end, figure in lines:
        left, width = zero + scale * start, scale * (end - start)
        against = " against" if start < 0 else ""
        bar = f'<div class="bar{against}" style="left:{left:.1f}%;width:{width:.1f}%"></div>'
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th><td><div class="track" aria-hidden="true">{bar}</div></td>'
            f'<td class="figure">{escape(figure)}</td></tr>'
        )
    return f'<table aria-label="{escape(caption)}">{"".join(rows)}</table>'


def _name(label: Any) -> str:
    from polyfuse.data.cells import category

    return category(label)


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.splitlines())
