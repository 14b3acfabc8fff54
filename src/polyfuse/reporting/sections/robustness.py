"""What it withstands."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from polyfuse.evaluation.drawing import forest, lines, table
from polyfuse.evaluation.report import metric_called, number_text
from polyfuse.metrics.bootstrap import Interval
from polyfuse.reporting.standing import Standing


def draw(part: Standing, about: dict[str, Any]) -> str:
    """Draw what is left without some modalities, under attack, and of damaged values."""
    parts = []
    if part.without and part.whole is not None:
        parts += [
            "<h3>When a modality is missing</h3><p>The same rows, with modalities taken away from every one.</p>",
            forest({"nothing missing": part.whole, **part.without}, "Missing", metric_called(part.metric).label),
        ]
    if part.attack is not None:
        parts += _attack(part.attack)
    if part.stress is not None:
        parts += _stress(part.stress)
    if part.commands:
        commands = "".join(f"<li><code>{escape(command)}</code></li>" for command in part.commands)
        parts += [
            "<h3>Not run yet</h3><p>Whether it withstands an adversary or damaged values is not known until this has"
            " run; give what it writes to  <code>polyfuse report --attack … --stress …</code>.</p>"
            f'<ul class="plain">{commands}</ul>'
        ]
    return "".join(parts)


def _attack(document: Mapping[str, Any]) -> list[str]:
    rows = {"nothing attacked": document["clean"], **document["subsets"], "the worst of each row": document["worst"]}
    budgets = "; ".join(f"{name}: {_budget(budget)}" for name, budget in document["budgets"].items())
    warned = "".join(f"<li>{escape(str(text))}</li>" for text in document.get("warnings", []))
    return [
        f"<h3>Under attack</h3><p>An adversary changed what it may ({escape(budgets)}) on {document['rows']:,} rows;"
        " every subset of the modalities was attacked.</p>",
        forest({name: _interval(at) for name, at in rows.items()}, "Attacked", str(document["metric"])),
        f'<ul class="plain">{warned}</ul>' if warned else "",
    ]


def _budget(budget: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in budget["options"].items() if value not in (None, [], ()))
    return f"{budget['norm']} {options}"


def _stress(document: Mapping[str, Any]) -> list[str]:
    parts = []
    for modality, found in document["corrupted"].items():
        rows = [[escape(name), *(number_text(float(value)) for value in values)] for name, values in found.items()]
        heads = ["Damage", *(f"Severity {severity}" for severity in document["severities"])]
        parts += [
            f"<h3>When {escape(modality)} is damaged</h3>",
            table(heads, rows, f"Damage to {modality}"),
        ]
    dropped = [(float(rate), float(at[0])) for rate, at in document.get("dropped", {}).items()]
    if dropped:
        drawn = lines({"dropped": dropped}, "share dropped", document["metric"], "Modalities dropped", marks=True)
        parts.append(f"<figure>{drawn}<figcaption>Modalities dropped at random.</figcaption></figure>")
    return parts


def _interval(at: Mapping[str, Any]) -> Interval:
    value, low, high = (float("nan") if at[key] is None else float(at[key]) for key in ("value", "low", "high"))
    return Interval(value, low, high)
