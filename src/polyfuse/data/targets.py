"""The column that is asked for: its task, its labels, and what its cells say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from polyfuse.core.errors import DataError, InputError, Problem, nearest
from polyfuse.data.cells import CellError, category, clean, is_missing, json_list, number, shown
from polyfuse.data.schema import ColumnTask, Label, Target

#: Whole numbers of at most so many different values are classes.
FEW = 20
#: Codes 0 to n-1, or 1 to n, are classes up to here, where each is frequent.
CODES = 100


def infer_targets(
    columns: Mapping[str, Sequence[Any]], task: ColumnTask | Mapping[str, ColumnTask] | None
) -> tuple[Target, list[str]]:
    """Return the target of the training rows, one of several where there are several, and notes on how it was read.

    Args:
        columns: names of those that are asked for, each with the cells of all rows.
        task: overrides what is inferred: of all, or by name.

    Raises:
        DataError: a target is missing in every row.
        InputError: the cells do not fit the task; a task is given to what is not asked for.
    """
    given = task if isinstance(task, Mapping) else dict.fromkeys(columns, task)
    for name in given:
        if name not in columns:
            raise InputError(f"task: {name!r} is not among the targets; {nearest(name, columns)}")
    found = {name: infer_target(name, cells, given.get(name)) for name, cells in columns.items()}
    return Target.of([target for target, _ in found.values()]), [note for _, notes in found.values() for note in notes]


def infer_target(name: str, cells: Sequence[Any], task: ColumnTask | None) -> tuple[Target, list[str]]:
    """Return the target of the training rows, and notes on how it was read.

    Lists are multilabel; text and booleans are classes. Whole numbers are classes when there are at most FEW of them,
    each in three rows on average, or when they are the codes 0 to n-1 (or 1 to n), n at most CODES, each in ten rows or
    more and none ten times as frequent as another. All other numbers are a regression.

    Args:
        name: of the column.
        cells: of all rows.
        task: overrides what is inferred.

    Raises:
        DataError: the target is missing in every row.
        InputError: the cells do not fit the task.
    """
    found = [cell for cell in cells if not no_answer(cell)]
    if not found:
        raise DataError([Problem("the target is missing in every row", name, tuple(range(len(cells))))])
    notes: list[str] = []
    if task is None:
        task, note = _infer_task(found)
        notes += [f"target {name!r}: {note}"] if note else []
    if task == "regression":
        return _regression(name, found), notes
    if task == "multilabel":
        return _multilabel(name, found), notes
    lists = [cell for cell in found if _as_list(cell) is not None and not isinstance(cell, str)]
    if lists:
        raise InputError(f"target {name!r} holds lists: set its task to multilabel, or give one label in each row")
    levels, counts = _levels(found)
    if not levels:
        raise InputError(f"target {name!r} holds {shown(found[0])}: a label is a word, a number or a boolean")
    return Target(name=name, task=task, levels=levels, frequencies=[count / len(found) for count in counts]), notes


class AnswerReader:
    """Reads the target's cells as answers in the target's own kinds."""

    def __init__(self, target: Target) -> None:
        self._task = target.task
        self._exact: dict[Label, Label] = {level: level for level in target.levels}
        self._named = {category(level): level for level in target.levels}
        self._order = {level: i for i, level in enumerate(target.levels)}

    def read(self, cell: Any) -> Any:
        """Return a label, a float, or a list of labels.

        Raises:
            CellError: the cell is missing, no number, or holds a label that is not among the target's.
        """
        if no_answer(cell):
            raise CellError("the target is missing; fill it in, or leave the row out")
        if self._task == "regression":
            return self._number(cell)
        if self._task == "classification":
            return self._label(cell)
        labels = _as_list(cell)
        if labels is None:
            raise CellError("a list of labels is expected", shown(cell))
        return sorted({self._label(label) for label in labels if not is_missing(label)}, key=self._order.__getitem__)

    def _number(self, cell: Any) -> float:
        value = number(cell)
        if value != value:
            raise CellError("the target must be a number", shown(cell))
        if not np.isfinite(value):
            raise CellError("the target must be finite", shown(cell))
        return value

    def _label(self, cell: Any) -> Label:
        if isinstance(cell, str | Real) and (exact := self._exact.get(_plain(cell))) is not None:
            return exact
        named = self._named.get(category(cell))
        if named is None:
            raise CellError("the label is not among those of the training rows", shown(cell))
        return named


def _infer_task(cells: Sequence[Any]) -> tuple[ColumnTask, str]:
    lists = sum(_as_list(cell) is not None for cell in cells)
    if lists * 2 > len(cells):
        return "multilabel", ""
    texts = [cell for cell in cells if isinstance(cell, str)]
    if texts:
        values = [number(text) for text in texts]
        distinct = len(set(values))
        numeric = sum(value == value for value in values) > 0.95 * len(cells) and distinct > FEW
        coded = any(text.strip().startswith("0") and text.strip().isdigit() and len(text.strip()) > 1 for text in texts)
        return ("regression", "text is read as numbers") if numeric and not coded else ("classification", "")
    if not all(isinstance(cell, Real) for cell in cells):
        return "classification", ""
    if all(isinstance(cell, bool | np.bool_) for cell in cells):
        return "classification", ""
    counts = Counter(float(cell) for cell in cells)
    if not all(value.is_integer() for value in counts):
        return "regression", ""
    few = len(counts) <= FEW and len(cells) >= 3 * len(counts)
    least, most = min(counts.values()), max(counts.values())
    first, last = min(counts), max(counts)
    codes = first in (0, 1) and last - first + 1 == len(counts) <= CODES and least >= 10 and most <= 10 * least
    if len(counts) == 2 and few:
        return "classification", ""
    if few or codes:
        return "classification", f"{len(counts)} whole numbers are taken as classes; for amounts, set task: regression"
    return "regression", ""


def _regression(name: str, cells: Sequence[Any]) -> Target:
    values = []
    for cell in cells:
        try:
            values.append(number(cell))
        except CellError:
            values.append(np.nan)
    every = np.asarray(values)
    finite = every[np.isfinite(every)]
    if 2 * np.isnan(every).sum() > len(every) or len(finite) == 0:
        odd = next(cell for cell, value in zip(cells, values, strict=True) if not np.isfinite(value))
        raise InputError(f"target {name!r} holds {shown(odd)}: a regression needs finite numbers; set another task")
    # Scaled, so that the squares of huge numbers do not overflow.
    scale = max(float(np.abs(finite).max()), 1e-300)
    mean, std = float((finite / scale).mean()) * scale, float((finite / scale).std()) * scale
    constant = bool((finite == finite[0]).all())
    return Target(name=name, task="regression", mean=mean, std=1.0 if constant or std == 0 else std)


def _multilabel(name: str, cells: Sequence[Any]) -> Target:
    lists = [labels for cell in cells if (labels := _as_list(cell)) is not None]
    if len(lists) * 2 < len(cells):
        odd = next(cell for cell in cells if _as_list(cell) is None)
        raise InputError(f"target {name!r} holds {shown(odd)}: multilabel needs a list of labels in each row")
    levels, _ = _levels([label for labels in lists for label in labels if not is_missing(label)])
    if not levels:
        raise InputError(f"target {name!r} holds no label in any row")
    reader = AnswerReader(Target(name=name, task="multilabel", levels=levels))
    counts: Counter[Label] = Counter()
    for labels in lists:
        counts.update({reader._label(label) for label in labels if not is_missing(label) and _is_label(label)})
    frequencies = [counts[level] / len(lists) for level in levels]
    return Target(name=name, task="multilabel", levels=levels, frequencies=frequencies)


def _levels(cells: Sequence[Any]) -> tuple[list[Label], list[int]]:
    """Return labels of one kind, sorted, and how often each occurs; what is no label is left out."""
    labels = [cell for cell in cells if _is_label(cell)]
    numbers = all(isinstance(cell, Real) and not isinstance(cell, bool | np.bool_) for cell in labels)
    booleans = all(isinstance(cell, bool | np.bool_) for cell in labels)
    counts: Counter[Any]
    if numbers:
        values = [_plain(cell) for cell in labels]
        whole = all(float(value).is_integer() for value in values)
        counts = Counter(int(value) if whole else float(value) for value in values)
    else:
        counts = Counter(_plain(cell) if booleans else category(cell) for cell in labels)
    levels = sorted(counts)
    return levels, [counts[level] for level in levels]


def _is_label(cell: Any) -> bool:
    try:
        category(cell)
    except CellError:
        return False
    return not isinstance(cell, Real) or bool(np.isfinite(float(cell)))


def _plain(cell: Any) -> Label:
    if isinstance(cell, str):
        return clean(cell)
    if isinstance(cell, bool | np.bool_):
        return bool(cell)
    return int(cell) if isinstance(cell, Integral) else float(cell)


def _as_list(cell: Any) -> list[Any] | None:
    """Return the labels of a cell that holds several: a list, tuple, set or array, or a JSON list."""
    if isinstance(cell, str):
        return json_list(cell)
    if isinstance(cell, np.ndarray):
        return list(cell) if cell.ndim == 1 else None
    return list(cell) if isinstance(cell, list | tuple | set | frozenset) else None


def no_answer(cell: Any) -> bool:
    """Tell whether a target's cell is missing."""
    # An empty list is an answer: none of the labels.
    return _as_list(cell) is None and is_missing(cell)
