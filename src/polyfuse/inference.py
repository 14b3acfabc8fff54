"""Answers of a model for the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.core.compute import in_torch
from polyfuse.core.progress import Progress, Silent
from polyfuse.core.types import Features, Inputs, Tensors
from polyfuse.data.batches import LazySource, Source, by_length, pick
from polyfuse.data.measures import parts_of
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Target
from polyfuse.ensemble import Ensemble
from polyfuse.model import FusionModel, Model, Texts
from polyfuse.training.encoding import EncodedSource

_WINDOW = 512  # rows prepared together, then sorted by length
_BATCH = 64
_MANY = 32  # rows for which an encoder at rest is run on its own, before all else


@dataclass(frozen=True)
class Answers:
    """What a model says of some rows.

    Attributes:
        labels: the answers, index kept; named as the target. Of several targets, a column for each.
        scores: probabilities, a column for each class or label; of a regression, the values themselves. Of several
            targets, probabilities alone, under columns (target, class).
        nothing_present: rows in which no modality was present: they have the training prior.
        screened: where it was asked for, `suspicion` in [0, 1] of each row, and whether it is `suspicious`.
        within: where a level was asked for, the `set` of labels of each row, or `low` and `high`; of several targets
            `<target>:set`, `<target>:low` and `<target>:high`.
    """

    labels: pd.Series | pd.DataFrame
    scores: pd.DataFrame
    nothing_present: pd.Series
    screened: pd.DataFrame | None = None
    within: pd.DataFrame | None = None

    def frame(self) -> pd.DataFrame:
        """Return the answers as a column for each target, and beside them sets or intervals, and what a screen said."""
        labels = self.labels.to_frame() if isinstance(self.labels, pd.Series) else self.labels
        return pd.concat([labels, *(some for some in (self.within, self.screened) if some is not None)], axis=1)


def answers_of(model: Model, target: Target, scores: Tensor, index: pd.Index, nothing: pd.Series) -> Answers:
    """Return answers from scores.

    Args:
        model: whose scores.
        target: what was asked.
        scores: (rows, …).
        index: of the rows.
        nothing: whether nothing was present, of each.
    """
    decoded, values = model.head.decode(scores), scores.numpy()
    if not target.parts:
        columns = pd.Index(target.levels, dtype=object) if target.levels else pd.Index([target.name])
        frame = pd.DataFrame(values.reshape(len(index), len(columns)), index=index, columns=columns)
        return Answers(pd.Series(decoded, index=index, name=target.name), frame, nothing)
    labels = {name: [answer[i] for answer in decoded] for i, name in enumerate(target.names)}
    pairs = [(part.name, level) for part in target.parts for level in part.levels]
    with_levels = [values[:, place.score] for place in parts_of(target) if place.task != "regression"]
    proba = np.hstack(with_levels) if with_levels else np.empty((len(index), 0))
    names = [[pair[i] for pair in pairs] for i in range(2)]
    columns = pd.MultiIndex.from_arrays([pd.Index(some, dtype=object) for some in names], names=["target", "class"])
    return Answers(pd.DataFrame(labels, index=index), pd.DataFrame(proba, index=index, columns=columns), nothing)


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


def weights_of(model: Model, rows: Rows, device: torch.device, **options: Any) -> Tensor | None:
    """Return how much each modality counts in each row (rows, modalities), of a fusion that weighs them; else None.

    Options are those of `run`.
    """
    weigh = getattr(model.fusion, "weights", None) if isinstance(model, FusionModel) else None
    if weigh is None:
        return None

    def answer(inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        weights: Tensor = weigh(model.encode(inputs, present), present)
        return weights

    return run(model, rows, device, answer, torch.zeros(len(model.modalities)), **options)[0]


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
    if model.training:  # of a single row, to say it again to every layer would be a tenth of the time
        model.eval()
    present = rows.present & torch.tensor([name not in without for name in model.modalities])
    every: dict[str, Source] = {
        name: AbsentSource(model.encoder(name).dim) if name in without else _source(model, rows, name, device)
        for name in model.modalities
        if name in model.reads
    }
    every |= {name: source for name, source in (sources or {}).items() if name in every and name not in without}
    reads = {name: name in without for name in model.reads_text}
    answers = empty.cpu().expand(len(rows), *empty.shape).clone()
    answered = present.any(1).nonzero().squeeze(1)
    with (progress or Silent()).bar("Predicting", len(answered)) as bar:
        for window in torch.split(answered, _WINDOW) if len(answered) else ():
            numbers = window.tolist()
            some = {name: source.batch(numbers) for name, source in every.items()}
            texts = {name: [None if gone else rows.text(name, row) for row in numbers] for name, gone in reads.items()}
            sizes = {name: {"mask": v.mask} if isinstance(v, Features) else v for name, v in some.items()}
            for part in by_length(sizes, len(window), _BATCH):
                inputs = {name: _part(value, part) for name, value in some.items()}
                here = present[window[part]].to(device)
                chosen = {name: [said[i] for i in part.tolist()] for name, said in texts.items()}
                found = answer(_to(inputs, device), here, chosen)
                answers[window[part]] = found.cpu().to(answers.dtype)
                bar.advance(len(part))
    return answers, present


def _source(model: Model, rows: Rows, name: str, device: torch.device) -> Source:
    """Return where the inputs of a modality come from: Features, where an encoder at rest has many rows to read."""
    encoder = model.encoder(name)
    tuned = isinstance(model, Ensemble) and any(name in member.own for member in model.members)
    if encoder.way is None or encoder.backbone is None or tuned or len(rows) < _MANY:
        return LazySource(encoder, rows, name)
    return EncodedSource(encoder, rows, name, device, in_torch(encoder.way, device))


def _part(value: Features | Tensors, rows: Tensor) -> Features | Tensors:
    if not isinstance(value, Features):
        return pick(value, rows)
    kept = pick({"tokens": value.tokens, "mask": value.mask}, rows)
    return Features(kept["tokens"], kept["mask"], value.pooled[rows])


def _to(inputs: Mapping[str, Features | Tensors], device: torch.device) -> dict[str, Features | Tensors]:
    return {
        name: value.to(device)
        if isinstance(value, Features)
        else {key: tensor.to(device) for key, tensor in value.items()}
        for name, value in inputs.items()
    }
