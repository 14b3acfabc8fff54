"""How often it is right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from polyfuse.evaluation.drawing import between, dots, forest, heat, lines, scatter, scrolled, table
from polyfuse.evaluation.report import Report, metric_called, number_text
from polyfuse.metrics.bootstrap import Interval
from polyfuse.reporting.accuracy import Accuracy

_CANDIDATES = 10  # that are shown
_CURVES = {"loss": "loss", "validation_loss": "validation loss"}


def draw(part: Accuracy, about: dict[str, Any]) -> str:
    """Draw metrics, baselines, confusion or residuals, curves, and how the training went."""
    parts = [
        "<p>Each figure stands beside what the training rows alone would answer (the ring). The bar is its interval:"
        " other rows like these would mostly give a value in it.</p>",
        *(_report(report, len(part.report.parts)) for report in part.report.parts or [part.report]),
    ]
    if part.baselines:
        behind = {f"better than {name} by": one.behind for name, one in part.baselines.items()}
        values = {name: one.value for name, one in part.baselines.items()}
        label = metric_called(part.metric).label
        parts += [
            "<h3>Beside simpler models</h3><p>Fitted on the same training rows and measured on these. Where the"
            " interval of the difference holds 0, the simpler model may be as good.</p>",
            forest({"this model": part.report.intervals[part.metric], **values}, "Model", label),
            forest(behind, "Difference", label),
        ]
    parts += [f'<div class="plots">{"".join(_curves(part))}</div>', _found(part.comparison)]
    return "".join(parts)


def _report(report: Report, several: int) -> str:
    rows = []
    for name, at in report.own.items():
        metric, base = metric_called(name), report.baseline.get(name, math.nan)
        better = "more is better" if metric.greater_is_better else "less is better"
        rows.append(
            [
                f"{escape(metric.label)} <small>{better}</small>",
                dots(at, base),
                f"<b>{number_text(at.value)}</b>",
                between(at),
                number_text(base),
            ]
        )
    found = [f"<h3>{escape(report.target)}</h3>"] if several else []
    found.append(table(["Metric", "Value and prior", "Value", "Interval", "Prior"], rows, "Metrics"))
    if report.confusion is not None:
        found.append(
            f"<figure>{scrolled(heat(report.confusion), 'Confusion matrix')}<figcaption>Each row is a true label, each"
            " column an answer; what is off the diagonal is wrong.</figcaption></figure>"
        )
    points = [(a, b) for a, b in report.points if math.isfinite(a) and math.isfinite(b)]
    if points:
        found.append(
            f"<figure>{scatter(points)}<figcaption>Each dot is a row; on the dashed line the answer is"
            " right.</figcaption></figure>"
        )
    return "".join(found)


def _curves(part: Accuracy) -> list[str]:
    drawn = []
    curves = part.curves
    if curves is not None and curves.roc:
        drawn.append(
            _figure(
                lines(curves.roc, "wrongly called so", "rightly called so", "ROC curve", diagonal=True),
                "ROC: moving the threshold up the curve finds more rows of a label, at more false alarms. On the"
                " dotted line an answer is worth nothing.",
            )
        )
        level = next(iter(curves.shares.values())) if len(curves.shares) == 1 else None
        drawn.append(
            _figure(
                lines(curves.pr, "share found", "share right of those", "Precision and recall", level=level),
                "Precision over recall: of the rows that are called so, how many are; the further right, the more of"
                " them are found.",
            )
        )
    if curves is not None and curves.residuals:
        residuals = {"rows": curves.residuals}
        drawn.append(
            _figure(
                lines(
                    residuals,
                    "answered",
                    "true less answered",
                    "Residuals",
                    unit=False,
                    level=0,
                    marks=True,
                    joined=False,
                ),
                "True less answered, over the answer: a slope or a widening funnel is error that could be learned.",
            )
        )
    history = {
        label: [(line["epoch"], line[key]) for line in part.history if key in line] for key, label in _CURVES.items()
    }
    history = {label: some for label, some in history.items() if len(some) > 1}
    if history:
        drawn.append(
            _figure(
                lines(history, "epoch", "loss", "Loss by epoch", unit=False, marks=True),
                "How the training went: where the validation loss rises while the loss falls, it learned by heart.",
            )
        )
    return drawn


def _found(comparison: Mapping[str, Any] | None) -> str:
    """Draw the candidates that a model was found among, the best first."""
    if comparison is None:
        return ""
    metric = metric_called(comparison["metric"])
    measured = [one for one in comparison["candidates"] if one["value"] is not None and one["low"] is not None]
    if not measured:
        return ""
    measured.sort(key=lambda one: one["value"], reverse=metric.greater_is_better)
    rows = {
        f"{one['candidate']}{' (taken)' if one['weight'] else ''}": Interval(one["value"], one["low"], one["high"])
        for one in measured[:_CANDIDATES]
    }
    reason = str(comparison["reason"])
    return (
        "<h3>How it was found</h3><p>Ways to combine, compared on training rows kept aside."
        f" {escape(reason[:1].upper() + reason[1:])}.</p>{forest(rows, 'Way to combine', metric.label)}"
    )


def _figure(drawn: str, said: str) -> str:
    return f"<figure>{drawn}<figcaption>{said}</figcaption></figure>" if drawn else ""
