"""An answer for each of several targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from polyfuse.core.contract import Head
from polyfuse.core.errors import InputError, nearest
from polyfuse.core.types import Features
from polyfuse.data.measures import prior_loss
from polyfuse.data.schema import Target
from polyfuse.heads import HEADS
from polyfuse.metrics.several import RELATIVE_LOSS

Weights: TypeAlias = Literal["uncertainty", "equal"] | dict[str, Annotated[float, Ge(0), Le(1e6)]]
#: A trained number moves by about the learning rate in an update; s has to come further than that.
_PACE = 5.0
_WHAT = ("output", "target", "truth", "scores")


@dataclass(frozen=True)
class Place:
    """Where one of several targets stands beside the others: its columns.

    Attributes:
        output: of what `forward` returns.
        target: of what `encode` returns.
        truth: of what `truth` returns.
        scores: of what `scores` returns.
        flat: which of these its own head has without columns, (rows,).
        kind: type of the numbers that its own head encodes.
    """

    output: slice
    target: slice
    truth: slice
    scores: slice
    flat: frozenset[str]
    kind: torch.dtype


class SeveralHead(Head):
    """A head for each target, side by side; a row that lacks a target does not count for it.

    L = Σ_i w_i L_i, with L_i the mean loss of target i's own head over the rows of a batch that have it; where none
    has, it is left out. With "uncertainty" (Kendall, Gal & Cipolla 2018) the targets weigh themselves:
    L = Σ_i (c_i exp(-s_i) L_i + s_i / 2), where s_i = log σ_i² is learned beside all else, and c_i is ½ for a
    regression and 1 for labels. s_i starts where it would stand for the training prior (0 for a regression, the
    logarithm of twice the prior's loss for labels), and moves five times as fast as other weights. Learners such as
    `linear` learn each target by itself, and need no weights.

    Args:
        dim: width of the fused features.
        target: of several parts.
        heads: of each target its own head with its options, by name; that of its task when left out.
        weights: "uncertainty", "equal" (all 1), or a number by target (1 for those left out).
    """

    task: ClassVar[str] = "several"

    def __init__(
        self,
        dim: int,
        target: Target,
        *,
        heads: dict[str, str | dict[str, Any]] | None = None,
        weights: Weights = "uncertainty",
    ) -> None:
        super().__init__()
        chosen = part_heads(target, heads or {})
        check_weights(target.names, weights)
        self.names = target.names
        self.heads = nn.ModuleList(
            HEADS.build(name, options, dim, part) for part, (name, options) in zip(target.parts, chosen, strict=True)
        )
        self.places = _places(self._heads(), target, dim)
        each = zip(self.names, self._heads(), strict=True)
        self.metrics = (RELATIVE_LOSS, *(f"{name}:{metric}" for name, head in each for metric in head.metrics))
        self._halves = [0.5 if part.task == "regression" else 1.0 for part in target.parts]
        fixed = weights if isinstance(weights, dict) else {}
        self._fixed = [float(fixed.get(name, 1.0)) for name in self.names]
        prior = [1.0 if part.task == "regression" else 2 * prior_loss(part) for part in target.parts]
        start = torch.tensor(prior).log() / _PACE
        self.spread = nn.Parameter(start) if weights == "uncertainty" else None

    def encode(self, answers: Sequence[Any]) -> Tensor:
        """Return what each head encodes, side by side (rows, columns) float32, nan where a row lacks the target.

        Raises:
            InputError: a label that was not among the training rows.
        """
        encoded = torch.full((len(answers), self.places[-1].target.stop), torch.nan)
        for i, (head, place) in enumerate(zip(self._heads(), self.places, strict=True)):
            rows = [row for row, answer in enumerate(answers) if answer[i] is not None]
            if rows:
                found = head.encode([answers[row][i] for row in rows])
                encoded[rows, place.target] = found.reshape(len(rows), -1).float()
        return encoded

    def forward(self, features: Features) -> Tensor:
        """Return the outputs side by side (batch, columns)."""
        return torch.cat([_wide(head(features)) for head in self._heads()], dim=1)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """output, target: side by side (batch, columns); nan in a target is one that is not known."""
        total = output.new_zeros(())
        for i, (head, known, own) in enumerate(self.split(target)):
            mine = self._own(output, i, "output")
            if bool(known.any()):
                total = total + self._weighed(i, head.loss(mine[known], own))
            else:
                # Nothing to learn, but every weight gets its gradient.
                total = total + 0.0 * mine.sum() + (0.0 if self.spread is None else 0.0 * self.spread[i])
        return total

    def weighs(self) -> dict[str, float]:
        """Return the weight that each target's loss has now: w_i, or c_i exp(-s_i)."""
        if self.spread is None:
            return dict(zip(self.names, self._fixed, strict=True))
        shares = (-_PACE * self.spread.detach()).exp().tolist()
        return {name: c * share for name, c, share in zip(self.names, self._halves, shares, strict=True)}

    def split(self, target: Tensor) -> list[tuple[Head, Tensor, Tensor]]:
        """Return for each target its own head, which rows have it (batch,) bool, and what those rows' answers are."""
        parts = []
        for i, (head, place) in enumerate(zip(self._heads(), self.places, strict=True)):
            known = ~target[:, place.target].isnan().any(dim=1)
            parts.append((head, known, self._own(target[known], i, "target").to(place.kind)))
        return parts

    def truth(self, target: Tensor) -> Tensor:
        """Return the answers in the unit of scores, side by side (batch, columns) float64, nan where not known."""
        truth = torch.full((len(target), self.places[-1].truth.stop), torch.nan, dtype=torch.float64)
        truth = truth.to(target.device)
        for (head, known, own), place in zip(self.split(target), self.places, strict=True):
            truth[known, place.truth] = _wide(head.truth(own)).double()
        return truth

    def scores(self, output: Tensor) -> Tensor:
        """Return the scores side by side (batch, columns) float64."""
        heads = enumerate(self._heads())
        return torch.cat([_wide(head.scores(self._own(output, i, "output"))).double() for i, head in heads], dim=1)

    def decode(self, scores: Tensor) -> list[Any]:
        """Return a tuple of answers for each row."""
        each = [head.decode(self._own(scores, i, "scores")) for i, head in enumerate(self._heads())]
        return list(zip(*each, strict=True))

    def prior(self) -> Tensor:
        """Return the priors side by side (columns,)."""
        return torch.cat([head.prior().reshape(-1).double() for head in self._heads()])

    def _heads(self) -> list[Head]:
        return [head for head in self.heads if isinstance(head, Head)]

    def _own(self, joint: Tensor, i: int, what: Literal["output", "target", "scores"]) -> Tensor:
        """Return the columns of one target, as its own head has them."""
        place = self.places[i]
        columns: Tensor = joint[:, getattr(place, what)]
        return columns.squeeze(1) if what in place.flat else columns

    def _weighed(self, i: int, loss: Tensor) -> Tensor:
        if self.spread is None:
            return self._fixed[i] * loss
        s = _PACE * self.spread[i]
        return self._halves[i] * torch.exp(-s) * loss + s / 2


def part_heads(target: Target, heads: Mapping[str, str | Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return name and options of the head of each of several targets.

    Args:
        target: of several parts.
        heads: those that are chosen, by target: a name, or a mapping with a name.

    Raises:
        InputError: there is no target or head of a name, or a head answers another task.
    """
    _check_known(target.names, heads, "head.heads")
    found = []
    for part in target.parts:
        chosen = heads.get(part.name, part.task)
        options = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
        name = options.pop("name", part.task)
        answered = HEADS[name].task
        if answered != part.task:
            raise InputError(
                f"head.heads.{part.name}: {name!r} answers {answered}, and the task of {part.name!r} is {part.task};"
                " leave it out, or set task"
            )
        found.append((name, options))
    return found


def check_weights(names: Sequence[str], weights: Any) -> None:
    """Check the weights of some targets.

    Raises:
        InputError: one is of no target, or all are 0.
    """
    if not isinstance(weights, dict):
        return
    _check_known(names, weights, "head.weights")
    if not any(weights.get(name, 1.0) for name in names):
        raise InputError("head.weights: every target has the weight 0; give one of them more")


def _check_known(names: Collection[str], given: Collection[str], place: str) -> None:
    for name in given:
        if name not in names:
            raise InputError(f"{place}: {name!r} is not among the targets; {nearest(name, names)}")


@torch.no_grad()
def _places(heads: Sequence[Head], target: Target, dim: int) -> list[Place]:
    """Find out how wide what each head makes is, from one row."""
    places: list[Place] = []
    for head, part in zip(heads, target.parts, strict=True):
        training = head.training
        output = head.eval()(Features.of_pooled(torch.zeros(1, dim)))
        head.train(training)
        answer: Any = [] if part.task == "multilabel" else (*part.levels, part.mean)[0]
        encoded = head.encode([answer])
        made = [output, encoded, head.truth(encoded), head.scores(output)]
        before = places[-1] if places else None
        starts = [before.output.stop, before.target.stop, before.truth.stop, before.scores.stop] if before else [0] * 4
        columns = [slice(at, at + _wide(some).shape[1]) for at, some in zip(starts, made, strict=True)]
        flat = frozenset(what for what, some in zip(_WHAT, made, strict=True) if some.ndim == 1)
        places.append(Place(**dict(zip(_WHAT, columns, strict=True)), flat=flat, kind=encoded.dtype))
    return places


def _wide(made: Tensor) -> Tensor:
    return made.unsqueeze(1) if made.ndim == 1 else made
