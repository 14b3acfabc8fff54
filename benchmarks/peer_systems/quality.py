"""How well the scores fit the truth: metrics of each fit, and their differences to another system's, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from peer_systems.job import Job, as_label
from polyfuse.metrics import METRICS
from polyfuse.metrics.bootstrap import Interval, bootstrap, paired_difference

#: The first one leads: differences and verdicts are of it.
CLASSIFICATION = ("roc_auc", "accuracy", "log_loss")
REGRESSION = ("rmse", "mae", "r2")


def metrics_of(job: Job) -> Sequence[str]:
    """Return the metrics of the job's task, the leading one first."""
    return CLASSIFICATION if job.classes else REGRESSION


def truth(job: Job) -> np.ndarray:
    """Return the answers of the test rows: codes of classes, or numbers. (rows,)."""
    column = pd.read_csv(job.test)[job.target]
    if not job.classes:
        return column.to_numpy(dtype=float)
    codes = {label: code for code, label in enumerate(job.classes)}
    unknown = sorted({as_label(value) for value in column} - set(codes))
    if unknown:
        raise SystemExit(f"the test rows have labels that no training row has: {', '.join(unknown)}")
    return np.array([codes[as_label(value)] for value in column])


def read_scores(path: Path, job: Job) -> np.ndarray:
    """Return scores in the order of the job's classes: (rows, classes), or (rows,)."""
    table = pd.read_csv(path)
    if not job.classes:
        return table.iloc[:, 0].to_numpy(dtype=float)
    table.columns = [as_label(name) for name in table.columns]
    return table.reindex(columns=job.classes, fill_value=0.0).to_numpy(dtype=float)


def measured(y_true: np.ndarray, scores: Mapping[int, np.ndarray], metrics: Sequence[str]) -> dict[str, Interval]:
    """Return metrics with 95 % intervals: the mean over seeds of value and bounds.

    Each seed's interval is of other rows, not of other seeds; the mean of bounds is, if anything, too wide.
    """
    each = [bootstrap(metrics, y_true, found) for found in scores.values()]
    return {name: mean_interval([found[name] for found in each]) for name in metrics}


def difference(
    y_true: np.ndarray, scores: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], metric: str
) -> Interval:
    """Return metric - metric of the other on the same rows, the mean over the seeds.

    A system that knows no seed has one set of scores, which then stands beside every seed of the other.
    """
    seeds = sorted(set(scores) | set(other))
    pairs = [(_of(scores, seed), _of(other, seed)) for seed in seeds]
    found = [paired_difference(metric, y_true, a, b) for a, b in pairs if a is not None and b is not None]
    return mean_interval(found) if found else Interval(math.nan, math.nan, math.nan)


def spread(y_true: np.ndarray, scores: Mapping[int, np.ndarray], metric: str) -> tuple[float, float]:
    """Return a metric's least and greatest value over the seeds."""
    values = [METRICS[metric].function(y_true, found) for found in scores.values()]
    return min(values), max(values)


def mean_interval(found: Sequence[Interval]) -> Interval:
    """Return the mean of values, and of lower and upper bounds."""
    return Interval(*(fmean(getattr(one, part) for one in found) for part in ("value", "low", "high")))


def better(found: Interval, metric: str) -> float:
    """Return by how much a difference is for the better."""
    return found.value if METRICS[metric].greater_is_better else -found.value


def _of(scores: Mapping[int, np.ndarray], seed: int) -> np.ndarray | None:
    return next(iter(scores.values())) if len(scores) == 1 else scores.get(seed)
