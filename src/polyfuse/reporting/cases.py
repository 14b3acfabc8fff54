"""A few rows that tell most, and why they were answered so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress
from polyfuse.data.rows import Rows
from polyfuse.explanation import FAST, Effort, Explanations, explain_model
from polyfuse.metrics.metric import Array
from polyfuse.model import Model


@dataclass(frozen=True, eq=False)
class Cases:
    """A few rows, explained.

    Attributes:
        why: each of them was chosen: "the surest mistake", ….
        truths: their true answers, as a table has them.
        explanations: of them.
    """

    why: list[str]
    truths: list[Any]
    explanations: Explanations

    def __str__(self) -> str:
        return str(self.explanations)

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"why": self.why, "truths": self.truths, **self.explanations.data()}


def cases(
    model: Model,
    rows: Rows,
    device: torch.device,
    y_true: Array,
    y_score: Array,
    *,
    train: Rows | None,
    calibration: Calibration | None = None,
    fast: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Cases:
    """Explain a few rows.

    Args:
        model: on the device.
        rows: with answers.
        device: where the model is.
        y_true: their truth.
        y_score: their scores.
        train: training rows, among which the nearest are looked for.
        calibration: of the scores, where there is one.
        fast: fewer rows, and less spent on each.
        seed: of all random numbers.
        progress: shows how far it is.

    Raises:
        InputError: the model has several targets, or nothing of it can be explained.
    """
    if rows.schema.target.parts:
        raise InputError("the model answers several targets; ask for explanations of a model of one")
    chosen = _chosen(rows, y_true, y_score)
    chosen = dict(list(chosen.items())[: 3 if fast else 4])
    some = rows.subset(list(chosen.values()))
    effort = FAST if fast else Effort()
    how: dict[str, Any] = {"calibration": calibration, "train": train, "effort": effort, "seed": seed}
    found = explain_model(model, some, device, **how, progress=progress)
    truths = [list(answer) if isinstance(answer, list | tuple | set) else answer for answer in some.answers]
    return Cases(list(chosen), truths, found)


def _chosen(rows: Rows, y_true: Array, y_score: Array) -> dict[str, int]:
    """Return rows that tell most, by why."""
    here = rows.present.any(1).numpy()
    task, places = rows.schema.target.task, np.arange(len(rows))
    if task == "regression":
        error = np.where(here, np.abs(y_true - y_score), np.nan)
        order = np.argsort(-np.nan_to_num(error, nan=-1.0), kind="stable")
        found = {"the largest error": order[0], "the second largest error": order[min(1, len(order) - 1)]}
        found["an error in the middle"] = places[np.abs(error - np.nanmedian(error)).argsort(kind="stable")[0]]
    else:
        labels = task == "multilabel"
        right = ((y_score >= 0.5) == y_true).all(1) if labels else y_score.argmax(1) == y_true
        sure = np.abs(y_score - 0.5).min(1) if labels else y_score.max(1)
        found = {}
        wrong = np.flatnonzero(~right & here)
        if len(wrong):
            found["the surest mistake"] = wrong[sure[wrong].argmax()]
        well = np.flatnonzero(right & here)
        if len(well):
            found["a typical right answer"] = well[np.argsort(sure[well], kind="stable")[len(well) // 2]]
        unsure = np.flatnonzero(here)
        if len(unsure):
            found["the least sure answer"] = unsure[sure[unsure].argmin()]
        if len(well):
            found["the surest right answer"] = well[sure[well].argmax()]
    seen: dict[int, str] = {}
    for why, row in found.items():
        if here[int(row)]:
            seen.setdefault(int(row), why)
    if not seen:
        raise InputError("in no row is anything present that an answer could come from; give other rows")
    return {why: row for row, why in seen.items()}
