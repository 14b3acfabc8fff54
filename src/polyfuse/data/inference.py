"""What a table holds: a type for each column, the modalities they feed, the target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from polyfuse.core.errors import DataError, InputError, Problem, nearest
from polyfuse.data.kinds import Guess, guess_type
from polyfuse.data.reading import Table
from polyfuse.data.schema import Column, ColumnTask, ColumnType, Schema
from polyfuse.data.statistics import describe
from polyfuse.data.targets import infer_targets

_TABLE: frozenset[ColumnType] = frozenset({"number", "category", "datetime"})


def infer_schema(
    table: Table,
    target: str | Sequence[str],
    *,
    task: ColumnTask | Mapping[str, ColumnTask] | None = None,
    types: Mapping[str, ColumnType | Literal["ignore"]] | None = None,
    modalities: Mapping[str, Sequence[str]] | None = None,
    ignore: Collection[str] = (),
) -> Schema:
    """Return what is known of a training table. The rules are in `polyfuse.data.kinds` and `polyfuse.data.targets`.

    Args:
        table: the training rows.
        target: the column that is asked for, or several.
        task: what is asked of it, where the inferred one is not wanted; of several, of all or by name.
        types: type of a column, where the inferred one is not wanted; "ignore" leaves it out.
        modalities: name to columns; a column named here is used even if it looks like an identifier, one that is not
            named is left out. When None: all images are the modality `image`, all recordings `audio`, clouds `points`,
            texts `text`, numbers, categories and datetimes `table`, vectors `embedding`; several columns of images,
            recordings, clouds or vectors are a modality each, named like the column.
        ignore: columns to leave out.

    Raises:
        InputError: a column is not in the table; the target does not fit the task.
        DataError: the table has no rows, or the target is missing in all of them.
    """
    types = types or {}
    targets = [target] if isinstance(target, str) else list(target)
    _check_names(table, targets, types, modalities, ignore)
    if len(table.frame) == 0:
        raise DataError([Problem(f"{table.name} has no rows")])
    asked, notes = infer_targets({name: table.frame[name].tolist() for name in targets}, task)
    ignored = {*ignore, *(name for name, choice in types.items() if choice == "ignore")}
    named = None if modalities is None else {name for columns in modalities.values() for name in columns}
    chosen, left_out = _choose(table, targets, types, named, ignored)
    columns = []
    for name, type in chosen.items():
        column, remarks = describe(name, type, table.frame[name].tolist(), table.media)
        columns.append(column)
        notes += remarks
    given = {name: list(some) for name, some in modalities.items()} if modalities is not None else None
    feeding = given if given is not None else _default_modalities(columns)
    return Schema(columns=columns, modalities=feeding, target=asked, left_out=left_out, notes=notes)


def _choose(
    table: Table,
    targets: Collection[str],
    types: Mapping[str, ColumnType | Literal["ignore"]],
    named: Collection[str] | None,
    ignored: Collection[str],
) -> tuple[dict[str, ColumnType], dict[str, str]]:
    """Return the type of each column that is used, and why the others are not."""
    chosen: dict[str, ColumnType] = {}
    left_out: dict[str, str] = {}
    counters: dict[str, ColumnType] = {}
    for name in table.frame.columns:
        if name in targets:
            continue
        choice = types.get(name)
        if name in ignored:
            left_out[name] = "set to be ignored"
        elif named is not None and name not in named:
            left_out[name] = "feeds no modality"
        elif choice is not None and choice != "ignore":
            chosen[name] = choice
        else:
            guess = guess_type(name, table.frame[name].tolist())
            if guess.type is not None and (not guess.reason or named is not None):
                chosen[name] = guess.type
            else:
                _check_not_named(name, guess, named)
                left_out[name] = guess.reason
                if guess.counter and guess.type is not None:
                    counters[name] = guess.type
    if not chosen and counters:
        # A table whose only numbers count its rows, e.g. a time series, would have nothing to learn from.
        left_out = {name: reason for name, reason in left_out.items() if name not in counters}
        chosen = counters
    return chosen, left_out


def _check_not_named(name: str, guess: Guess, named: Collection[str] | None) -> None:
    if named is not None:
        raise InputError(f"column {name!r} cannot feed a modality: {guess.reason}; take it out, or set its type")


def _check_names(
    table: Table,
    targets: Sequence[str],
    types: Mapping[str, Any],
    modalities: Mapping[str, Sequence[str]] | None,
    ignore: Collection[str],
) -> None:
    known = list(table.frame.columns)
    for target in targets:
        if target not in known:
            raise InputError(f"{table.name} has no column {target!r}, the target; {nearest(target, known)}")
        if targets.count(target) > 1:
            raise InputError(f"target: {target!r} is named twice; leave one of them out")
    if not targets:
        raise InputError("target: no column is named; name at least one")
    features = [name for name in known if name not in targets]
    feeding = [(f"modalities.{name}", column) for name, columns in (modalities or {}).items() for column in columns]
    places = [("columns", name) for name in types] + feeding + [("ignore", name) for name in ignore]
    for place, name in places:
        if name in targets:
            what = "the target" if len(targets) == 1 else "a target"
            raise InputError(f"{place}: {name!r} is {what}, and cannot be a column of the input too")
        if name not in features:
            raise InputError(f"{place}: {table.name} has no column {name!r}; {nearest(name, features)}")
    for name, columns in (modalities or {}).items():
        if not columns:
            raise InputError(f"modalities.{name}: name at least one column")
    ignored = {*ignore, *(name for name, choice in types.items() if choice == "ignore")}
    for place, name in feeding:
        if name in ignored:
            raise InputError(f"{place}: the column {name!r} is ignored; take it out of one of the two")


def _default_modalities(columns: Sequence[Column]) -> dict[str, list[str]]:
    texts = [column.name for column in columns if column.type == "text"]
    cells = [column.name for column in columns if column.type in _TABLE]
    taken = {"text"} if texts else set()
    taken |= {"table"} if cells else set()
    found: dict[str, list[str]] = {}

    def alone(type: ColumnType) -> None:
        names = [column.name for column in columns if column.type == type]
        for name in names:
            modality = type if len(names) == 1 else name
            while modality in taken:
                modality += f"_{type}"
            taken.add(modality)
            found[modality] = [name]

    alone("image")
    alone("audio")
    alone("points")
    if texts:
        found["text"] = texts
    if cells:
        found["table"] = cells
    alone("embedding")
    return found
