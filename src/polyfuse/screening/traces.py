"""What a model shows of itself on some rows: all that a screen looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Inputs
from polyfuse.encoders.table import TableEncoder
from polyfuse.ensemble import Ensemble, is_table, shared_features
from polyfuse.model import FusionModel, Model, Texts

TASKS = ("classification", "multilabel", "regression")


@dataclass(frozen=True, eq=False)
class Trace:
    """What a model shows of some rows.

    Attributes:
        vectors: of each space, in the order of `spaces_of`, (rows, dim); without a meaning where a row is not there.
        there: (rows, spaces) bool.
        output: raw outputs (rows, …).
        scores: of the head (rows, …).
        disagreement: the largest total variation between the scores and those without one of the modalities, (rows,);
            half the sum of the differences, where scores are no distribution.
        compared: whether a row has two modalities at least, and any of them can be left out: (rows,) bool.
    """

    vectors: list[Tensor]
    there: Tensor
    output: Tensor
    scores: Tensor
    disagreement: Tensor
    compared: Tensor

    @classmethod
    def of(cls, model: Model, inputs: Inputs, present: Tensor, texts: Texts) -> Trace:
        """Return what a model in evaluation mode shows, differentiable where its outputs are.

        Arguments are those of `Model.scores`; each row has at least one modality.
        """
        shared = shared_features(model)
        known = {n: model.encode_one(n, value, present) if n in shared else value for n, value in inputs.items()}
        vectors, there = [], []
        for name in _seen(model):
            here = present[:, model.modalities.index(name)]
            vectors.append(_vectors(model, name, known[name]))
            there.append(here)
        output, scores, fused = _said(model, known, present, texts)
        if fused is not None:
            vectors.append(fused)
            there.append(torch.ones_like(present[:, 0]))
        apart = []
        for at, name in enumerate(model.modalities):
            left = present.clone()
            left[:, at] = False
            # The only modality of a row stays.
            left = torch.where(left.any(1, keepdim=True), left, present)
            told = {
                other: [text if kept or other != name else None for text, kept in zip(some, left[:, at], strict=True)]
                for other, some in texts.items()
            }
            _, without, _ = _said(model, known, left, told)
            apart.append((scores - without).abs().reshape(len(present), -1).sum(1) / 2)
        return cls(
            vectors,
            torch.stack(there, 1) if there else present[:, :0],
            output,
            scores,
            torch.stack(apart).amax(0),
            present.sum(1) > 1,
        )

    def energy(self, task: str) -> Tensor:
        """Return how little the outputs commit themselves (rows,).

        Classification: -log Σ_c exp z_c (Liu et al. 2020); several labels: -Σ_l log(1 + exp z_l) (Wang et al. 2021);
        regression: 0, it has none.
        """
        if task == "classification":
            return -self.output.logsumexp(1)
        if task == "multilabel":
            return -F.softplus(self.output).sum(1)
        return torch.zeros_like(self.disagreement)


def check_task(task: str) -> None:
    """Check that rows of a task can be screened.

    Raises:
        InputError: they cannot.
    """
    if task not in TASKS:
        raise InputError(
            f"screen: the task is {task}, and a screen knows {', '.join(TASKS)}: fit a model of one target"
        )


def spaces_of(model: Model) -> dict[str, int]:
    """Return the spaces in which rows of a model are compared, each with its width.

    Of a model with one fusion these are the Features of each modality, and the fused ones. An ensemble has no fused
    ones: there it is the Features that members share, and of a table, which learners read as it is, its cells; what a
    member encodes for itself, and the statistics of words, show in outputs alone.
    """
    widths = {f"features of {name}": _width(model, name) for name in _seen(model)}
    return {**widths, "fused features": model.fusion.dim} if isinstance(model, FusionModel) else widths


def _seen(model: Model) -> list[str]:
    """Name the modalities with a space of their own."""
    shared = shared_features(model)
    return [name for name in model.modalities if name in shared or (name in model.reads and _has_cells(model, name))]


def _has_cells(model: Model, name: str) -> bool:
    return isinstance(model, Ensemble) and is_table(model.encoder(name))


def _width(model: Model, name: str) -> int:
    encoder = model.encoder(name)
    if _has_cells(model, name):
        assert isinstance(encoder, TableEncoder)
        return 1 + 2 * len(encoder.edges) + sum(encoder.levels)
    return encoder.dim


def _vectors(model: Model, name: str, value: Features | dict[str, Tensor]) -> Tensor:
    """Return pooled Features (rows, dim); or the cells of a table, with a 1 that keeps their size when normalised."""
    if not _has_cells(model, name):
        assert isinstance(value, Features)
        return value.pooled.float()
    encoder = model.encoder(name)
    assert isinstance(encoder, TableEncoder)
    if isinstance(value, Features):  # of a modality that was taken away
        return torch.zeros(len(value.pooled), _width(model, name), device=value.pooled.device)
    marks = [F.one_hot(value["codes"][:, i], levels).float() for i, levels in enumerate(encoder.levels)]
    one = torch.ones(len(value["numbers"]), 1, device=value["numbers"].device)
    return torch.cat([one, value["numbers"], value["missing"].float(), *marks], 1)


def _said(model: Model, known: Inputs, present: Tensor, texts: Texts) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return outputs, scores, and the fused features, where there are some."""
    if not isinstance(model, FusionModel):
        return model.outputs(known, present, texts), model.scores(known, present, texts), None
    fused = model.fusion(model.encode(known, present), present)
    output = model.head(fused)
    return output, model.head.scores(output), fused.pooled
