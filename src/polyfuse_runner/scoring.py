"""From what a model says to answers: scores of each target, calibrated, and the labels they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

_TINY = float(np.finfo(np.float32).tiny)
_EPSILON = 1e-12


class Part:
    """One target, and where it stands beside the others.

    Attributes:
        columns: of the joint scores.
        name: of the target.
        task: classification, multilabel or regression.
        levels: its labels.
    """

    def __init__(self, about: Mapping[str, Any], start: int) -> None:
        self.about, self.name, self.task, self.levels = about, about["name"], about["task"], about["levels"]
        self.columns = slice(start, start + (len(self.levels) or 1))

    @property
    def prior(self) -> Floats:
        """What is said of a row about which nothing is known."""
        return np.array(self.about["frequencies"] or [self.about["mean"]], dtype=np.float64)

    def scores(self, output: Floats) -> Floats:
        """Return probabilities, or values in the target's own unit, of a head's raw output (rows, labels)."""
        if self.task == "regression":
            values: Floats = output * self.about["std"] + self.about["mean"]
            return values
        return _probabilities(self.task, output)

    def calibrated(self, scores: Floats) -> Floats:
        """Return softmax(w z + b), or σ(w z + b), with z = log p, or log p - log (1 - p)."""
        scaling = self.about.get("scaling")
        if scaling is None or not len(scores):
            return scores
        if self.task == "classification":
            z = np.log(scores.clip(min=_TINY))
        else:
            inside = scores.clip(_EPSILON, 1 - _EPSILON)
            z = np.log(inside) - np.log1p(-inside)
        scaled = _probabilities(self.task, np.array(scaling["weights"]) * z + np.array(scaling["biases"]))
        # A temperature never turns an answer, so rounding must not either.
        return self._same(scores, scaled) if scaling["method"] == "temperature" else scaled

    def answers(self, scores: Floats) -> list[Any]:
        """Return a label, a list of labels or a number of each row."""
        if self.task == "classification":
            return [self.levels[code] for code in scores.argmax(axis=1).tolist()]
        if self.task == "regression":
            return [float(score) for score in scores[:, 0]]
        rows = (scores >= 0.5).tolist()
        return [[level for level, chosen in zip(self.levels, row, strict=True) if chosen] for row in rows]

    def _same(self, before: Floats, after: Floats) -> Floats:
        if self.task == "multilabel":
            return np.where((before < 0.5) & (after >= 0.5), np.nextafter(0.5, 0), after)
        answered = before.argmax(axis=1)
        turned = np.flatnonzero(after.argmax(axis=1) != answered)
        after[turned, answered[turned]] = np.nextafter(after[turned].max(axis=1), 2)
        return after


def parts_of(targets: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Return the targets, side by side."""
    parts: list[Part] = []
    for about in targets:
        parts.append(Part(about, parts[-1].columns.stop if parts else 0))
    return parts


def _probabilities(task: str, z: Floats) -> Floats:
    if task == "classification":
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))
