"""Fairness in training: a loss that narrows how differently groups of rows are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from polyfuse.core.contract import Head
from polyfuse.core.errors import InputError
from polyfuse.data.schema import Strict
from polyfuse.metrics.metric import Array, Metric
from polyfuse.metrics.multilabel import THRESHOLD

Criterion = Literal["demographic_parity", "equalized_odds", "worst_group"]
#: Rows that a group (with equalized_odds a group of a label) needs to be told of.
LEAST = 10
_WEIGHTS: dict[Criterion, float] = {"demographic_parity": 10.0, "equalized_odds": 10.0, "worst_group": 0.1}
_MEMORY = 0.9  # of running sums, at each batch that adds to them


class FairnessSettings(Strict):
    """What a model is to answer alike, in training.

    Attributes:
        column: whose values are the groups. It is no input of the model unless a modality names it, and prediction
            does without it. Numbers of more than five distinct values are cut at their quartiles, and missing values
            are a group of their own.
        criterion: "demographic_parity": groups get the same mean prediction; "equalized_odds": the same among the rows
            of each label, of a classification (Hardt et al. 2016); both by a penalty on squared differences.
            A model that does not see the column pays more for it than thresholds of each group's own, which do (Lipton
            et al. 2018). "worst_group": what counts is the loss of the worst group (group DRO, Sagawa et al. 2020).
        weight: of the penalty, 10 when left out; with worst_group the step η of the groups' weights, 0.1.
    """

    column: str
    criterion: Criterion = "demographic_parity"
    weight: Annotated[float, Field(gt=0, le=1000)] | None = None

    @property
    def strength(self) -> float:
        """The weight, or what stands for it."""
        return _WEIGHTS[self.criterion] if self.weight is None else self.weight


@dataclass(eq=False)
class FairObjective:
    """The loss of a training that is to be fair.

    A cell is a group, with equalized_odds a group of a label. Its mean is known from running sums over batches, for a
    batch of B rows may hold none of it; the gradient is that of Σ_{i in cell} v_i / (B π), with π the cell's share of
    the training rows, which is unbiased for any batch (compositional gradients, Wang, Fang and Liu 2017). Cells of
    less than 10 training rows are left out.

    Args:
        head: of the model.
        settings: what is to be alike.
        groups: of each training row (rows,) int64, -1 for none.
        target: of each training row, as the head encodes it (rows, …).
        metric: that is told of the worst group.

    Attributes:
        state: running sums and the groups' weights, by name; float64, on the device of the first batch.

    Raises:
        InputError: fewer than two groups have rows enough.
    """

    head: Head
    settings: FairnessSettings
    groups: Tensor
    target: Tensor
    metric: Metric
    state: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = int(self.groups.max()) + 1
        self._labels = int(self.target.max()) + 1 if self.settings.criterion == "equalized_odds" else 1
        counts = self._counts(self._cells(self.groups, self.target))
        self._known, self._shares = counts >= LEAST, counts / len(self.groups)
        if all(int(some.sum()) < 2 for some in self._known.view(self._labels, self._groups)):
            of = " of one label" if self._labels > 1 else ""
            raise InputError(
                f"fairness.column: fewer than two groups of {self.settings.column!r} have {LEAST} rows{of} to learn"
                " from; name another column, or give more rows"
            )

    def loss(self, output: Tensor, target: Tensor, group: Tensor) -> Tensor:
        """Return the loss of some rows, a scalar, and take note of them.

        Args:
            output: of the head (batch, …).
            target: (batch, …).
            group: (batch,) int64.
        """
        if self.settings.criterion == "worst_group":
            return self._worst(output, target, group)
        answers = self._answers(output)
        cells = self._cells(group, target)
        inside = cells >= 0
        sums = answers.new_zeros(len(self._known), answers.shape[1]).index_add(0, cells[inside], answers[inside])
        means, seen = self._remember(sums.detach(), self._counts(cells))
        now = sums / (len(cells) * self._shares.to(sums)).clamp(min=1e-12)[:, None]
        penalty = self.penalty(means.to(sums) + now - now.detach(), seen & self._known.to(seen.device))
        return self.head.loss(output, target) + self.settings.strength * penalty

    def penalty(self, means: Tensor, known: Tensor) -> Tensor:
        """Return how far groups lie apart, a scalar; of two groups and two labels the squared difference.

        4 Var_g(m_gc) over the groups g, for labels c that exclude each other Σ_c / 2, for others the mean; with
        equalized_odds the mean over the true labels of which two groups are known. Regression: m in standard
        deviations of the target.

        Args:
            means: of the answers in each cell (cells, answers).
            known: cells that count (cells,) bool.
        """
        parts = []
        for some, here in zip(means.view(self._labels, self._groups, -1), known.view(self._labels, -1), strict=True):
            if int(here.sum()) > 1:
                apart = 4 * some[here].var(0, correction=0)
                parts.append(apart.sum() / 2 if self.head.task == "classification" else apart.mean())
        return torch.stack(parts).mean() if parts else means.sum() * 0

    def measured(self, y_true: Array, y_score: Array, loss: float, group: Array) -> dict[str, float]:
        """Return figures of validation rows: the gap, and the objective, by which weights are kept.

        Groups of less than 10 rows are left out. The gap is the difference that is reported of decisions, of a
        regression's predictions in the target's unit; with worst_group that of the metric.

        Args:
            y_true: as metrics read it (rows, …).
            y_score: likewise (rows, …).
            loss: mean of the head's loss.
            group: of each row (rows,).
        """
        device = self.head.prior().device
        scores, truth, groups = (torch.from_numpy(some).to(device) for some in (y_score, y_true, group))
        output = self.head.unscored(scores)
        target = self.head.unscored(truth) if self.head.task == "regression" else truth
        if self.settings.criterion == "worst_group":
            rows = [np.flatnonzero(group == code) for code in range(self._groups)]
            rows = [some for some in rows if len(some) >= LEAST]
            values = [self.metric.function(y_true[some], y_score[some]) for some in rows] or [float("nan")]
            losses = [float(self.head.loss(output[some], target[some])) for some in rows]
            worst = min(values) if self.metric.greater_is_better else max(values)
            told = {f"validation_worst_{self.metric.name}": worst, "validation_gap": max(values) - min(values)}
            return {**told, "validation_objective": max(losses, default=loss)}
        cells, answers = self._cells(groups, target), self._answers(output).double()
        counts = self._counts(cells)
        sums = answers.new_zeros(len(counts), answers.shape[1]).index_add(0, cells[cells >= 0], answers[cells >= 0])
        penalty = float(self.penalty(sums / counts.clamp(min=1)[:, None], counts >= LEAST))
        gap = gap_between(*self._decisions(y_true, y_score), group, odds=self.settings.criterion == "equalized_odds")
        return {"validation_gap": gap, "validation_objective": loss + self.settings.strength * penalty}

    def saved(self) -> dict[str, list[float]]:
        """Return the state as JSON values."""
        return {name: value.flatten().tolist() for name, value in self.state.items()}

    def restore(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """Take a state back."""
        for name, values in state.items():
            flat = torch.tensor(values, dtype=torch.float64, device=device)
            self.state[name] = flat.view(len(self._known), -1) if name == "sums" else flat

    def _worst(self, output: Tensor, target: Tensor, group: Tensor) -> Tensor:
        """Return Σ_g q_g L_g, with q_g ← q_g exp(η L_g), normalised (Sagawa et al. 2020, algorithm 1).

        Rows of groups that are too small count as in a plain mean.
        """
        known, batch = self._known.to(group.device), len(group)
        counts = self._counts(self._cells(group, target))
        means = [
            self.head.loss(output[group == code], target[group == code]) if int(counts[code]) else output.sum() * 0
            for code in range(self._groups)
        ]
        sums = torch.stack(means).double() * counts
        running, seen = self._remember(sums.detach()[:, None], counts)
        weights = self.state.get("weights")
        weights = known / known.sum() if weights is None else weights
        grown = weights.double() * torch.exp(self.settings.strength * torch.where(seen, running[:, 0], 0))
        self.state["weights"] = weights = grown / grown.sum()
        shares = self._shares.to(sums)
        loss = shares[known].sum() * (weights * sums / (batch * shares.clamp(min=1e-12)))[known].sum()
        others = ~(known[group.clamp(min=0)] & (group >= 0))
        if bool(others.any()):
            loss = loss + self.head.loss(output[others], target[others]) * others.sum() / batch
        return loss.to(output.dtype)

    def _remember(self, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Add a batch to the running sums; return the cells' means (cells, answers), and which have been seen."""
        old = self.state.get("sums", torch.zeros_like(sums, dtype=torch.float64))
        rows = self.state.get("rows", torch.zeros_like(counts))
        # A cell of which a batch holds nothing is remembered as it was, however long ago that is.
        kept = torch.where(counts > 0, _MEMORY, 1.0)
        self.state["sums"], self.state["rows"] = kept[:, None] * old + sums, kept * rows + counts
        return self.state["sums"] / self.state["rows"].clamp(min=1e-12)[:, None], self.state["rows"] > 0

    def _cells(self, groups: Tensor, target: Tensor) -> Tensor:
        """Return the cell of each row (rows,), -1 for none: label by label, in each its groups."""
        return torch.where(groups < 0, -1, groups + self._groups * target) if self._labels > 1 else groups

    def _counts(self, cells: Tensor) -> Tensor:
        """Return the rows of each cell (cells,) float64."""
        return torch.bincount(cells[cells >= 0], minlength=self._labels * self._groups).double()

    def _answers(self, output: Tensor) -> Tensor:
        """Return what is compared of each row, differentiable: probabilities, or a standardised prediction."""
        return output[:, None] if self.head.task == "regression" else self.head.scores(output)

    def _decisions(self, y_true: Array, y_score: Array) -> tuple[Array, Array]:
        """Return the truth and the answers (rows, answers): 0 or 1 for each label, or a regression's numbers."""
        if self.head.task == "regression":
            return y_true[:, None], y_score[:, None]
        if self.head.task == "multilabel":
            return y_true > 0, y_score >= THRESHOLD
        labels = np.arange(y_score.shape[1])
        return y_true[:, None] == labels, y_score.argmax(1)[:, None] == labels


def gap_between(true: Array, answers: Array, group: Array, *, odds: bool, least: int = LEAST) -> float:
    """Return the widest difference of a mean answer between two groups; nan where fewer than two have rows enough.

    Args:
        true: (rows, answers), 0 or 1 where `odds`.
        answers: (rows, answers).
        group: of each row (rows,), -1 for none.
        odds: whether rows that are true and rows that are not are compared apart, else all are.
        least: rows that a mean needs.
    """
    widest = float("nan")
    for some, truth in zip(answers.T, true.T, strict=True):
        for counted in (truth.astype(bool), ~truth.astype(bool)) if odds else (np.ones(len(group), dtype=bool),):
            rows = [counted & (group == code) for code in range(int(group.max(initial=-1)) + 1)]
            means = [float(some[here].mean()) for here in rows if here.sum() >= least]
            if len(means) > 1:
                widest = float(np.fmax(widest, max(means) - min(means)))
    return widest
