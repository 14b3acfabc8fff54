"""A table is checked: its cells, its doubles, its leaks, its labels, what its modalities say of each row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from polyfuse.core.errors import DataError, InputError, MissingExtra, Problem, nearest
from polyfuse.core.progress import Progress
from polyfuse.data.cells import is_missing
from polyfuse.data.checks import training_problems
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import ColumnTask, ColumnType, Schema, Target
from polyfuse.learners.learner import Array
from polyfuse.progress import make_progress
from polyfuse.quality.doubles import Doubles, Looks, find_doubles, look_at
from polyfuse.quality.labels import Disagreements, LabelErrors, find_disagreements, find_label_errors
from polyfuse.quality.leaks import find_leaks
from polyfuse.quality.opinions import Opinions, coded, find_opinions
from polyfuse.quality.report import ColumnInfo, QualityReport

#: Rows whose labels are looked at, and folds; and the same where it is to be quick.
ROWS, FOLDS = 10_000, 5
FAST_ROWS, FAST_FOLDS = 2_000, 3
#: A label needs so many rows to be told apart from others, and there must be so many rows, and so few labels.
LEAST_OF_LABEL, LEAST_ROWS, MOST_LABELS = 5, 50, 100

_LABELS, _CONTRADICTIONS = "label errors", "modalities that contradict each other"


def check(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    test: Any = None,
    task: ColumnTask | Mapping[str, ColumnTask] | None = None,
    types: Mapping[str, ColumnType | Literal["ignore"]] | None = None,
    schema: Schema | None = None,
    scores: Array | None = None,
    media_root: str | Path | None = None,
    rows: int | None = None,
    examples: int = 10,
    fast: bool = False,
    seed: int = 0,
    progress: bool | Progress | None = None,
) -> QualityReport:
    """Look for what is wrong with a table, before a training or beside a model.

    Args:
        data: a path (CSV, TSV, JSON Lines, Parquet, a saved datasets folder), a DataFrame, a datasets.Dataset.
        target: the column that is asked for, or several.
        test: another table, whose rows are not to be among those of `data`; it needs no answers.
        task: what is asked of the target, where the inferred one is not wanted.
        types: type of a column, where the inferred one is not wanted; "ignore" leaves it out.
        schema: how a model reads tables, in place of `target`, `task` and `types`.
        scores: (rows of the table, labels) probabilities of a model that has not learned from these rows, its labels as
            in the schema; label errors are found by them. Without, fast models are cross-validated.
        media_root: where relative paths in cells start from; the folder of the table's file when left out.
        rows: rows whose labels are looked at without `scores`, at most, drawn at random; ROWS, or FAST_ROWS if `fast`.
        examples: of each kind, at most.
        fast: fewer rows and folds.
        seed: of all that is drawn.
        progress: whether bars are shown; where someone is looking, when left out.

    Raises:
        InputError: something in the call is wrong: no or an unknown target, scores of another shape.
        DataError: the table has no rows, or no row has an answer.
    """
    begun, shown = time.monotonic(), make_progress(progress)
    table = read_table(data, media_root=media_root)
    schema = _schema(table, target, task, types, schema)
    _check_call(table, schema, scores, rows=rows, examples=examples)
    found, problems = _read(table, schema, shown, answers=True)
    other = _other(test, schema, table.name, media_root, shown)
    looks = look_at(found, shown)
    test_looks = look_at(other[1], shown) if other is not None else None
    doubles = find_doubles(found, looks, other[1] if other else None, test_looks, most=examples)
    leaks, too_small = find_leaks(table, schema, found.positions, found.answers, seed=seed, progress=shown)
    most = rows if rows is not None else FAST_ROWS if fast else ROWS
    asking = _Asking(found, looks, doubles, most, FAST_FOLDS if fast else FOLDS, examples, seed, shown)
    labels, contradictions, left_out, notes = _of_labels(asking, scores)
    left_out |= {"columns that alone predict the target": too_small} if too_small else {}
    return QualityReport(
        table=table.name,
        target=schema.target.name,
        task=schema.target.task,
        rows=len(table.frame),
        test=other[0].name if other is not None else None,
        test_rows=len(other[0].frame) if other is not None else 0,
        answers=_counted(schema.target, found.answers),
        columns=_columns(table, schema),
        modalities=dict(zip(schema.modalities, found.present.double().mean(0).tolist(), strict=True)),
        problems=problems,
        doubles=doubles,
        leaks=leaks,
        labels=labels,
        disagreements=contradictions,
        left_out=left_out,
        notes=[*schema.notes, *notes, *(_notes_of_test(other[2], other[0].name) if other is not None else [])],
        seed=seed,
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True)
class _Asking:
    """What is needed to ask fast models about labels."""

    rows: Rows
    looks: Looks
    doubles: Doubles
    most: int
    folds: int
    examples: int
    seed: int
    progress: Progress


def _schema(table: Table, target: Any, task: Any, types: Any, given: Schema | None) -> Schema:
    """Return how the table is read."""
    if given is None:
        if not target:
            raise InputError(f"check: no target is named; name a column of {table.name}, or give a schema")
        return infer_schema(table, target, task=task, types=types)
    if target or task or types:
        raise InputError("check: the schema says what target, task and types are; leave them out")
    return given


def _check_call(table: Table, schema: Schema, scores: Array | None, *, rows: int | None, examples: int) -> None:
    missing = [name for name in schema.target.names if name not in table.frame.columns]
    if len(missing) == len(schema.target.names):
        raise InputError(
            f"{table.name} has no column {missing[0]!r}, the target; {nearest(missing[0], table.frame.columns)}"
        )
    if examples < 1 or (rows is not None and rows < 1):
        raise InputError(f"check: rows = {rows}, examples = {examples}; give at least 1 of each")
    wanted = (len(table.frame), len(schema.target.levels))
    if scores is not None and (not schema.target.levels or np.shape(scores) != wanted):
        rule = f"a probability for each row and label of {schema.target.name!r}: {wanted}"
        raise InputError(f"check: the scores have the shape {np.shape(scores)}; give {rule}")


def _read(table: Table, schema: Schema, progress: Progress, *, answers: bool) -> tuple[Rows, list[Problem]]:
    """Return the rows, cells that cannot be read taken for missing, and what is wrong with them."""
    problems: list[Problem] = []
    try:
        rows = read_rows(table, schema, training=False, answers=answers, progress=progress)
    except DataError as error:
        problems = list(error.problems)
        rows = read_rows(table, schema, training=False, answers=answers, on_bad_row="absent", progress=progress)
    return rows, [*(training_problems(schema, rows.answers) if answers else []), *problems]


def _other(
    test: Any, schema: Schema, name: str, media_root: str | Path | None, progress: Progress
) -> tuple[Table, Rows, list[Problem]] | None:
    if test is None:
        return None
    table = read_table(test, media_root=media_root)
    if table.name == name:
        table = replace(table, name=f"{name} to test on")
    known = [column.name for column in schema.columns if column.name in table.frame.columns]
    if schema.columns and not known:
        raise InputError(f"{table.name} has none of the columns {', '.join(c.name for c in schema.columns[:8])}")
    return (table, *_read(table, schema, progress, answers=False))


def _notes_of_test(problems: Sequence[Problem], name: str) -> list[str]:
    return [f"{name}: {problem}" for problem in problems]


def _of_labels(
    asking: _Asking, scores: Array | None
) -> tuple[LabelErrors | None, Disagreements | None, dict[str, str], list[str]]:
    """Return likely label errors, contradictions, why either is left out, and notes."""
    target, rows = asking.rows.schema.target, asking.rows
    reason = _no_labels(target)
    if reason:
        return None, None, {_LABELS: reason, _CONTRADICTIONS: f"the task is {target.task}"}, []
    left_out: dict[str, str] = {}
    several = len(rows.schema.modalities) > 1 and target.task == "classification"
    if not several:
        left_out[_CONTRADICTIONS] = (
            "there is only one modality" if target.task == "classification" else f"the task is {target.task}"
        )
    every = np.flatnonzero(rows.present.any(1).numpy())
    some, narrowed, rare = _to_ask(rows, every if scores is not None else _drawn(every, asking), target)
    if len(some) < LEAST_ROWS or not 2 <= len(narrowed.levels) <= MOST_LABELS:
        kept = f"{len(some)} rows and {len(narrowed.levels)} labels with {LEAST_OF_LABEL} rows or more"
        rule = f"it takes {LEAST_ROWS} rows and 2 to {MOST_LABELS} labels"
        return None, None, {_LABELS: f"{kept}; {rule}", _CONTRADICTIONS: f"{kept}; {rule}"}, []
    notes = [rare] if rare else []
    labels: LabelErrors | str | None = None
    if scores is not None:
        labels = _by_model(asking, some, narrowed, scores)
        some = _drawn(some, asking)
    contradictions = None
    if scores is None or several:
        if len(some) < len(every):
            notes.append(f"labels: {len(some):,} of {len(every):,} rows were looked at, drawn with seed {asking.seed}")
        opinions, answers, positions = _asked(asking, some, narrowed, alone=several)
        labels = labels or _errors(narrowed, answers, opinions.joint, positions, opinions.models, asking.examples)
        if several:
            contradictions = find_disagreements(narrowed, answers, opinions.alone, positions, most=asking.examples)
    if isinstance(labels, str):
        left_out[_LABELS], labels = labels, None
    return labels, contradictions, left_out, notes


def _no_labels(target: Target) -> str:
    """Say why a target has no labels to be doubted, if it has none."""
    if target.parts:
        return "several targets: check one of them at a time"
    if target.task == "regression":
        return "numbers: that one is far from what is expected does not make it an error, and no threshold is sound"
    return ""


def _drawn(every: Array, asking: _Asking) -> Array:
    if len(every) <= asking.most:
        return every
    return np.sort(np.random.default_rng(asking.seed).permutation(every)[: asking.most])


def _to_ask(rows: Rows, some: Array, target: Target) -> tuple[Array, Target, str]:
    """Return the rows with frequent labels, a target of these alone, and a note on the others."""
    answers = rows.answers
    if target.task == "multilabel":
        counts = Counter(label for row in some.tolist() for label in answers[row])
    else:
        counts = Counter(answers[row] for row in some.tolist())
    levels = [level for level in target.levels if counts[level] >= LEAST_OF_LABEL]
    rare = [str(level) for level in target.levels if 0 < counts[level] < LEAST_OF_LABEL]
    known = set(levels)
    if target.task == "classification":
        some = np.array([row for row in some.tolist() if answers[row] in known], dtype=np.int64)
    shares = [counts[level] / max(1, len(some)) for level in levels]
    note = f"labels: those of fewer than {LEAST_OF_LABEL} rows are not doubted: {', '.join(rare[:8])}" if rare else ""
    return some, target.model_copy(update={"levels": levels, "frequencies": shares}), note


def _answers(rows: Rows, some: Array, target: Target) -> Array:
    every = rows.answers
    answers = [every[row] for row in some.tolist()]
    if target.task == "multilabel":
        known = set(target.levels)
        answers = [[label for label in labels if label in known] for labels in answers]
    return coded(answers, target)


def _asked(asking: _Asking, some: Array, target: Target, *, alone: bool) -> tuple[Opinions, Array, Array]:
    """Return what fast models say of some rows, the rows' answers, and their positions."""
    rows = asking.rows.subset(some.tolist())
    looks = {name: [found[row] for row in some.tolist()] for name, found in asking.looks.items()}
    groups = [asking.doubles.groups[row] for row in some.tolist()] if asking.doubles.by_chance < 1 else range(len(rows))
    answers = _answers(asking.rows, some, target)
    opinions = find_opinions(
        rows,
        looks,
        target,
        answers,
        groups,
        count=asking.folds,
        seed=asking.seed,
        alone=alone,
        progress=asking.progress,
    )
    return opinions, answers, rows.positions


def _by_model(asking: _Asking, some: Array, target: Target, scores: Array) -> LabelErrors | str:
    """Find label errors by the scores of a model."""
    columns = [asking.rows.schema.target.levels.index(level) for level in target.levels]
    positions = asking.rows.positions[some]
    chosen = np.asarray(scores, dtype=np.float64)[positions][:, columns]
    if target.task == "classification":
        chosen = chosen / np.maximum(chosen.sum(1, keepdims=True), 1e-12)
    answers = _answers(asking.rows, some, target)
    return _errors(target, answers, chosen, positions, "probabilities of the model", asking.examples)


def _errors(
    target: Target, answers: Array, scores: Array, positions: Array, source: str, most: int
) -> LabelErrors | str:
    try:
        return find_label_errors(target, answers, scores, positions, source=source, most=most)
    except MissingExtra as error:
        return str(error)


def _counted(target: Target, answers: Sequence[Any]) -> dict[str, int]:
    if target.parts or target.task == "regression":
        return {}
    labels = [label for row in answers for label in row] if target.task == "multilabel" else answers
    return {str(label): count for label, count in Counter(labels).most_common()}


def _columns(table: Table, schema: Schema) -> list[ColumnInfo]:
    feeds = {name: modality for modality, names in schema.modalities.items() for name in names}
    types: dict[str, str] = {column.name: column.type for column in schema.columns}
    types |= {target.name: target.task for target in schema.target.each()}
    found = []
    for name in table.frame.columns:
        cells = table.frame[name].tolist()
        there = [cell for cell in cells if not is_missing(cell)]
        role = "target" if name in schema.target.names else feeds.get(name, "left out")
        missing = 1 - len(there) / max(1, len(cells))
        found.append(
            ColumnInfo(
                name, types.get(name, ""), role, missing, len(set(map(_written, there))), schema.left_out.get(name, "")
            )
        )
    return found


def _written(cell: Any) -> Any:
    """Return what tells one cell from another as it is written."""
    if isinstance(cell, Mapping):
        return tuple((str(key), _written(value)) for key, value in cell.items())
    if isinstance(cell, np.ndarray):
        return cell.tobytes() if cell.dtype != object else tuple(_written(part) for part in cell.flat)
    if isinstance(cell, str | bytes | bool | int | float):
        return cell
    return repr(cell)
