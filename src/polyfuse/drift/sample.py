"""What is kept of some rows, so that others can be compared with them later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.calibration import places_of
from polyfuse.core.types import Inputs
from polyfuse.data.batches import Source
from polyfuse.data.rows import Rows
from polyfuse.drift.measures import level_code, level_codes, measured
from polyfuse.ensemble import Ensemble, is_table, shared_features
from polyfuse.inference import run
from polyfuse.metrics.metric import Array
from polyfuse.model import FusionModel, Model, Texts

MOST = 2_000  # rows
MOST_BYTES = 32 << 20
#: Fewer rows than this are compared with nothing.
LEAST = 30
_HALF = 6e4  # within what float16 can say

Sources: TypeAlias = Mapping[str, Source]


@dataclass(frozen=True, eq=False)
class Sample:
    """Some rows, as they are compared.

    Attributes:
        missing: by column, whether the cell is missing (rows,) bool.
        numbers: by column and measure (rows,) float64, nan where the cell is missing; see `measures.MEASURES`.
        codes: by column of categories, a hash of the level (rows,) int64, -1 where it is missing.
        present: by modality (rows,) bool.
        vectors: by modality with an encoder, pooled Features (rows, dim) float16; of no meaning where it is absent.
        scores: of the model, before calibration (rows, columns), of several targets side by side.
        truth: the answers, as metrics want them, likewise; nan where one is not known.
        by_folds: whether the scores are of models that each had learned from a part of the rows, and not of the one
            that came out and has learned from all.
        levels: by column of categories, hash to level. Names are not kept.
    """

    missing: dict[str, NDArray[np.bool_]]
    numbers: dict[tuple[str, str], Array]
    codes: dict[str, Array]
    present: dict[str, NDArray[np.bool_]]
    vectors: dict[str, Array]
    scores: Array
    truth: Array
    by_folds: bool = False
    levels: dict[str, dict[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def anything(self) -> NDArray[np.bool_]:
        """Whether any modality is present (rows,); the others have the prior for an answer."""
        return np.asarray(np.any(list(self.present.values()), axis=0))

    def scored(self, scores: Array) -> Sample:
        """Return the sample with other scores."""
        return replace(self, scores=scores)


def see(
    model: Model,
    rows: Rows,
    device: torch.device,
    scores: Array | None = None,
    *,
    sources: Sources | None = None,
) -> Sample:
    """Look at some rows.

    Args:
        model: on the device.
        rows: with answers or without.
        device: where the model is.
        scores: of these rows (rows, …), where they are known; the model is asked, where they are not.
        sources: where inputs come from, if not from the values.
    """
    cells = {column.name: [rows.cell(column.name, row) for row in range(len(rows))] for column in rows.schema.columns}
    missing = {name: np.array([cell is None for cell in some], dtype=bool) for name, some in cells.items()}
    numbers: dict[tuple[str, str], Array] = {}
    codes, levels = {}, {}
    for column in rows.schema.columns:
        if column.type == "category":
            codes[column.name] = level_codes(cells[column.name])
            levels[column.name] = {level_code(cell): cell for cell in set(cells[column.name]) - {None}}
        numbers |= {(column.name, what): v for what, v in measured(column.type, cells[column.name]).items()}
    vectors, said = _shown(model, rows, device, scores, sources or {})
    there = rows.present.numpy()
    present = {name: there[:, i].copy() for i, name in enumerate(rows.schema.modalities)}
    return Sample(missing, numbers, codes, present, vectors, said, _truth(model, rows), levels=levels)


def rows_that_fit(model: Model, rows: int) -> int:
    """Return how many of so many rows are kept: at most 2,000, of 32 MB of Features."""
    wide = sum(model.encoder(name).dim for name in encoded(model))
    return min(rows, MOST, MOST_BYTES // (2 * max(wide, 1)))


def encoded(model: Model) -> list[str]:
    """Name the modalities that have Features: not tables, whose cells say all, nor what is read as words alone."""
    return [name for name in model.modalities if _encoding(model, name) is not None]


def _encoding(model: Model, name: str) -> Model | None:
    """Return the model whose encoder reads a modality; None where its columns are compared themselves."""
    if is_table(model.encoder(name)) or name not in model.reads:
        return None
    if isinstance(model, Ensemble) and name not in shared_features(model):
        owners = [member.model for member in model.members if name in member.own]
        return next((owner for owner in owners if isinstance(owner, FusionModel)), None)
    return model


def _shown(
    model: Model, rows: Rows, device: torch.device, scores: Array | None, sources: Sources
) -> tuple[dict[str, Array], Array]:
    """Return pooled Features by modality, and scores (rows, columns)."""
    names, prior = encoded(model), model.head.prior()
    widths = [model.encoder(name).dim for name in names]

    def answer(inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        known = dict(inputs)
        parts = []
        for name in names:
            owner = _encoding(model, name)
            assert owner is not None
            here = present[:, [model.modalities.index(other) for other in owner.modalities]]
            features = owner.encode_one(name, inputs[name], here)
            if owner is model:  # so that it runs once
                known[name] = features
            parts.append(features.pooled.float())
        if scores is None:
            parts.append(model.scores(known, present, texts).reshape(len(present), -1).float())
        return torch.cat(parts, 1) if parts else torch.zeros(len(present), 0)

    empty = torch.cat([torch.zeros(sum(widths)), prior.cpu().reshape(-1) if scores is None else torch.zeros(0)])
    found = run(model, rows, device, answer, empty, sources=sources)[0].numpy()
    ends = np.cumsum([0, *widths])
    vectors = {
        name: np.clip(found[:, start:end], -_HALF, _HALF).astype(np.float16)
        for name, start, end in zip(names, ends, ends[1:], strict=False)
    }
    said = found[:, ends[-1] :] if scores is None else np.asarray(scores).reshape(len(rows), -1)
    return vectors, said.astype(np.float64)


def _truth(model: Model, rows: Rows) -> Array:
    """Return the answers (rows, columns), nan where the rows were read without."""
    if not rows.answered:
        return np.full((len(rows), places_of(rows.schema.target)[-1].true.stop), np.nan)
    head: Any = model.head
    truth = np.asarray(head.truth(head.encode(rows.answers)).numpy(), dtype=np.float64)
    return truth.reshape(len(rows), -1)
