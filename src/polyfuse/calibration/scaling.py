"""From scores to scores that mean what they say: of the rows answered with 0.8, eight in ten are right.

Logits follow from probabilities up to a constant, so that everything acts on scores, whoever made them: a network, an
ensemble, boosted trees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from polyfuse.data.splits import folds
from polyfuse.metrics.classification import row_losses
from polyfuse.metrics.metric import Array, Floats

Method: TypeAlias = Literal["none", "temperature", "vector"]
Choice: TypeAlias = Literal["auto", "none", "temperature", "vector"]

#: From the simplest to the one that may do most.
METHODS: tuple[Method, ...] = get_args(Method)
LEAST = 50  # rows to fit on
EACH = 10  # rows of each label, for a vector
FOLDS = 5
MOST_WEIGHT = 20.0  # weights lie from 1/20 to 20
MOST_BIAS = 10.0
_RIDGE = 1.0  # of one row's weight: what no row tells of stays as it is
_TINY = float(np.finfo(np.float32).tiny)
_EPSILON = 1e-12


@dataclass(frozen=True, eq=False)
class Scaling:
    """A map from scores to scores.

    With z = log p of a classification, z = log p - log (1 - p) of labels that each may be there or not, the scores
    become softmax(w z + b) and σ(w z + b). A temperature T is w = 1/T for all labels and b = 0 (Guo et al. 2017): it
    never changes which label is answered. A vector has a w above 0 and a b for each label, and may.

    Attributes:
        task: classification, multilabel or regression; a regression has no probabilities and is left as it is.
        method: "none", "temperature" or "vector".
        weights: w (labels,).
        biases: b (labels,).
        rows: that it was fitted on.
        why: this method.
    """

    task: str
    method: Method
    weights: Floats
    biases: Floats
    rows: int = 0
    why: str = ""

    @classmethod
    def none(cls, task: str, labels: int, *, rows: int = 0, why: str = "") -> Scaling:
        """Return the one that leaves scores of so many labels as they are."""
        return cls(task, "none", np.ones(labels), np.zeros(labels), rows, why)

    @property
    def temperature(self) -> float | None:
        """T, above 1 where the scores were too sure; None where there is none."""
        return float(1 / self.weights[0]) if self.method == "temperature" else None

    def apply(self, scores: Array) -> Array:
        """Return scaled scores of the same shape and type. scores: probabilities (rows, labels)."""
        if self.method == "none" or len(scores) == 0:
            return scores
        scaled = _probabilities(self.task, self.weights * logits(self.task, scores) + self.biases).astype(scores.dtype)
        return _same_answers(self.task, scores, scaled) if self.method == "temperature" else scaled


def logits(task: str, scores: Array) -> Floats:
    """Return z of probabilities (rows, labels), up to what makes no difference."""
    wide = np.asarray(scores, dtype=np.float64)
    if task == "classification":
        logs: Floats = np.log(wide.clip(min=_TINY))
        return logs
    inside = wide.clip(_EPSILON, 1 - _EPSILON)
    odds: Floats = np.log(inside) - np.log1p(-inside)
    return odds


def fit_scaling(task: str, y_true: Array, y_score: Array, method: Method) -> Scaling:
    """Return the scaling that makes the truth most likely: the least mean negative log-likelihood.

    A ridge of the weight of one row pulls towards no change; weights and biases have bounds.

    Args:
        task: classification or multilabel.
        y_true: codes (rows,), or 0/1 (rows, labels).
        y_score: probabilities (rows, labels).
        method: what is fitted.
    """
    labels = y_score.shape[1]
    if method == "none":
        return Scaling.none(task, labels, rows=len(y_true))
    z = logits(task, y_score)
    here = np.eye(labels)[y_true] if task == "classification" else np.asarray(y_true, dtype=np.float64)
    if method == "temperature":
        weights, biases = np.full(labels, _inverse_temperature(task, here, z)), np.zeros(labels)
    else:
        weights, biases = _vector(task, here, z)
    return Scaling(task, method, weights, biases, len(y_true))


def choose_scaling(task: str, y_true: Array, y_score: Array, choice: Choice, *, seed: int = 0) -> tuple[Scaling, Array]:
    """Return a scaling fitted on some rows, and their scores scaled by others: each fold's fitted on the other folds.

    With "auto" the least cross-validated loss decides between none, a temperature and a vector, and of those within one
    standard error of it (of the difference, row by row) the simplest is taken (Breiman et al. 1984). A vector needs
    rows of every label, and must not lower the accuracy. With too few rows there is none, and `why` says so.

    Args:
        task: of the target.
        y_true: codes (rows,), 0/1 (rows, labels), or numbers.
        y_score: probabilities (rows, labels), by a model that has not learned from these rows.
        choice: what is asked for.
        seed: of the folds.
    """
    labels = y_score.shape[1] if y_score.ndim == 2 else 1
    none = _why_none(task, y_true, choice)
    if none:
        return Scaling.none(task, labels, rows=len(y_true), why=none), y_score
    answers = y_true.tolist() if task == "classification" else [np.flatnonzero(row).tolist() for row in y_true]
    held = folds(answers, "classification" if task == "classification" else "multilabel", count=FOLDS, seed=seed)
    tried: list[Method] = [choice] if choice != "auto" else ["none", "temperature"]
    if choice == "auto" and _room_for_vector(task, y_true, labels):
        tried.append("vector")
    right = _right(task, y_true, y_score)
    scores = {method: _by_others(task, y_true, y_score, method, held) for method in tried}
    if choice == "auto" and "vector" in scores and _right(task, y_true, scores["vector"]) < right:
        del scores["vector"]
    losses = {method: losses_of(task, y_true, some) for method, some in scores.items()}
    method = _simplest(losses)
    figures = ", ".join(f"{name} {loss.mean():.4f}" for name, loss in losses.items())
    rule = "; the simplest within a standard error of the least" if choice == "auto" else ""
    why = f"cross-validated log loss: {figures}{rule}"
    found = fit_scaling(task, y_true, y_score, method)
    return Scaling(task, method, found.weights, found.biases, len(y_true), why), scores[method]


def losses_of(task: str, y_true: Array, y_score: Array) -> Floats:
    """Return the negative log-likelihood of each row (rows,) in nats; of several labels their mean."""
    if task == "classification":
        return row_losses(y_true, y_score)
    right = np.where(y_true > 0, y_score, 1 - y_score.astype(np.float64))
    losses: Floats = -np.log(right.clip(np.finfo(np.float64).eps, 1.0)).mean(axis=1)
    return losses


def _why_none(task: str, y_true: Array, choice: Choice) -> str:
    """Say why nothing can be fitted; empty where something can."""
    if task == "regression":
        return "a regression has no probabilities"
    if choice == "none":
        return "none was asked for"
    if len(y_true) < LEAST:
        return f"{len(y_true)} rows to fit on, and it needs {LEAST}"
    if len(np.unique(y_true)) < 2:
        return "all rows to fit on have the same answer"
    return ""


def _room_for_vector(task: str, y_true: Array, labels: int) -> bool:
    """Tell whether every label has rows enough to tell of it; of several labels, rows without it too."""
    if task == "classification":
        return int(np.bincount(y_true, minlength=labels).min()) >= EACH
    there = (y_true > 0).sum(axis=0)
    return int(np.minimum(there, len(y_true) - there).min()) >= EACH


def _by_others(task: str, y_true: Array, y_score: Array, method: Method, held: list[Array]) -> Array:
    """Return the scores of each fold, scaled by what was fitted on the others."""
    if method == "none":
        return y_score
    scaled = y_score.copy()
    for fold in held:
        others = np.setdiff1d(np.arange(len(y_true)), fold)
        scaled[fold] = fit_scaling(task, y_true[others], y_score[others], method).apply(y_score[fold])
    return scaled


def _simplest(losses: dict[Method, Floats]) -> Method:
    """Return the first whose mean loss is within one standard error of the least."""
    best = losses[min(losses, key=lambda method: float(losses[method].mean()))]
    for method, loss in losses.items():
        apart = loss - best
        if apart.mean() <= apart.std(ddof=1) / math.sqrt(len(apart)):
            return method
    raise AssertionError("the least is within its own error")


def _right(task: str, y_true: Array, y_score: Array) -> float:
    """Return the share of answers that are right; of several labels, each by itself."""
    if task == "classification":
        return float(np.mean(y_score.argmax(axis=1) == y_true))
    return float(np.mean((y_score >= 0.5) == (y_true > 0)))


def _probabilities(task: str, z: Floats) -> Floats:
    from scipy.special import expit, softmax

    found: Floats = softmax(z, axis=1) if task == "classification" else expit(z)
    return found


def _same_answers(task: str, before: Array, after: Array) -> Array:
    """Return scaled scores in which no rounding turned an answer: what came out equal is put a step apart."""
    if task == "classification":
        rows, answered = np.arange(len(before)), before.argmax(axis=1)
        turned = after.argmax(axis=1) != answered
        if turned.any():
            some, codes = rows[turned], answered[turned]
            after[some, codes] = np.nextafter(after[some].max(axis=1), after.dtype.type(2))
        return after
    under = after.dtype.type(0.5) - np.finfo(after.dtype).eps
    return np.where((before < 0.5) & (after >= 0.5), under, after)


def _inverse_temperature(task: str, here: Floats, z: Floats) -> float:
    """Return 1/T. The loss is convex in it, so that what is found is the least."""
    from scipy.optimize import minimize_scalar

    def loss(log: float) -> float:
        return _loss(task, here, math.exp(log) * z) + _RIDGE / len(z) * log**2 / 2

    end = math.log(MOST_WEIGHT)
    return math.exp(minimize_scalar(loss, bounds=(-end, end), method="bounded", options={"xatol": 1e-4}).x)


def _vector(task: str, here: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Return w and b."""
    from scipy.optimize import minimize

    rows, labels = z.shape
    ridge = _RIDGE / rows

    def loss(of: Floats) -> tuple[float, Floats]:
        weights, biases = of[:labels], of[labels:]
        u = weights * z + biases
        slope = (_probabilities(task, u) - here) / rows / (1 if task == "classification" else labels)
        away = np.concatenate([weights - 1, biases])
        value = _loss(task, here, u) + ridge * away @ away / 2
        return value, np.concatenate([(slope * z).sum(0), slope.sum(0)]) + ridge * away

    start = np.concatenate([np.full(labels, _inverse_temperature(task, here, z)), np.zeros(labels)])
    bounds = [(1 / MOST_WEIGHT, MOST_WEIGHT)] * labels + [(-MOST_BIAS, MOST_BIAS)] * labels
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:labels], found[labels:]


def _loss(task: str, here: Floats, u: Floats) -> float:
    """Return the mean negative log-likelihood of logits (rows, labels), in nats."""
    if task == "classification":
        top = u.max(axis=1)
        whole = top + np.log(np.exp(u - top[:, None]).sum(axis=1))
        return float(whole.mean() - np.einsum("ij,ij->", u, here) / len(u))
    return float(np.mean(np.logaddexp(0, np.where(here > 0, -u, u))))
