"""How suspicious a row is, and whether that is more than a chosen share of ordinary rows are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyfuse.core.types import Inputs
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Strict
from polyfuse.inference import run
from polyfuse.model import Model, Texts
from polyfuse.screening.traces import Trace, spaces_of


class Shape(Strict):
    """What the tensors of a space look like.

    Attributes:
        dim: its width.
        groups: classes with a mean of their own; 1 where the answers are no classes.
        bank: rows that others are compared with.
    """

    dim: int
    groups: int
    bank: int


class Space(nn.Module):
    """Where rows of a space are, relative to those that were learned from.

    Args:
        shape: of the tensors.
        neighbours: k.

    Attributes:
        means: μ_c of each class (groups, dim).
        precision: the inverse of the covariance within classes, shrunk (dim, dim).
        bank: rows (bank, dim), of length 1.
    """

    means: Tensor
    precision: Tensor
    bank: Tensor

    def __init__(self, shape: Shape, neighbours: int) -> None:
        super().__init__()
        self.shape, self.neighbours = shape, neighbours
        self.register_buffer("means", torch.zeros(shape.groups, shape.dim))
        self.register_buffer("precision", torch.eye(shape.dim))
        self.register_buffer("bank", torch.zeros(shape.bank, shape.dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return distances (rows, 2) of vectors (rows, dim), with u = v / ‖v‖.

        min_c (u - μ_c)ᵀ Σ⁻¹ (u - μ_c), of Mahalanobis (Lee et al. 2018), and ‖u - u_(k)‖ to the k-th nearest row of the
        bank (Sun et al. 2022); of a smaller bank to the farthest.
        """
        u = F.normalize(vectors, dim=1)
        apart = u[:, None] - self.means
        far = torch.einsum("rgd,de,rge->rg", apart, self.precision, apart).amin(1)
        # The exact way: with matrix products a row's distance would depend on the batch that it is in.
        every = torch.cdist(u, self.bank, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = every.topk(min(self.neighbours, self.shape.bank), largest=False).values[:, -1]
        return torch.stack([far, nearest], 1)


class Screen(nn.Module):
    """A small model of what ordinary rows look like from inside another model.

    signals s: of each space both distances; energy; disagreement. z_i = asinh((s_i - m_i) / d_i), 0 where a row has
    nothing to measure; suspicion = σ(w·z + b), flagged where w·z + b is above the threshold. m and d are mean and
    standard deviation of ordinary rows; w ≥ 0 and b a logistic regression of rows damaged by corruptions against
    ordinary ones. It has seen no adversary. Differentiable wherever the model is.

    Args:
        task: of the model.
        spaces: by name, in the model's order.
        neighbours: k.
        rate: share of ordinary rows that may be flagged.
        rows: ordinary rows that the threshold was taken from.

    Attributes:
        center: m (signals,).
        width: d (signals,).
        weights: w (signals,).
        bias: b, a scalar.
        threshold: of w·z + b, a scalar.
    """

    center: Tensor
    width: Tensor
    weights: Tensor
    bias: Tensor
    threshold: Tensor

    def __init__(self, task: str, spaces: Mapping[str, Shape], *, neighbours: int, rate: float, rows: int) -> None:
        super().__init__()
        self.task, self.names, self.neighbours, self.rate, self.rows = task, list(spaces), neighbours, rate, rows
        self.spaces = nn.ModuleList([Space(shape, neighbours) for shape in spaces.values()])
        count = len(self.signal_names)
        self.register_buffer("center", torch.zeros(count))
        self.register_buffer("width", torch.ones(count))
        self.register_buffer("weights", torch.zeros(count))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("threshold", torch.zeros(()))

    @property
    def signal_names(self) -> list[str]:
        """What is measured of a row."""
        distances = [f"{kind}, {name}" for name in self.names for kind in ("distance", "neighbours")]
        return [*distances, "energy", "disagreement"]

    def signals(self, seen: Trace) -> Tensor:
        """Return the signals (rows, signals), nan where a row has nothing to measure."""
        found, there = self._signals(seen)
        return found.masked_fill(~there, torch.nan)

    def logits(self, seen: Trace) -> Tensor:
        """Return w·z + b (rows,)."""
        found, there = self._signals(seen)
        z = torch.where(there, ((found - self.center) / self.width).asinh(), 0.0)
        # Row by row: a matrix product rounds by the size of the batch.
        return (z * self.weights).sum(1) + self.bias

    def flagged(self, logits: Tensor) -> Tensor:
        """Return whether that is more suspicious than allowed (rows,) bool."""
        return logits > self.threshold

    def _signals(self, seen: Trace) -> tuple[Tensor, Tensor]:
        parts = [space(vectors) for space, vectors in zip(self.spaces, seen.vectors, strict=True)]
        whole = torch.stack([seen.energy(self.task), seen.disagreement], 1)
        measured = torch.stack([torch.ones_like(seen.compared), seen.compared], 1)
        return torch.cat([*parts, whole], 1), torch.cat([seen.there.repeat_interleave(2, 1), measured], 1)


def screened(
    model: Model, screen: Screen, rows: Rows, device: torch.device, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the head's scores of all rows (rows, …), the screen's logits (rows,), and which modalities each had.

    A row in which nothing is present gets the head's prior, and a logit of -∞: there is nothing to suspect. Options are
    those of `inference.run`.
    """
    prior = model.head.prior()

    def answer(inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        seen = Trace.of(model, inputs, present, texts)
        return torch.cat([seen.scores.reshape(len(present), -1), screen.logits(seen)[:, None]], 1)

    empty = torch.cat([prior.reshape(-1), torch.full((1,), -torch.inf, device=prior.device)])
    found, present = run(model, rows, device, answer, empty, **options)
    return found[:, :-1].reshape(len(rows), *prior.shape), found[:, -1], present


def told(screen: Screen, logits: Tensor, index: pd.Index) -> pd.DataFrame:
    """Return `suspicion`, in [0, 1], and whether each row is `suspicious`. logits: (rows,)."""
    flagged = screen.flagged(logits.to(screen.threshold.device)).cpu().numpy()
    return pd.DataFrame({"suspicion": logits.sigmoid().numpy(), "suspicious": flagged}, index=index)


def shapes_fit(model: Model, spaces: Mapping[str, Shape], *, most: int) -> bool:
    """Tell whether spaces are those of a model, with as many classes as it can have, and banks of bounded size."""
    wanted = spaces_of(model)
    groups = model.head.prior().numel() if model.head.task == "classification" else 1
    return [(name, shape.dim) for name, shape in spaces.items()] == list(wanted.items()) and all(
        1 <= shape.groups <= groups and 1 <= shape.bank <= most for shape in spaces.values()
    )
