"""What a model keeps of its validation rows, so that its probabilities mean what they say, and sets hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.calibration.scaling import Choice, Scaling, choose_scaling
from polyfuse.core.errors import InputError, nearest
from polyfuse.data.measures import parts_of
from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array
from polyfuse.metrics.several import Part

MOST = 5_000  # rows that are fitted on, and kept
MOST_NUMBERS = 1_000_000  # of kept scores


@dataclass(frozen=True, eq=False)
class Calibration:
    """A scaling for each target, and the rows that it was fitted on.

    Attributes:
        parts: where each target stands.
        scalings: by target.
        truth: of the rows kept (rows, columns), of targets side by side, nan where one is not known.
        scores: of those rows (rows, columns), each scaled by what was fitted on others.
    """

    parts: list[Part]
    scalings: dict[str, Scaling]
    truth: Array
    scores: Array

    def apply(self, scores: Array, answered: NDArray[np.bool_]) -> Array:
        """Return scaled scores. scores: a model's (rows, …); answered: (rows,) those that are not the prior."""
        if all(scaling.method == "none" for scaling in self.scalings.values()):
            return scores
        wide = side_by_side(scores).copy()
        for part in self.parts:
            wide[answered, part.score] = self.scalings[part.name].apply(wide[answered, part.score])
        return wide.reshape(scores.shape)

    def kept(self, target: str) -> tuple[Array, Array]:
        """Return truth and scaled scores of the rows kept that have an answer for a target, as its metrics want them.

        Raises:
            InputError: it was not asked for.
        """
        known = {part.name: part for part in self.parts}
        if target not in known:
            raise InputError(f"calibration: {target!r} is not among the targets; {nearest(target, known)}")
        return known[target].only(self.truth, self.scores)

    def told(self) -> list[str]:
        """Say in a sentence for each target what was fitted; nothing of one whose scores stay as they are."""
        return [
            f"Probabilities of {name} are calibrated ({scaling.method}) on {scaling.rows:,} validation rows."
            for name, scaling in self.scalings.items()
            if scaling.method != "none"
        ]

    def data(self) -> dict[str, Any]:
        """Return by target what was fitted and why, as JSON values."""
        return {
            name: {
                "method": scaling.method,
                "temperature": scaling.temperature,
                "rows": scaling.rows,
                "why": scaling.why,
            }
            for name, scaling in self.scalings.items()
        }


def side_by_side(values: Array) -> Array:
    """Return values (rows, …) as columns (rows, columns)."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def places_of(target: Target) -> list[Part]:
    """Return where each target stands in truth and scores side by side; of one, where it stands alone."""
    return parts_of(target if target.parts else target.model_copy(update={"parts": [target]}))


def calibrate(
    y_true: Array,
    y_score: Array,
    answered: NDArray[np.bool_],
    target: Target,
    choice: Choice = "auto",
    *,
    seed: int = 0,
) -> tuple[Calibration, Array]:
    """Return a calibration, and the scores of all rows, none scaled by what was fitted on itself.

    At most 5,000 rows are fitted on, drawn at random. What is measured on the scores that come back is what the
    calibration does to other rows: those fitted on are scaled by folds.

    Args:
        y_true: as metrics of the target's task want it (rows, …); of several targets side by side.
        y_score: by models that have not learned from these rows (rows, …).
        answered: (rows,) whether anything was present; the others have the prior and stay as they are.
        target: what was asked.
        choice: of each target.
        seed: of all random numbers.
    """
    truth, scores = side_by_side(np.asarray(y_true, dtype=np.float64)), side_by_side(y_score)
    random = np.random.default_rng(seed)
    drawn = random.permutation(np.flatnonzero(answered & np.isfinite(scores).all(axis=1)))[:MOST]
    parts = places_of(target)
    found, by_others = {}, {}
    for part in parts:
        known = drawn[part.known(truth[drawn])]
        of_part = part.only(truth[known], scores[known])
        found[part.name], held = choose_scaling(part.task, *of_part, choice, seed=seed)
        by_others[part.name] = known, side_by_side(held)
    wide = Calibration(parts, found, truth[:0], scores[:0]).apply(scores, answered).copy()
    for part in parts:
        known, held = by_others[part.name]
        wide[known, part.score] = held
    kept = drawn[: MOST_NUMBERS // max(scores.shape[1], 1)]
    # A number may be large beside what it differs by; a probability is not.
    kind = np.float64 if any(part.task == "regression" for part in parts) else np.float32
    calibration = Calibration(parts, found, truth[kept].astype(kind), wide[kept].astype(kind))
    return calibration, wide.reshape(np.shape(y_score))
