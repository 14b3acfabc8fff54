"""Answers of a model for the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.core.progress import Progress, Silent
from polyfuse.core.types import Features, Inputs, Tensors
from polyfuse.data.batches import LazySource, Source, by_length, pick
from polyfuse.data.rows import Rows
from polyfuse.model import Model, Texts

_WINDOW = 512  # rows prepared together, then sorted by length
_BATCH = 64


class AbsentSource:
    """Stands for a modality that is taken away."""

    lengths: NDArray[np.int64] | None = None

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def batch(self, rows: Sequence[int]) -> Features:
        """Return Features that mean nothing."""
        return Features.of_pooled(torch.zeros(len(rows), self._dim))


def score(model: Model, rows: Rows, device: torch.device, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the head's scores (rows, …) of all rows, and which modalities each had: (rows, modalities) bool.

    A row in which nothing is present gets the head's prior. Options are those of `run`.
    """
    return run(model, rows, device, model.scores, model.head.prior(), **options)


@torch.inference_mode()
def run(
    model: Model,
    rows: Rows,
    device: torch.device,
    answer: Callable[[Inputs, Tensor, Texts], Tensor],
    empty: Tensor,
    *,
    without: Collection[str] = (),
    sources: Mapping[str, Source] | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Return something of all rows (rows, …), and which modalities each had: (rows, modalities) bool.

    Args:
        model: on the device.
        rows: of a table.
        device: where the model is.
        answer: what is wanted of some rows' inputs, presence and texts.
        empty: what a row gets in which nothing is present.
        without: modalities that are taken away from every row.
        sources: where the inputs of some modalities come from; the others are prepared here.
        progress: shows how far it is.
    """
    model.eval()
    present = rows.present & torch.tensor([name not in without for name in model.modalities])
    every: dict[str, Source] = {
        name: AbsentSource(model.encoder(name).dim) if name in without else LazySource(model.encoder(name), rows, name)
        for name in model.modalities
    }
    every |= {name: source for name, source in (sources or {}).items() if name not in without}
    reads = {name: name in without for name in model.reads_text}
    answers = empty.cpu().expand(len(rows), *empty.shape).clone()
    answered = present.any(1).nonzero().squeeze(1)
    with (progress or Silent()).bar("Predicting", len(answered)) as bar:
        for window in torch.split(answered, _WINDOW) if len(answered) else ():
            numbers = window.tolist()
            some = {name: source.batch(numbers) for name, source in every.items()}
            texts = {name: [None if gone else rows.text(name, row) for row in numbers] for name, gone in reads.items()}
            prepared = {name: value for name, value in some.items() if not isinstance(value, Features)}
            for part in by_length(prepared, len(window), _BATCH):
                inputs = {name: _part(value, part) for name, value in some.items()}
                here = present[window[part]].to(device)
                chosen = {name: [said[i] for i in part.tolist()] for name, said in texts.items()}
                found = answer(_to(inputs, device), here, chosen)
                answers[window[part]] = found.cpu().to(answers.dtype)
                bar.advance(len(part))
    return answers, present


def _part(value: Features | Tensors, rows: Tensor) -> Features | Tensors:
    if not isinstance(value, Features):
        return pick(value, rows)
    return value.rows(rows)


def _to(inputs: Mapping[str, Features | Tensors], device: torch.device) -> dict[str, Features | Tensors]:
    return {
        name: value.to(device)
        if isinstance(value, Features)
        else {key: tensor.to(device) for key, tensor in value.items()}
        for name, value in inputs.items()
    }
