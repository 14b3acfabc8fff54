"""What a model answers, how sure it is, and how wrong: of one target."""

from __future__ import annotations

import numpy as np

from polyfuse.drift.sample import Sample
from polyfuse.metrics.metric import Array
from polyfuse.metrics.several import Part


def decided(part: Part, scores: Array) -> Array:
    """Return the answers of a target's scores: numbers or codes (rows,), or 0/1 for each label (rows, labels)."""
    if part.task == "regression":
        return scores
    return np.asarray(scores >= 0.5 if part.task == "multilabel" else scores.argmax(axis=1)).astype(np.float64)


def drawn(part: Part, scores: Array, errors: Array, random: np.random.Generator) -> Array:
    """Return answers as they may turn out, drawn from what the scores say of them; shaped as `decided` has them.

    Models that learned from a few rows more or less differ a little in how sure they are, and where they are not sure
    in what they answer; in what they expect they do not.

    Args:
        part: where the target stands.
        scores: of it.
        errors: of a regression (n,), of which one is added to each number.
        random: draws them.
    """
    if part.task == "regression":
        return np.asarray(scores + (random.choice(errors, len(scores)) if len(errors) else 0))
    if part.task == "multilabel":
        return np.asarray(random.random(scores.shape) < scores, dtype=np.float64)
    below = scores.cumsum(axis=1) / np.maximum(scores.sum(axis=1, keepdims=True), 1e-12)
    codes = (random.random((len(scores), 1)) > below).sum(axis=1)
    return np.asarray(np.minimum(codes, scores.shape[1] - 1), dtype=np.float64)


def truths(part: Part, sample: Sample) -> Array:
    """Return the true answers, shaped as `decided` has them; of those that are not known nan, -1 or 0."""
    true = sample.truth[:, part.true]
    if part.task == "multilabel":
        return np.nan_to_num(true, nan=0.0)
    return true[:, 0] if part.task == "regression" else np.nan_to_num(true[:, 0], nan=-1.0)


def sureness(part: Part, scores: Array) -> Array:
    """Return how sure the model is of its answer (rows,), in [0, 1]; of several labels, of each on average."""
    if part.task == "multilabel":
        return np.asarray(np.maximum(scores, 1 - scores).mean(axis=1))
    return np.asarray(scores.max(axis=1))


def losses(part: Part, sample: Sample) -> Array:
    """Return of each row whether the answer is wrong, which share of its labels is, or by how much it is off: (rows,).

    nan where the true one is not known.
    """
    found = np.full(len(sample), np.nan)
    known = part.known(sample.truth)
    true, answers = part.truth(sample.truth), decided(part, part.scores(sample.scores))[known]
    if part.task == "regression":
        found[known] = np.abs(answers - true)
    elif part.task == "multilabel":
        found[known] = (answers != true).mean(axis=1)
    else:
        found[known] = answers != true
    return found
