"""What moves its answers."""

from __future__ import annotations

from html import escape
from typing import Any

from polyfuse.evaluation.drawing import forest
from polyfuse.explanation.interventions import Interventions

_MOST = 15  # effects that are drawn
_SENTENCES = 5  # of those that move most


def draw(part: Interventions, about: dict[str, Any]) -> str:
    """Draw how far each column and modality moves the answers, and what goes along with them only."""
    effects = part.effects[:_MOST]
    regression = about["task"] == "regression"
    unit = "Mean change" if regression else "Probability moved"
    told = [effect.said for effect in effects if effect.contrast is not None][:_SENTENCES]
    sentences = "".join(f"<li>{escape(said)}</li>" for said in told)
    parts = [
        f"<p>One thing was set by hand in each of {part.rows:,} rows, to the value of another row, and all else left as"
        " it is. How far the answer goes then is what that thing does to this model's answers. It does not say what it"
        " does in the world.</p>",
        forest({effect.name: effect.moved for effect in effects}, "Set by hand", unit),
    ]
    if len(part.effects) > _MOST:
        parts.append(f"<p>{len(part.effects) - _MOST} more, which move less, stand in report.json.</p>")
    if sentences:
        parts.append(
            "<h3>What moves the answer, and what only goes along with it</h3>"
            "<p>Rows that differ in one column mostly differ in others too. The first figure of each sentence compares"
            f' such rows; the second changes the one column alone.</p><ul class="plain">{sentences}</ul>'
        )
    return "".join(parts)
