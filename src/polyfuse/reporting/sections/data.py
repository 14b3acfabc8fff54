"""The data."""

from __future__ import annotations

from html import escape
from typing import Any

from polyfuse.evaluation.drawing import table
from polyfuse.quality import Groups, QualityReport

_MOST = 10  # lines of each kind


def draw(part: QualityReport, about: dict[str, Any]) -> str:
    """Draw what is there twice, what leaks, which labels are likely wrong, and which modalities disagree."""
    verdict = "; ".join(part.serious)
    said = f"<p><b>Serious: {escape(verdict)}.</b></p>" if verdict else "<p>Nothing serious was found.</p>"
    parts = [said, _columns(part), _problems(part), _doubles(part), _leaks(part), _labels(part), _disagreements(part)]
    left = [f"{what}: {why}" for what, why in part.left_out.items()]
    notes = "".join(f"<li>{escape(text)}</li>" for text in [*left, *part.notes])
    return "".join(parts) + (f'<h3>Not looked for, and notes</h3><ul class="plain">{notes}</ul>' if notes else "")


def _columns(part: QualityReport) -> str:
    rows = [
        [escape(one.name), escape(one.type or "–"), escape(one.role), f"{one.missing:.1%}", f"{one.distinct:,}"]
        for one in part.columns
    ]
    return table(["Column", "Type", "Feeds", "Missing", "Distinct"], rows, "Columns of the table")


def _problems(part: QualityReport) -> str:
    items = "".join(f"<li>{escape(str(problem))}</li>" for problem in part.problems[:_MOST])
    return f'<h3>Cells that cannot be read</h3><ul class="plain">{items}</ul>' if items else ""


def _doubles(part: QualityReport) -> str:
    found = part.doubles
    kinds: dict[str, Groups | None] = {
        "there twice in these rows": found.within,
        "in the training rows too (leakage)": found.across,
        "twice, with different answers": found.conflicts,
    }
    rows = [
        [escape(name), f"{one.exact:,}", f"{one.near:,}", f"{one.rows:,}"]
        for name, one in kinds.items()
        if one is not None
    ]
    chance = (
        f"<p>About {found.by_chance:,.0f} pairs of rows would be equal by chance alone, so this says little.</p>"
        if found.by_chance >= 1
        else ""
    )
    return (
        "<h3>Rows that are there more than once</h3><p>A model that has seen a row, or one nearly like it, is measured"
        " too well on it.</p>"
        + table(["Rows", "Equal groups", "Nearly equal", "Rows in them"], rows, "Doubles")
        + chance
    )


def _leaks(part: QualityReport) -> str:
    items = "".join(
        f"<li><b>{escape(leak.column)}</b> {escape(leak.reason)}{'' if leak.used else ' (no model reads it)'}</li>"
        for leak in part.leaks
    )
    return f'<h3>Columns that give the answer away</h3><ul class="plain">{items}</ul>' if items else ""


def _labels(part: QualityReport) -> str:
    found = part.labels
    if found is None:
        return ""
    rows = [
        [f"row {one.row}", escape(one.given), escape(one.suggested), f"{one.quality:.1%}"]
        for one in found.examples[:_MOST]
    ]
    shown = table(["Row", "Given", "Likelier", "Chance that it is right"], rows, "Likely label errors") if rows else ""
    return (
        f"<h3>Labels that are likely wrong</h3><p>{found.count:,} of {found.rows:,}, by {escape(found.source)}"
        f" ({found.accuracy:.1%} right on these rows). Look at them before anything is decided: a model is wrong"
        f" too.</p>{shown}"
    )


def _disagreements(part: QualityReport) -> str:
    found = part.disagreements
    if found is None or not found.examples:
        return ""
    rows = [
        [
            f"row {one.row}",
            escape("; ".join(f"{name}: {label} ({sure:.0%})" for name, (label, sure) in one.says.items())),
            escape(one.answer),
        ]
        for one in found.examples[:_MOST]
    ]
    return (
        f"<h3>Rows whose modalities contradict each other</h3><p>{found.count:,} of {found.rows:,}: what each says"
        " alone, by models cross-validated on these rows.</p>"
        + table(["Row", "What they say", "Given"], rows, "Disagreements")
    )
