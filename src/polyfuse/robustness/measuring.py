"""What is measured of answers under attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.rows import Rows
from polyfuse.metrics.bootstrap import Interval, bootstrap
from polyfuse.metrics.metric import Array

_METRICS = {"classification": "accuracy", "multilabel": "subset_accuracy", "regression": "mae"}
#: The share of rows that are not answered with the label that the adversary wants.
KEPT = "kept"


@dataclass(frozen=True, eq=False)
class Yardstick:
    """How wrong scores are.

    Attributes:
        task: of the model.
        truth: (rows, …), as metrics read it.
        wanted: number of the label that the adversary wants to be answered; None where anything wrong will do.
    """

    task: str
    truth: Tensor
    wanted: int | None = None

    @property
    def metric(self) -> str:
        """Name of what `interval` gives."""
        return _METRICS[self.task] if self.wanted is None else KEPT

    def interval(self, scores: Tensor) -> Interval:
        """Return the metric. scores: (rows, …)."""
        name, truth = _METRICS[self.task], self.truth
        if self.wanted is not None:
            truth = torch.full_like(truth, self.wanted)
        y_true: Array = truth.numpy()
        y_score: Array = scores.numpy()
        found = bootstrap([name], y_true, y_score)[name]
        return found if self.wanted is None else Interval(1 - found.value, 1 - found.high, 1 - found.low)

    def harm(self, scores: Tensor) -> Tensor:
        """Return how wrong scores are (rows,): what is wrong first, then by how much."""
        if self.task == "regression":
            return (scores - self.truth).abs()
        if self.task == "multilabel":
            sure = torch.where(self.truth.bool(), 1 - scores, scores)
            return ((scores >= 0.5) != self.truth.bool()).any(1) + sure.amax(1)
        if self.wanted is not None:
            return (scores.argmax(1) == self.wanted) + scores[:, self.wanted]
        true = scores.gather(1, self.truth[:, None]).squeeze(1)
        return (scores.argmax(1) != self.truth) + (1 - true)


def targeted(rows: Rows, towards: object) -> tuple[Rows, int]:
    """Return the rows of which another label is true, and the label's number.

    Args:
        rows: with answers.
        towards: the label that the adversary wants to be answered, or its text.

    Raises:
        InputError: the task is no classification, the label is unknown, or no row is left.
    """
    target = rows.schema.target
    if target.task != "classification":
        raise InputError(f"attack: {target.name!r} is a {target.task}, which has no label to go towards; leave it out")
    names = [str(level) for level in target.levels]
    if str(towards) not in names:
        raise InputError(f"attack: {target.name!r} has no label {str(towards)!r}; {nearest(str(towards), names)}")
    wanted = names.index(str(towards))
    others = [row for row, answer in enumerate(rows.answers) if answer != target.levels[wanted]]
    if not others:
        raise InputError(f"attack: all rows have the label {str(towards)!r} as it is; give rows of other labels")
    return rows.subset(others), wanted
