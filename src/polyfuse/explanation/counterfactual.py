"""The nearest change within what was seen that changes an answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from polyfuse.data.augmentation.table import spread
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Column
from polyfuse.explanation.columns import shown
from polyfuse.explanation.parts import rounded, short
from polyfuse.explanation.question import BATCH, Question

#: An answer of a regression has changed where it moved by so many standard deviations of the target.
MOVED = 0.5
_QUANTILES = 11  # of a number's range that are tried
_LEVELS = 20  # of a category that are tried, the most frequent
_COLUMNS = 8  # that take part in changes of several, those that bring the row nearest to another answer
_BEAM = 8  # changes of two columns to which a third is added
_EACH = 3  # values of a column that take part in changes of several
_WHOLE = 6  # modalities of which every subset is tried

#: Other cells, by modality and place among its columns.
Cells: TypeAlias = Mapping[tuple[str, int], Any]


@dataclass(frozen=True)
class Change:
    """What is otherwise in a counterfactual.

    Attributes:
        modality: where it lies.
        column: None where it is the whole modality.
        before: the cell as a JSON value; None of a whole modality.
        after: the other cell; "taken away", or "that of row …".
    """

    modality: str
    column: str | None
    before: Any
    after: Any


@dataclass(frozen=True)
class Counterfactual:
    """A change that changes the answer.

    Attributes:
        changes: all of them together.
        answer: of the model then.
        score: probability of that answer, of the most probable of several labels; None of a regression.
        distance: of columns, the sum over numbers of their moves in spreads (distances between quartiles), and 1 for
            each category; None of modalities.
    """

    changes: list[Change]
    answer: Any
    score: float | None
    distance: float | None

    def __str__(self) -> str:
        said = [
            f"{one.column} {short(one.before)} -> {short(one.after)}" if one.column else f"{one.modality} {one.after}"
            for one in self.changes
        ]
        return f"{', '.join(said)}: {short(self.answer)}"


@dataclass(frozen=True)
class Counterfactuals:
    """What would change an answer; None where it was looked for and nothing was found.

    Attributes:
        columns: the fewest columns set to observed values, at most three, the nearest of those that were tried: every
            column alone, then two and three of those that bring the row nearest to another answer.
        removed: the fewest modalities taken away.
        swapped: one modality as another row has it.
        tried: number of versions of the row that were tried, by kind; 0 where the row has nothing to change.
    """

    columns: Counterfactual | None
    removed: Counterfactual | None
    swapped: Counterfactual | None
    tried: dict[str, int]

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        found = {"columns": self.columns, "removed": self.removed, "swapped": self.swapped}
        return {"tried": self.tried} | {
            kind: None
            if one is None
            else rounded({**vars(one), "changes": [dict(vars(change)) for change in one.changes]})
            for kind, one in found.items()
        }


def counterfactuals(question: Question, others: Rows | None = None) -> Counterfactuals:
    """Search for what changes the answer to a row.

    Args:
        question: whose row it is.
        others: rows whose modalities may take the place of the row's own, the nearest first.
    """
    search = _Search(question)
    columns, tried = search.columns()
    removed, subsets = search.removed()
    swapped, swaps = search.swapped(others) if others is not None else (None, 0)
    return Counterfactuals(columns, removed, swapped, {"columns": tried, "removed": subsets, "swapped": swaps})


@dataclass(frozen=True, eq=False)
class _Tried:
    """Other cells, and how near they bring the row to another answer; below 0 where they do."""

    cells: Cells
    distance: float
    margin: float
    score: Tensor


class _Search:
    """Puts versions of one row to the model."""

    def __init__(self, question: Question) -> None:
        self.question, self.head = question, question.model.head

    def columns(self) -> tuple[Counterfactual | None, int]:
        """Try one column, then two, then three."""
        single = self._asked([dict([one]) for one in self._candidates()])
        tried = len(single)
        if found := self._nearest(single):
            return found, tried
        single.sort(key=lambda one: one.margin)
        best: dict[tuple[str, int], list[_Tried]] = {}
        for one in single:
            best.setdefault(next(iter(one.cells)), []).append(one)
        steps = [one for kept in list(best.values())[:_COLUMNS] for one in kept[:_EACH]]
        beam = steps
        for _ in (2, 3):
            pairs = [
                {**one.cells, **step.cells} for one in beam for step in steps if not set(one.cells) & set(step.cells)
            ]
            several = self._asked(list({frozenset(cells.items()): cells for cells in pairs}.values()))
            tried += len(several)
            if found := self._nearest(several):
                return found, tried
            beam = sorted(several, key=lambda one: one.margin)[:_BEAM]
        return None, tried

    def removed(self) -> tuple[Counterfactual | None, int]:
        """Try every subset of the modalities but all, the smallest first."""
        names = [name for name in self.question.model.modalities if self.question.there(name)]
        most = len(names) - 1 if len(names) <= _WHOLE else 2
        tried = 0
        for size in range(1, most + 1):
            some = list(itertools.combinations(names, size))
            present = self.question.present.repeat(len(some), 1)
            for row, gone in enumerate(some):
                present[row, [self.question.model.modalities.index(name) for name in gone]] = False
            scores = self._scores(present)
            tried += len(some)
            margins = self._margins(scores)
            at = int(margins.argmin())
            if margins[at] < 0:
                changes = [Change(name, None, None, "taken away") for name in some[at]]
                return self._found(changes, scores[at], None), tried
        return None, tried

    def swapped(self, others: Rows) -> tuple[Counterfactual | None, int]:
        """Try each modality as other rows have it, of the nearest rows first."""
        names = [name for name in self.question.model.modalities if self.question.there(name)]
        found: tuple[int, Change, Tensor] | None = None
        tried = 0
        for name in names:
            pairs = [(row, others.value(name, row)) for row in range(len(others))]
            pairs = [(row, value) for row, value in pairs if value is not None]
            if not pairs:
                continue
            scores = self.question.scored(name, [value for _, value in pairs])
            tried += len(pairs)
            for at in np.flatnonzero(self._margins(scores) < 0)[:1].tolist():
                row = pairs[at][0]
                if found is None or row < found[0]:
                    found = row, Change(name, None, None, f"that of row {others.index[row]}"), scores[at]
        return (None if found is None else self._found([found[1]], found[2], None)), tried

    def _candidates(self) -> Iterator[tuple[tuple[str, int], Any]]:
        """Yield each other value that a cell of the row may have been observed with."""
        for name, value in self.question.values.items():
            if value is None:
                continue
            for i, (column, cell) in enumerate(zip(self.question.schema.of(name), value, strict=True)):
                if cell is not None:
                    yield from (((name, i), other) for other in observed(column) if other != cell)

    def _asked(self, every: Sequence[Cells]) -> list[_Tried]:
        found: list[_Tried] = []
        for start in range(0, len(every), BATCH):
            some = every[start : start + BATCH]
            names = {name for cells in some for name, _ in cells}
            changes = {}
            for name in names:
                clean = self.question.values[name] or ()
                values = [tuple(cells.get((name, i), cell) for i, cell in enumerate(clean)) for cells in some]
                changes[name] = self.question.changed(name, values)
            with torch.no_grad():
                scores = self.question.scores_of(self.question.outputs(changes, len(some)))
            margins = self._margins(scores)
            found += [
                _Tried(cells, self._distance(cells), float(margin), score)
                for cells, margin, score in zip(some, margins, scores, strict=True)
            ]
        return found

    def _scores(self, present: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self.question.outputs({}, len(part), part) for part in torch.split(present, BATCH)]
            return self.question.scores_of(torch.cat(parts))

    def _margins(self, scores: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return how far each version is from another answer (n,): below 0 where it has one."""
        clean = self.question.scores.double()
        scores = scores.double()
        if self.head.task == "regression":
            margin = MOVED * self.question.schema.target.std - (scores - clean).abs().reshape(-1)
        elif self.head.task == "multilabel":
            side = torch.where(clean >= 0.5, 1.0, -1.0)
            margin = ((scores - 0.5) * side).amin(1)
        else:
            rest = scores.clone()
            rest[:, self.question.at] = -torch.inf
            margin = scores[:, self.question.at] - rest.amax(1)
        found: np.ndarray[Any, np.dtype[np.float64]] = margin.numpy()
        return found

    def _distance(self, cells: Cells) -> float:
        total = 0.0
        for (name, i), cell in cells.items():
            column, before = self.question.schema.of(name)[i], (self.question.values[name] or ())[i]
            total += abs(cell - before) / spread(column.quantiles) if column.type == "number" else 1.0
        return total

    def _nearest(self, some: Sequence[_Tried]) -> Counterfactual | None:
        turned = [one for one in some if one.margin < 0]
        if not turned:
            return None
        best = min(turned, key=lambda one: one.distance)
        changes = []
        for (name, i), cell in best.cells.items():
            column, before = self.question.schema.of(name)[i], (self.question.values[name] or ())[i]
            changes.append(Change(name, column.name, shown(column, before), shown(column, cell)))
        return self._found(changes, best.score, best.distance)

    def _found(self, changes: list[Change], score: Tensor, distance: float | None) -> Counterfactual:
        answer = self.head.decode(score[None])[0]
        sure = None if self.head.task == "regression" else float(score.max())
        return Counterfactual(changes, answer, sure, distance)


def observed(column: Column) -> list[Any]:
    """Return values that a column was observed with: its levels, or quantiles of its numbers; none of others.

    >>> observed(Column(name="a", type="category", levels=["x", "y"]))
    ['x', 'y']
    """
    if column.type == "category":
        return list(column.levels[:_LEVELS])
    if column.type != "number" or not column.quantiles or not spread(column.quantiles):
        return []
    at = np.linspace(0, len(column.quantiles) - 1, _QUANTILES).round().astype(int)
    numbers = [column.quantiles[i] for i in at]
    return sorted({float(round(number)) if column.whole else number for number in numbers})
