"""From scores and truth to a Report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polyfuse.core.errors import InputError
from polyfuse.data.measures import measures, parts_of
from polyfuse.data.schema import Target
from polyfuse.evaluation.report import Confusion, Report
from polyfuse.metrics.bootstrap import bootstrap, known
from polyfuse.metrics.metric import Array
from polyfuse.metrics.several import RELATIVE_LOSS

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
        y_true: codes (rows,), 0/1 (rows, labels), or numbers (rows,), as the task of the target has it; of several
            targets these side by side (rows, columns), nan where a row lacks one.
        y_score: probabilities (rows, labels), or numbers (rows,); of several targets side by side.
        prior: the scores of a row about which nothing is known: one row of `y_score`.
        target: what was asked.
        metrics: names of metrics of the target's task; of several, `relative_loss` and `<target>:<metric>`.
        present: share of the rows in which each modality is present.
        resamples: number of bootstrap resamples.
        level: share of them that an interval holds.
        seed: of the resamples.

    Raises:
        InputError: no rows, truth and scores of different length, an unknown metric, or one of another task.
    """
    if len(y_true) == 0:
        raise InputError("evaluate: the table has no rows; give at least one")
    settings: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    if not target.parts:
        return _of_one(y_true, y_score, prior, target, metrics, present or {}, **settings)
    return _of_several(y_true, y_score, prior, target, metrics, present or {}, **settings)


def _of_one(
    y_true: Array,
    y_score: Array,
    prior: Array,
    target: Target,
    metrics: Sequence[str],
    present: Mapping[str, float],
    **settings: Any,
) -> Report:
    for name in metrics:
        if target.task not in known(name).tasks:
            fitting = ", ".join(sorted(known(name).tasks))
            raise InputError(f"metrics: {name!r} measures {fitting}, not {target.task}; choose another")
    intervals = bootstrap(metrics, y_true, y_score, **settings)
    same_for_all = np.broadcast_to(np.asarray(prior, dtype=y_score.dtype), y_score.shape)
    return Report(
        task=target.task,
        target=target.name,
        rows=len(y_true),
        intervals=intervals,
        baseline={name: known(name).function(y_true, same_for_all) for name in metrics},
        level=settings["level"],
        resamples=settings["resamples"],
        present=dict(present),
        confusion=_confusion(y_true, y_score, target) if target.task == "classification" else None,
        points=_points(y_true, y_score, settings["seed"]) if target.task == "regression" else [],
    )


def _of_several(
    y_true: Array,
    y_score: Array,
    prior: Array,
    target: Target,
    metrics: Sequence[str],
    present: Mapping[str, float],
    **settings: Any,
) -> Report:
    """Measure each of several targets on the rows that have it, and all of them together."""
    whole = measures(target)
    unknown = [name for name in metrics if name not in whole]
    if unknown:
        raise InputError(f"metrics: {unknown[0]!r} measures none of the targets; write  <target>:<metric>")
    parts = []
    for place, part in zip(parts_of(target), target.parts, strict=True):
        own = [name for name in measures(part) if f"{part.name}:{name}" in metrics]
        scores = place.scores(y_score[place.known(y_true)])
        parts.append(_of_one(place.truth(y_true), scores, prior[place.score], part, own, {}, **settings))
    joint = [whole[name] for name in metrics if name == RELATIVE_LOSS]
    same_for_all = np.broadcast_to(prior, y_score.shape)
    return Report(
        task=target.task,
        target=target.name,
        rows=len(y_true),
        intervals={
            **bootstrap(joint, y_true, y_score, **settings),
            **{f"{part.target}:{name}": at for part in parts for name, at in part.intervals.items()},
        },
        baseline={
            **{metric.name: metric.function(y_true, same_for_all) for metric in joint},
            **{f"{part.target}:{name}": value for part in parts for name, value in part.baseline.items()},
        },
        level=settings["level"],
        resamples=settings["resamples"],
        present=dict(present),
        parts=parts,
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
