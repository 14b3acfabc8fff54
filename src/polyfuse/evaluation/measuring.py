"""From scores and truth to a Report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polyfuse.core.errors import InputError
from polyfuse.data.schema import Target
from polyfuse.evaluation.report import Confusion, Report
from polyfuse.metrics.bootstrap import bootstrap, known
from polyfuse.metrics.metric import Array

#: Labels that a confusion matrix shows at most, and rows of a regression that are kept to be drawn.
_LABELS = 30
_POINTS = 500


def evaluate(
    y_true: Array,
    y_score: Array,
    prior: Array,
    target: Target,
    metrics: Sequence[str],
    *,
    present: Mapping[str, float] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Report:
    """Measure scores against the truth, and the training prior beside them.

    Args:
        y_true: codes (rows,), 0/1 (rows, labels), or numbers (rows,), as the task of the target has it.
        y_score: probabilities (rows, labels), or numbers (rows,).
        prior: the scores of a row about which nothing is known: one row of `y_score`.
        target: what was asked.
        metrics: names of metrics of the target's task.
        present: share of the rows in which each modality is present.
        resamples: number of bootstrap resamples.
        level: share of them that an interval holds.
        seed: of the resamples.

    Raises:
        InputError: no rows, truth and scores of different length, an unknown metric, or one of another task.
    """
    if len(y_true) == 0:
        raise InputError("evaluate: the table has no rows; give at least one")
    for name in metrics:
        if target.task not in known(name).tasks:
            fitting = ", ".join(sorted(known(name).tasks))
            raise InputError(f"metrics: {name!r} measures {fitting}, not {target.task}; choose another")
    intervals = bootstrap(metrics, y_true, y_score, resamples=resamples, level=level, seed=seed)
    same_for_all = np.broadcast_to(np.asarray(prior, dtype=y_score.dtype), y_score.shape)
    return Report(
        task=target.task,
        target=target.name,
        rows=len(y_true),
        intervals=intervals,
        baseline={name: known(name).function(y_true, same_for_all) for name in metrics},
        level=level,
        resamples=resamples,
        present=dict(present or {}),
        confusion=_confusion(y_true, y_score, target) if target.task == "classification" else None,
        points=_points(y_true, y_score, seed) if target.task == "regression" else [],
    )


def _confusion(y_true: Array, y_score: Array, target: Target) -> Confusion:
    """Count answers for each true label; beyond the limit, the labels that are rarest here are counted together."""
    answers = y_score.argmax(axis=1)
    labels = len(target.levels)
    shown = np.arange(labels)
    if labels > _LABELS:
        seen = np.bincount(y_true, minlength=labels) + np.bincount(answers, minlength=labels)
        shown = np.sort(np.argsort(-seen, kind="stable")[:_LABELS])
    place = np.full(labels, len(shown))
    place[shown] = np.arange(len(shown))
    side = len(shown) + (labels > len(shown))
    counts = np.bincount(place[y_true] * side + place[answers], minlength=side * side).reshape(side, side)
    return Confusion([target.levels[code] for code in shown], counts.tolist(), labels - len(shown))


def _points(y_true: Array, y_score: Array, seed: int) -> list[tuple[float, float]]:
    chosen = np.arange(len(y_true))
    if len(chosen) > _POINTS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _POINTS, replace=False))
    return [(float(true), float(score)) for true, score in zip(y_true[chosen], y_score[chosen], strict=True)]
