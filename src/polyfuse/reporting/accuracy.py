"""How often the model is right, beside what is simpler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polyfuse.data.measures import measures
from polyfuse.data.rows import Rows
from polyfuse.evaluation import evaluate
from polyfuse.evaluation.curves import Curves, curves
from polyfuse.evaluation.report import Report
from polyfuse.evaluation.slices import Slices, worst_slices
from polyfuse.metrics.bootstrap import Interval, bootstrap, paired_difference
from polyfuse.metrics.metric import Array


@dataclass(frozen=True)
class Baseline:
    """A simpler model on the same rows.

    Attributes:
        value: its metric.
        behind: by how much the model is better, with its interval on the same resamples.
    """

    value: Interval
    behind: Interval


@dataclass(frozen=True)
class Accuracy:
    """How often the model is right.

    Attributes:
        report: metrics with intervals, beside the training prior.
        metric: that decides: the head's first one.
        baselines: simpler models fitted on the same training rows, by name.
        curves: what a threshold costs, or where a regression is wrong; of one target.
        history: figures of each epoch of the training.
        comparison: of a model that was found, the candidates that were compared on rows kept aside, the document of
            `metrics["comparison"]`.
    """

    report: Report
    metric: str
    baselines: dict[str, Baseline]
    curves: Curves | None
    history: list[dict[str, float]]
    comparison: dict[str, Any] | None = None

    def __str__(self) -> str:
        lines = [f"beside {name}: {one.value}, better by {one.behind}" for name, one in self.baselines.items()]
        return "\n".join([str(self.report), *lines])

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "report": json.loads(self.report.to_json()),
            "metric": self.metric,
            "baselines": {name: asdict(one) for name, one in self.baselines.items()},
            "curves": self.curves and self.curves.data(),
            "history": self.history,
            "comparison": self.comparison,
        }


def accuracy(
    rows: Rows,
    y_true: Array,
    y_score: Array,
    prior: Array,
    metrics: Sequence[str],
    *,
    present: Mapping[str, float],
    others: Mapping[str, Array],
    history: Sequence[Mapping[str, float]],
    comparison: dict[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Accuracy:
    """Measure how often the model is right.

    Args:
        rows: with answers.
        y_true: their truth, as the head gives it.
        y_score: scores of the model.
        prior: of a row about which nothing is known.
        metrics: names, the deciding one first.
        present: share of the rows in which each modality is present.
        others: scores of simpler models on the same rows, by name.
        history: figures of each epoch of the training.
        comparison: the candidates that a model was found among.
        resamples: of the rows, for the intervals.
        seed: of all random numbers.
    """
    target = rows.schema.target
    report = evaluate(y_true, y_score, prior, target, metrics, present=present, resamples=resamples, seed=seed)
    metric = measures(target)[metrics[0]]
    sign = 1.0 if metric.greater_is_better else -1.0
    baselines = {}
    for name, scores in others.items():
        ahead = paired_difference(metric, y_true, y_score, scores, resamples=resamples, seed=seed)
        behind = ahead if sign > 0 else Interval(-ahead.value, -ahead.high, -ahead.low)
        (value,) = bootstrap([metric], y_true, scores, resamples=resamples, seed=seed).values()
        baselines[name] = Baseline(value, behind)
    drawn = None if target.parts else curves(y_true, y_score, target, seed=seed)
    return Accuracy(report, metric.name, baselines, drawn, [dict(line) for line in history], comparison)


def slices(rows: Rows, y_true: Array, y_score: Array, metric: str, *, seed: int = 0) -> Slices:
    """Return the slices on which the model does worst."""
    return worst_slices(rows, measures(rows.schema.target)[metric], y_true, y_score, seed=seed)
