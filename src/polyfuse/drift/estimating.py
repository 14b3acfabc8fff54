"""How good answers are, before anyone says what would have been right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.schema import Schema, Target
from polyfuse.drift.answers import losses, sureness
from polyfuse.drift.report import Performance
from polyfuse.drift.sample import LEAST, Sample
from polyfuse.drift.statistics import principal
from polyfuse.drift.vectors import TABULAR, table_vectors
from polyfuse.metrics.bootstrap import Interval, counts_drawn, percentile_interval
from polyfuse.metrics.metric import Array
from polyfuse.metrics.several import Part

RESAMPLES = 1000
_LEVEL = 0.95
_NEIGHBOURS = 5
_METRICS = {"classification": "accuracy", "multilabel": "label_accuracy", "regression": "mae"}
_SHIFTED_INPUTS = (
    "What is expected holds where the inputs have moved and what they mean has not (covariate shift): rows answered"
    " with 0.8 are still right eight times in ten. A change of what is right for the same input cannot be seen without"
    " answers."
)
_NEAR_INPUTS = (
    "What is expected holds where the inputs have moved and what they mean has not (covariate shift), among inputs that"
    " the reference has too: errors are those of its nearest rows. A change of what is right for the same input cannot"
    " be seen without answers, nor how wrong the model is where no row of the reference is near."
)


def performance(part: Part, target: Target, reference: Sample, new: Sample, schema: Schema, seed: int) -> Performance:
    """Return how good the answers to a target were, are expected to be, and are where the truth is known.

    Args:
        part: where the target stands.
        target: itself.
        reference: calibrated, with its answers.
        new: rows, with answers or without.
        schema: of the model.
        seed: of the bootstrap.
    """
    before, after = losses(part, reference), losses(part, new)
    known = ~np.isnan(before)
    metric, rated = _METRICS[target.task], target.task != "regression"
    old = _mean(1 - before[known] if rated else before[known], seed)
    measured = _mean(1 - after if rated else after, seed) if _enough(after) else None
    if known.sum() < LEAST:
        why = f"fewer than {LEAST} rows of the reference have an answer"
        return Performance(target.name, metric, old, None, measured, why)
    if rated:
        expected = expected_accuracy(
            1 - before[known],
            sureness(part, part.scores(reference.scores))[known],
            sureness(part, part.scores(new.scores)),
            answers=1 if target.task == "classification" else len(target.levels),
            seed=seed,
        )
        return Performance(target.name, metric, old, expected, measured, _SHIFTED_INPUTS)
    vectors = _places(schema, reference, new)
    if vectors.shape[1] == 0:
        why = "no column or modality says which rows of the reference are near"
        return Performance(target.name, metric, old, None, measured, why)
    near, far = vectors[: len(reference)][known], vectors[len(reference) :]
    expected = expected_error(before[known], near, far, seed=seed)
    return Performance(target.name, metric, old, expected, measured, _NEAR_INPUTS)


def expected_accuracy(right: Array, sure: Array, sure_now: Array, *, answers: int = 1, seed: int = 0) -> Interval:
    """Return the accuracy to be expected on new rows: that of the reference, less what the confidence has lost.

    a + (c' - c), with the accuracy a and the mean confidence c of the reference and the mean confidence c' of the new
    rows (difference of confidences, Guillory et al. 2021): the mean calibrated confidence, with what calibration is off
    taken out. The interval is of the accuracy that these new rows will show: the reference is resampled, and each new
    row is right with its confidence.

    Args:
        right: of the reference (rows,), 1 where the answer is right; a share, where a row has several.
        sure: of the reference (rows,), the confidence.
        sure_now: of the new rows (rows,).
        answers: that a row has.
        seed: of the bootstrap.
    """
    random = np.random.default_rng(seed)
    off = right - sure
    gaps = np.concatenate([(counts @ off) / len(off) for counts in counts_drawn(len(off), RESAMPLES, seed)])
    # The sum of independent answers, each right with its own probability, is as good as normal from 30 rows on.
    spread = np.sqrt((sure_now * (1 - sure_now)).mean() / (len(sure_now) * answers))
    drawn = sure_now.mean() + gaps + random.normal(0, 1, RESAMPLES) * spread
    return percentile_interval(float(np.clip(sure_now.mean() + off.mean(), 0, 1)), [np.clip(drawn, 0, 1)], _LEVEL)


def expected_error(errors: Array, places: Array, places_now: Array, *, seed: int = 0) -> Interval:
    """Return the mean absolute error to be expected on new rows: that of the five nearest rows of the reference each.

    The interval is of the error that these new rows will show: rows of the reference are resampled, with weights that
    are how often they are neighbours, and the mean over so many new rows is uncertain by itself.

    Args:
        errors: of the reference (rows,).
        places: of the reference (rows, dim).
        places_now: of the new rows (rows, dim).
        seed: of the bootstrap.
    """
    count = min(_NEIGHBOURS, len(errors))
    apart = ((places_now**2).sum(1)[:, None] + (places**2).sum(1) - 2 * places_now @ places.T).astype(np.float32)
    nearest = np.argpartition(apart, count - 1, axis=1)[:, :count]
    weights = np.bincount(nearest.ravel(), minlength=len(errors)) / nearest.size
    value = float(weights @ errors)
    spread = np.sqrt(max(float(weights @ (errors - value) ** 2), 0.0) / len(places_now))
    random = np.random.default_rng(seed)
    drawn = []
    for counts in counts_drawn(len(errors), RESAMPLES, seed):
        drawn.append((counts @ (weights * errors)) / np.maximum(counts @ weights, 1e-12))
    noisy = np.concatenate(drawn) + random.normal(0, 1, RESAMPLES) * spread
    return percentile_interval(value, [np.maximum(noisy, 0)], _LEVEL)


def _places(schema: Schema, reference: Sample, new: Sample) -> Array:
    """Return where rows of both samples are, by all that is known of them: (rows, dim)."""
    parts: list[Array] = []
    for name in schema.modalities:
        columns = schema.of(name)
        if name in reference.vectors:
            raw = np.concatenate([reference.vectors[name], new.vectors[name]]).astype(np.float32)
            there = np.concatenate([reference.present[name], new.present[name]])
            raw[~there] = raw[there].mean(axis=0) if there.any() else 0
            parts.append(principal(raw))
        elif all(column.type in TABULAR for column in columns):
            parts.append(table_vectors(columns, reference, new))
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(reference) + len(new), 0))


def _enough(losses: NDArray[np.float64]) -> bool:
    return bool(np.count_nonzero(~np.isnan(losses)) >= LEAST)


def _mean(values: Array, seed: int) -> Interval:
    """Return a mean over rows with its interval, those that are nan left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    drawn = [(counts @ known) / len(known) for counts in counts_drawn(len(known), RESAMPLES, seed)]
    return percentile_interval(float(known.mean()), drawn, _LEVEL)
