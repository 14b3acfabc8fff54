"""Columns of a table, and of whatever else is taken away as a whole."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from polyfuse.core.types import Sound
from polyfuse.data.schema import Column
from polyfuse.encoders.table import CategoryEmbeddings, NumberEmbeddings, TableEncoder
from polyfuse.explanation.methods import Floats
from polyfuse.explanation.parts import Kind, TablePart
from polyfuse.explanation.question import Changed, Question, runs_alone
from polyfuse.explanation.subject import Place, Subject

_ENTRIES = {"datetime": 7}  # numbers that an encoder makes of a cell, where it is more than one


class ColumnsSubject(Subject):
    """Cells. Typical ones are the median, the most frequent level; a vector's entries, shuffled."""

    kind: ClassVar[Kind] = "table"
    baselines = ("typical values", "absent")

    def __init__(self, question: Question, name: str, seed: int) -> None:
        super().__init__(question, name, seed)
        self._columns = question.schema.of(name)
        self._cells = question.values[name] or ()
        drawn = np.random.default_rng(seed)
        pairs = zip(self._columns, self._cells, strict=True)
        self._typical = tuple(_typical(column, cell, drawn) for column, cell in pairs)
        self.piece_of = np.arange(len(self._columns))

    def changed(self, kept: Tensor, baseline: str) -> Changed:
        """Return the inputs of other cells."""
        others = self._others(baseline)
        values = [
            tuple(cell if here else other for cell, other, here in zip(self._cells, others, row, strict=True))
            for row in kept.tolist()
        ]
        return self.question.changed(self.name, values)

    def place(self, baseline: str) -> Place | None:
        """Return the embeddings of a table's cells; of vectors, the vectors."""
        mine, other = (self.question.prepared(self.name, [value]) for value in (self._cells, self._others(baseline)))
        modules = self._modules()
        if modules and runs_alone(self.question.model, self.name):
            return self.at_modules(mine, modules, other)
        if {column.type for column in self._columns} == {"embedding"} and self.encoder.continuous:
            (seam,) = self.encoder.continuous
            return self.at_tensor(mine, seam, other[seam]) if baseline == self.baselines[0] else None
        return None

    def cells(self, found: Sequence[Tensor]) -> Floats:
        """Return weights of columns: sums over the entries of their embeddings."""
        weights: Floats = np.zeros(len(self._columns))
        if not self._modules():
            ends = np.cumsum([column.size or 0 for column in self._columns])[:-1].tolist()
            return np.array([float(part.sum()) for part in torch.tensor_split(found[0][0].double().cpu(), ends)])
        for module, one in zip(self._modules(), found, strict=True):
            category = isinstance(module, CategoryEmbeddings)
            places = [i for i, column in enumerate(self._columns) if (column.type == "category") is category]
            counts = [_ENTRIES.get(self._columns[i].type, 1) for i in places]
            entries = one[0].double().sum(-1).cpu().numpy()
            np.add.at(weights, np.repeat(places, counts), entries)
        return weights

    def part(self, weights: Floats, **common: Any) -> TablePart:
        """Return columns and weights."""
        others = self._others(common["baseline"] or self.baselines[0])
        return TablePart(
            **common,
            names=[column.name for column in self._columns],
            values=[shown(column, cell) for column, cell in zip(self._columns, self._cells, strict=True)],
            replaced=[shown(column, cell) for column, cell in zip(self._columns, others, strict=True)],
            weights=weights.tolist(),
        )

    def _others(self, baseline: str) -> tuple[Any, ...]:
        return self._typical if baseline == self.baselines[0] else (None,) * len(self._columns)

    def _modules(self) -> list[nn.Module]:
        if not isinstance(self.encoder, TableEncoder):
            return []
        return [m for m in self.encoder.modules() if isinstance(m, NumberEmbeddings | CategoryEmbeddings)]


def shown(column: Column, cell: Any) -> Any:
    """Return a cell as a JSON value that a person reads."""
    if isinstance(cell, np.ndarray) and cell.ndim == 2:
        return f"cloud of {len(cell)}"
    if isinstance(cell, np.ndarray):
        return f"vector of {len(cell)}"
    if isinstance(cell, Sound):
        return f"{len(cell.samples) / cell.rate:.2f} s"
    if isinstance(cell, list):
        return f"{len(cell)} images"
    if column.type == "datetime" and cell is not None:
        try:
            return datetime.datetime.fromtimestamp(cell, datetime.UTC).isoformat(sep=" ")
        except (OverflowError, ValueError, OSError):
            return cell
    return cell


def _typical(column: Column, cell: Any, drawn: np.random.Generator) -> Any:
    if column.type == "category":
        return column.levels[0] if column.levels else None
    if column.type == "embedding" and cell is not None:
        return drawn.permutation(cell)
    if not column.quantiles:
        return None
    median = float(column.quantiles[len(column.quantiles) // 2])
    return float(round(median)) if column.whole else median
