"""A learner for each of several targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyfuse.core.errors import ArtifactError
from polyfuse.core.files import whole_file
from polyfuse.data.measures import parts_of
from polyfuse.data.schema import Target
from polyfuse.learners import LEARNERS
from polyfuse.learners.learner import Array, Design, Learner

_LEAST = 4  # rows with an answer below which nothing is learned
_FILE = "targets.json"


def make_learner(name: str, options: Mapping[str, Any], target: Target) -> Learner:
    """Make the learner of a target; of several targets, one for each.

    Raises:
        InputError: the name, or an option, is unknown.
    """
    if not target.parts:
        return LEARNERS.build(name, options, target)
    return SeveralLearner(target, [LEARNERS.build(name, options, part) for part in target.parts])


class SeveralLearner(Learner):
    """Learns each target by itself, from the rows that have it; where too few do, the training prior is its answer.

    Answers stand side by side, one column for a code or a number, one for each label of a multilabel target, nan where
    not known; so do the scores, and weights of rows (rows, targets).

    Args:
        target: of several parts.
        learners: of each.
    """

    def __init__(self, target: Target, learners: Sequence[Learner]) -> None:
        super().__init__(target)
        self.learners = list(learners)
        self._places = parts_of(target)
        self._chosen = [False] * len(self.learners)
        self._fitted = [False] * len(self.learners)

    def choose(self, design: Design, answers: Array, held: Array, *, weights: Array | None = None) -> None:
        """Choose the hyperparameters of each, on the held rows that have its target."""
        for i, place in enumerate(self._places):
            rows = np.flatnonzero(place.known(answers))
            deciding = np.flatnonzero(np.isin(rows, held))
            if not 0 < len(deciding) < len(rows):
                deciding = np.arange(0, len(rows), _LEAST)
            self._chosen[i] = len(rows) >= _LEAST
            if self._chosen[i]:
                some = None if weights is None else weights[rows, i]
                self.learners[i].choose(_only(design, rows), self._own(answers, i), deciding, weights=some)

    def fit(self, design: Design, answers: Array, *, weights: Array | None = None) -> None:
        """Fit each to the rows that have its target."""
        for i, place in enumerate(self._places):
            rows = np.flatnonzero(place.known(answers))
            self._fitted[i] = self._chosen[i] and len(rows) >= _LEAST
            if self._fitted[i]:
                some = None if weights is None else weights[rows, i]
                self.learners[i].fit(_only(design, rows), self._own(answers, i), weights=some)

    def scores(self, design: Design) -> Array:
        """Return the scores of each side by side (rows, columns)."""
        return np.hstack([self._scores(i, design).reshape(len(design), -1) for i in range(len(self.learners))])

    def save(self, folder: Path) -> None:
        """Write each to a folder of its own, `0`, `1`, …, and which of them have learned anything."""
        for i, learner in enumerate(self.learners):
            if self._fitted[i]:
                (folder / str(i)).mkdir(parents=True, exist_ok=True)
                learner.save(folder / str(i))
        with whole_file(folder / _FILE) as temporary:
            temporary.write_text(json.dumps({"fitted": self._fitted}), encoding="utf-8")

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        path = folder / _FILE
        try:
            fitted = [bool(one) for one in json.loads(path.read_text(encoding="utf-8"))["fitted"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error
        if len(fitted) != len(self.learners):
            raise ArtifactError(f"{path} is of {len(fitted)} targets, not {len(self.learners)}")
        self._chosen, self._fitted = list(fitted), fitted
        for i, learner in enumerate(self.learners):
            if fitted[i]:
                learner.restore(folder / str(i))

    def _own(self, answers: Array, i: int) -> Array:
        """Return the answers of one target, of the rows that have it, as its learner wants them."""
        own = self._places[i].truth(answers)
        return own.astype(np.float32) if self._places[i].task == "multilabel" else own

    def _scores(self, i: int, design: Design) -> Array:
        if self._fitted[i]:
            return self.learners[i].scores(design)
        part = self.target.parts[i]
        prior: Array = np.asarray(part.frequencies or [part.mean], dtype=np.float64)
        return np.tile(prior, (len(design), 1))


def _only(design: Design, rows: Array) -> Design:
    return design if len(rows) == len(design) else design.rows(rows)
