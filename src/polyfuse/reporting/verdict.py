"""What a reader has to know first: one sentence, and a few figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from polyfuse.evaluation.report import in_prose, interval_text, metric_called, number_text
from polyfuse.evaluation.slices import Slices
from polyfuse.explanation.contributions import Contributions
from polyfuse.fairness import FairnessReport
from polyfuse.quality import QualityReport
from polyfuse.reporting.accuracy import Accuracy
from polyfuse.reporting.certainty import Certainty
from polyfuse.reporting.document import ModelReport
from polyfuse.reporting.standing import Standing


@dataclass(frozen=True)
class Fact:
    """A figure of the verdict.

    Attributes:
        what: it is.
        figure: itself.
        said: what it means, in a few words.
        kind: whether it speaks for the model or against it.
    """

    what: str
    figure: str
    said: str
    kind: Literal["", "good", "bad"] = ""


def facts(report: ModelReport) -> tuple[str, list[Fact]]:
    """Return the verdict's sentence, and its figures."""
    found: list[Fact] = []
    one = "What was measured stands below."
    for part in report.parts.values():
        if isinstance(part, Accuracy):
            sentence, fact = _of_accuracy(part)
            one, found = sentence, [*found, fact]
        elif isinstance(part, Slices):
            found += _of_slices(part)
        elif isinstance(part, Certainty):
            found += _of_certainty(part)
        elif isinstance(part, FairnessReport):
            found += _of_fairness(part)
        elif isinstance(part, Contributions):
            found += _of_contributions(part)
        elif isinstance(part, Standing):
            found += _of_standing(part)
        elif isinstance(part, QualityReport):
            found += [Fact("The data", "look", said, "bad") for said in part.serious[:1]]
    return one, found


def _of_accuracy(part: Accuracy) -> tuple[str, Fact]:
    at, prior = part.report.intervals[part.metric], part.report.baseline.get(part.metric, math.nan)
    metric = metric_called(part.metric)
    sign = 1.0 if metric.greater_is_better else -1.0
    edge = at.low if sign > 0 else at.high
    better = not math.isnan(edge) and sign * (edge - prior) > 0
    fact = Fact(
        metric.label,
        number_text(at.value),
        f"{interval_text(at)}; without the model {number_text(prior)}",
        "good" if better else "bad",
    )
    if not better:
        return "The model cannot be told from answering every row alike.", fact
    behind = [name for name, other in part.baselines.items() if other.behind.low <= 0]
    if behind:
        return f"The model has learned something, but is not surely better than {behind[0]}.", fact
    simpler = f", and better than {', '.join(part.baselines)}" if part.baselines else ""
    return f"The model is better than answering every row alike{simpler}.", fact


def _of_slices(part: Slices) -> list[Fact]:
    sure = [one for one in part.worst if one.gap.low > 0]
    if not sure:
        return [Fact("Weakest rows", "none found", f"among {part.tried} kinds of rows", "good")]
    worst = sure[0]
    return [Fact("Weakest rows", number_text(worst.value.value), f"where {worst.what}", "bad")]


def _of_certainty(part: Certainty) -> list[Fact]:
    facts = []
    for report in list(part.calibration.values())[:1]:
        at = report.after["calibration_error"]
        said = f"{interval_text(at)}: how far it is from being as often right as it says"
        facts.append(Fact("Calibration error", number_text(at.value), said))
    return facts


def _of_fairness(part: FairnessReport) -> list[Fact]:
    gaps = [(column.column, column.metric_gap) for column in part.columns if column.metric_gap is not None]
    sure = [(name, gap) for name, gap in gaps if gap.difference.low > 0]
    label = in_prose(metric_called(part.metric).label)
    if not sure:
        return [Fact("Gap between groups", "none proven", f"of {label}", "good")] if gaps else []
    name, gap = max(sure, key=lambda item: item[1].difference.value)
    return [Fact(f"Gap by {name}", number_text(gap.difference.value), f"{label}: {gap.high} over {gap.low}", "bad")]


def _of_contributions(part: Contributions) -> list[Fact]:
    name, at = max(part.values.items(), key=lambda item: item[1].value)
    empty = [other for other, value in part.values.items() if value.low <= 0 <= value.high]
    said = f"of {in_prose(metric_called(part.metric).label)} on average; " + (
        f"{', '.join(empty)} adds nothing certain" if empty else "every modality adds something"
    )
    return [Fact(f"Most comes from {name}", f"{at.value:+.3f}", said)]


def _of_standing(part: Standing) -> list[Fact]:
    single = {name: at for name, at in part.without.items() if " + " not in name}
    if not single or part.whole is None:
        return []
    sign = 1.0 if metric_called(part.metric).greater_is_better else -1.0
    name, at = min(single.items(), key=lambda item: sign * item[1].value)
    return [
        Fact(
            f"Without {name}", number_text(at.value), f"{in_prose(metric_called(part.metric).label)}, all others there"
        )
    ]
