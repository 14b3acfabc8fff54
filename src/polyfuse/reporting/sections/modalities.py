"""What each modality gives."""

from __future__ import annotations

from html import escape
from typing import Any

from polyfuse.evaluation.drawing import forest, table
from polyfuse.evaluation.report import in_prose, metric_called
from polyfuse.explanation.contributions import Contributions


def draw(part: Contributions, about: dict[str, Any]) -> str:
    """Draw Shapley values, interactions, and what fusion adds."""
    label = metric_called(part.metric).label
    unit = label if part.greater_is_better else f"{label} saved"
    said = in_prose(label)
    how = f"{part.orders} orders were drawn" if part.orders else "all orders count"
    parts = [
        f"<p>What a modality adds to the {said}, averaged over the orders in which they can be added ({how}): its"
        f" Shapley value, on {part.rows:,} rows. Together they make up all that the model is better than the prior."
        " Where the interval holds 0, the modality may as well not be there.</p>",
        forest(part.values, "Modality", unit),
    ]
    together = {
        f"all beyond {part.best} alone": part.beyond_best,
        "all beyond the mean of each one's answer": part.beyond_late,
        **{f"{pair}, together": at for pair, at in part.interactions.items()},
    }
    parts += [
        "<h3>What they give together</h3><p>Above 0, modalities say more together than each on its own; below 0 they"
        " say the same twice.</p>",
        forest(together, "Together", unit),
        f"<h3>Each alone</h3><p>The {said} of this model where all but one modality are taken away.</p>",
        forest({name: part.subsets[name] for name in part.values}, "Only", label),
    ]
    if part.weights:
        rows = [[escape(name), f"{weight:.1%}"] for name, weight in part.weights.items()]
        parts += [
            "<h3>What the fusion looks at</h3><p>The mean weight that the fusion itself gives each modality. It says"
            " where it looks, not what that gains.</p>",
            table(["Modality", "Weight"], rows, "Weights of the fusion"),
        ]
    return "".join(parts)
