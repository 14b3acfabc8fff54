"""What an adversary wants of a model's raw output, by task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from polyfuse.core.errors import InputError


@dataclass(frozen=True)
class Goal(ABC):
    """What is wanted of some rows.

    Attributes:
        truth: (rows, …), as the head encodes answers.
        ends: whether there is a point at which a row has nothing more to give.
    """

    truth: Tensor
    ends: ClassVar[bool] = True

    @abstractmethod
    def damage(self, output: Tensor) -> Tensor:
        """Return by how much the answers are wrong (rows,): what an adversary wants most of."""

    @abstractmethod
    def reached(self, output: Tensor) -> Tensor:
        """Return for which rows there is nothing more to want: (rows,) bool."""

    def loss(self, output: Tensor) -> Tensor:
        """Return what a gradient attack raises (rows,), where it is told of nothing else."""
        return self.damage(output)

    def scale_free(self, output: Tensor) -> Tensor:
        """Return the damage in a unit that multiplying all outputs does not change, where the task has one (rows,)."""
        return self.damage(output)

    def rivals(self, output: Tensor, most: int) -> list[Rival]:
        """Return goals that each lead to another wrong answer, for the outputs at the clean inputs."""
        return []

    def rows(self, chosen: Tensor) -> Self:
        """Return the goal for some rows."""
        return replace(self, truth=self.truth[chosen])


@dataclass(frozen=True)
class Wrong(Goal):
    """Classification: any label but the true one.

    damage = max_{j≠y} z_j - z_y, reached above 0; loss: cross-entropy; free of scale: the difference of logits ratio
    (Croce & Hein 2020), damage / (z_π1 - z_π3), with z_π1 ≥ z_π2 ≥ …; of two labels, where it is constant, the damage.
    """

    def damage(self, output: Tensor) -> Tensor:
        """Return the best wrong logit less the true one."""
        others = output.masked_fill(F.one_hot(self.truth, output.shape[1]).bool(), -torch.inf)
        return others.amax(1) - self._true(output)

    def reached(self, output: Tensor) -> Tensor:
        """Return where another logit is the largest; of equal ones the model answers the first."""
        return output.argmax(1) != self.truth

    def loss(self, output: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(output, self.truth, reduction="none")

    def scale_free(self, output: Tensor) -> Tensor:
        """Return the difference of logits ratio."""
        if output.shape[1] < 3:
            return self.damage(output)
        top = output.topk(3).values
        return self.damage(output) / (top[:, 0] - top[:, 2] + 1e-12)

    def rivals(self, output: Tensor, most: int) -> list[Rival]:
        """Return one goal for each of the most likely wrong labels; of two labels there is nothing to choose."""
        labels = output.shape[1]
        if labels < 3:
            return []
        order = output.masked_fill(F.one_hot(self.truth, labels).bool(), -torch.inf).argsort(1, descending=True)
        return [Rival(self.truth, order[:, rank]) for rank in range(min(most, labels - 1))]

    def _true(self, output: Tensor) -> Tensor:
        return output.gather(1, self.truth[:, None]).squeeze(1)


@dataclass(frozen=True)
class Rival(Wrong):
    """Classification: any wrong label, by way of one of them.

    loss: the targeted difference of logits ratio (Croce & Hein 2020), (z_t - z_y) / (z_π1 - (z_π3 + z_π4) / 2); of
    three labels z_π3 stands alone in the brackets.

    Attributes:
        label: t of each row, (rows,).
    """

    label: Tensor

    def loss(self, output: Tensor) -> Tensor:
        """Return the ratio."""
        top = output.topk(min(4, output.shape[1])).values
        return self.ahead(output) / (top[:, 0] - top[:, 2:].mean(1) + 1e-12)

    def ahead(self, output: Tensor) -> Tensor:
        """Return z_t - z_y (rows,)."""
        return output.gather(1, self.label[:, None]).squeeze(1) - self._true(output)

    def rows(self, chosen: Tensor) -> Self:
        """Return the goal for some rows."""
        return replace(self, truth=self.truth[chosen], label=self.label[chosen])


@dataclass(frozen=True)
class Apart(Goal):
    """Classification: another distribution than the one at the clean inputs, whose logits are `truth`.

    damage = KL(p ‖ p') = Σ_c p_c (log p_c - log p'_c), what TRADES attacks (Zhang et al. 2019).
    """

    ends: ClassVar[bool] = False

    def damage(self, output: Tensor) -> Tensor:
        """Return the divergence."""
        return F.kl_div(output.log_softmax(1), self.truth.log_softmax(1), reduction="none", log_target=True).sum(1)

    def reached(self, output: Tensor) -> Tensor:
        """Return no row."""
        return torch.zeros_like(output[:, 0], dtype=torch.bool)


@dataclass(frozen=True)
class Towards(Goal):
    """Classification: one label, as `truth` names it for each row. damage = z_t - max_{j≠t} z_j."""

    def damage(self, output: Tensor) -> Tensor:
        """Return the wanted logit less the best other."""
        return -Wrong(self.truth).damage(output)

    def reached(self, output: Tensor) -> Tensor:
        """Return where the wanted label is answered."""
        return output.argmax(1) == self.truth

    def loss(self, output: Tensor) -> Tensor:
        """Return the log-probability of the wanted label."""
        return -Wrong(self.truth).loss(output)

    def scale_free(self, output: Tensor) -> Tensor:
        """Return the difference of logits ratio."""
        return -Wrong(self.truth).scale_free(output)


@dataclass(frozen=True)
class Off(Goal):
    """Regression: as far from the truth as can be. damage = |ẑ - z|; there is always more to want."""

    ends: ClassVar[bool] = False

    def damage(self, output: Tensor) -> Tensor:
        """Return the distance, in standard deviations of the target."""
        return (output - self.truth).abs()

    def reached(self, output: Tensor) -> Tensor:
        """Return no row."""
        return torch.zeros_like(output, dtype=torch.bool)


@dataclass(frozen=True)
class AnyLabel(Goal):
    """Several labels at once: one of them wrong. damage = max_l (1 - 2 t_l) z_l."""

    def damage(self, output: Tensor) -> Tensor:
        """Return the logit of the label that is most wrong, its sign turned where the label is true."""
        return (output * (1 - 2 * self.truth)).amax(1)

    def reached(self, output: Tensor) -> Tensor:
        """Return where a label is wrong."""
        return ((output >= 0) != self.truth.bool()).any(1)


@dataclass(frozen=True)
class Unseen(Goal):
    """What another goal wants, at a suspicion that does not exceed a threshold; outputs end with a column of it.

    damage = min(damage of the other goal, threshold - suspicion), reached where both are: whatever is further from it
    leads the way, so that no weight between the two has to be found (in the spirit of Bryniarski et al. 2022, who take
    one of both gradients at a time).

    Attributes:
        goal: the other one.
        threshold: of the suspicion.
    """

    goal: Goal
    threshold: float

    def damage(self, output: Tensor) -> Tensor:
        """Return the lesser of both."""
        return torch.minimum(self.goal.damage(output[:, :-1]), self.threshold - output[:, -1])

    def reached(self, output: Tensor) -> Tensor:
        """Return where the other goal is reached without being seen."""
        return self.goal.reached(output[:, :-1]) & (output[:, -1] <= self.threshold)

    def rows(self, chosen: Tensor) -> Self:
        """Return the goal for some rows."""
        return replace(self, truth=self.truth[chosen], goal=self.goal.rows(chosen))


GOALS: dict[str, type[Goal]] = {"classification": Wrong, "regression": Off, "multilabel": AnyLabel}


def goal_of(task: str, truth: Tensor, wanted: int | None = None) -> Goal:
    """Return the goal of an attack.

    Args:
        task: of the model.
        truth: (rows, …), as the head encodes answers.
        wanted: number of the label to go to, of a classification; anything wrong when left out.

    Raises:
        InputError: there is none for the task.
    """
    if task not in GOALS:
        known = ", ".join(GOALS)
        raise InputError(f"attack: the model answers {task}; attacks know {known}: fit a model of one target")
    return GOALS[task](truth) if wanted is None else Towards(torch.full_like(truth, wanted))
