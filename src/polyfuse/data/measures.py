"""Which metrics measure a target."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.schema import Target
from polyfuse.metrics import METRICS, Metric
from polyfuse.metrics.several import RELATIVE_LOSS, Part, of_part, relative_loss

#: What decides between models where nothing else is said: proper scores, not whether a threshold is passed.
DECIDING = {
    "classification": "log_loss",
    "regression": "rmse",
    "multilabel": "mean_average_precision",
    "several": RELATIVE_LOSS,
}


def measures(target: Target) -> dict[str, Metric]:
    """Return the metrics of a target by name: of several, `relative_loss` and each one's own, `<target>:<metric>`."""
    if not target.parts:
        return {name: metric for name, metric in METRICS.items() if target.task in metric.tasks}
    parts = parts_of(target)
    each = [of_part(metric, part) for part in parts for metric in METRICS.values() if part.task in metric.tasks]
    return {metric.name: metric for metric in (relative_loss(parts), *each)}


def measure(target: Target, name: str) -> Metric:
    """Return a metric of a target by the name that `training.metric` has for it.

    Raises:
        InputError: it has none of this name.
    """
    known = measures(target)
    if name not in known:
        rule = ""
        if target.parts:
            rule = f" targets: it is {RELATIVE_LOSS}, or  <target>:<metric>"
        raise InputError(f"training.metric: {name!r} is no metric of {target.task}{rule}; {nearest(name, known)}")
    return known[name]


def parts_of(target: Target) -> list[Part]:
    """Return where each of several targets stands in their joint truth and scores."""
    found, true, score = [], 0, 0
    for part in target.parts:
        wide, labels = len(part.levels) if part.task == "multilabel" else 1, len(part.levels) or 1
        columns = slice(true, true + wide), slice(score, score + labels)
        found.append(Part(part.name, part.task, *columns, prior_loss(part)))
        true, score = true + wide, score + labels
    return found


def prior_loss(target: Target) -> float:
    """Return the loss of the training prior on the training rows, 1 where that is 0.

    Of a classification the entropy -Σ f ln f of its frequencies, of a multilabel target the mean of its labels'
    entropies, in nats; of a regression the standard deviation, in its own unit.

    >>> even = Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5])
    >>> round(prior_loss(even), 4)
    0.6931
    """
    if target.task == "regression":
        return target.std
    shares = np.asarray(target.frequencies, dtype=np.float64)
    entropy = _entropy(shares)
    loss = entropy.sum() if target.task == "classification" else (entropy + _entropy(1 - shares)).mean()
    return float(loss) if math.isfinite(loss) and loss > 0 else 1.0


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    entropy: NDArray[np.float64] = -shares * np.log(np.where(shares > 0, shares, 1.0))
    return entropy
