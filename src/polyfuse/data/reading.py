"""Tables in: files, saved datasets folders, DataFrames, datasets, rows as dicts."""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[import-not-found]

from polyfuse.core.errors import InputError, import_extra
from polyfuse.data.cells import clean
from polyfuse.data.media import MediaFolder

_LINES = (".jsonl", ".ndjson", ".json")
_READABLE = (".csv", ".tsv", *_LINES, ".parquet")
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")
_RULE = f"give a file ({', '.join(_READABLE)}), a folder saved by datasets, a DataFrame, a Dataset, or dicts"


@dataclass(frozen=True)
class Table:
    """Rows of data, and where relative paths in their cells start from.

    Attributes:
        frame: the data; column names are unique strings.
        folder: where relative paths start from, and what they may not leave; the current directory when None.
        name: for messages.
    """

    frame: pd.DataFrame
    folder: Path | None
    name: str

    @property
    def media(self) -> MediaFolder:
        """Where the files are that cells name."""
        return MediaFolder(self.folder if self.folder is not None else Path())


def read_table(source: Any, *, media_root: str | Path | None = None) -> Table:
    """Read a table.

    Args:
        source: a path (CSV, TSV, JSON Lines, Parquet, a folder saved by `save_to_disk`), a DataFrame, a
            datasets.Dataset, a dict (one row), a list of dicts, or a Table.
        media_root: where relative paths in cells start from; the folder of the table's file when left out.

    Raises:
        InputError: the source is missing, broken, or of an unknown kind; columns have no or equal names.
    """
    root = None
    if media_root is not None:
        root = Path(media_root)
        if not root.is_dir():
            raise InputError(
                f"media_root {str(media_root)!r} is no folder; give the one that relative paths start from"
            )
    if isinstance(source, Table):
        return source if root is None else replace(source, folder=root)
    if isinstance(source, str | Path):
        path = Path(source)
        frame, folder, name = _read_path(path), path if path.is_dir() else path.parent, str(path)
    else:
        frame, folder, name = _read_object(source), None, "the table"
    return Table(_named(frame, name), root if root is not None else folder, name)


def _read_object(source: Any) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, Mapping) and not _is_dataset(source, "DatasetDict"):
        return _from_records([source])
    if _is_dataset(source, "Dataset"):
        return _from_dataset(source)
    if _is_dataset(source, "DatasetDict"):
        raise InputError(f"a DatasetDict holds several tables; give one of its splits: {', '.join(source)}")
    if isinstance(source, Sequence) and not isinstance(source, bytes) and all(isinstance(r, Mapping) for r in source):
        return _from_records(source)
    raise InputError(f"a table cannot be read from {type(source).__name__}; {_RULE}")


def _is_dataset(source: Any, name: str) -> bool:
    module = sys.modules.get("datasets")
    return module is not None and isinstance(source, getattr(module, name))


def _read_path(path: Path) -> pd.DataFrame:
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)[:80]!r} is no path") from error
    if not exists:
        raise InputError(f"there is no file {str(path)!r}{_near_files(path)}")
    if is_folder:
        return _read_folder(path)
    ending = path.suffix.lower()
    if ending in _PICKLES:
        raise InputError(f"{path}: a pickle can run code and is never read; save the table as CSV or Parquet")
    if ending not in _READABLE:
        raise InputError(f"{path}: the ending {ending!r} is unknown; {_RULE}")
    try:
        if ending == ".parquet":
            return _read_parquet(path)
        return _read_lines(path) if ending in _LINES else _read_csv(path, "\t" if ending == ".tsv" else ",")
    except UnicodeDecodeError as error:
        place = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise InputError(f"{path} is not UTF-8 ({place}); convert it, e.g. with  iconv -t UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {str(path.parent)!r}"
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f" in {str(path.parent.absolute())!r}"


def _read_csv(path: Path, separator: str) -> pd.DataFrame:
    try:
        head = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, encoding="utf-8-sig")
        _check_unique([name for name in head.iloc[0] if isinstance(name, str)], str(path))
        frame = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            low_memory=False,
            float_precision="round_trip",
            on_bad_lines="error",
        )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; a table has a first line with the names of its columns") from None
    except pd.errors.ParserError as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise InputError(f"{path} is broken: {reason}; line 1 holds the names of the columns") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path} is broken: its rows have more fields than the first line has names")
    for name in frame.columns[[pd.api.types.is_string_dtype(type) for type in frame.dtypes]]:
        # Beside whole numbers of 2^63 and more pandas takes what is missing for text. Its list has no public name.
        if (missing := frame[name].isin(STR_NA_VALUES)).any():
            frame[name] = frame[name].mask(missing)
    return frame


def _read_lines(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8-sig")
    records: list[Any] = []
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        records = _parse(text, f"{path}")
        places = [f"{path}, entry {i}" for i in range(len(records))]
    else:
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        records = [_parse(line, f"{path}, line {i}") for i, line in lines]
        places = [f"{path}, line {i}" for i, _ in lines]
    for record, place in zip(records, places, strict=True):
        if not isinstance(record, dict):
            raise InputError(f'{place}: every row is an object, e.g. {{"age": 3}}, not {type(record).__name__}')
    if not records:
        raise InputError(f"{path} is empty; a row is one JSON object on one line")
    return _from_records(records)


def _parse(text: str, place: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_unique([name for name, _ in pairs], place)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: broken JSON: {error}") from error
    except RecursionError as error:
        raise InputError(f"{place}: JSON is nested too deeply") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: {error}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    try:
        _check_unique(parquet.read_schema(path).names, str(path))
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}") from error


def _read_folder(path: Path) -> pd.DataFrame:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(entry.name for entry in path.iterdir() if (entry / "dataset_info.json").is_file())
        named = " or ".join(str(path / split) for split in splits)
        raise InputError(f"{path} holds several tables; give one of them: {named}")
    if not (path / "dataset_info.json").is_file():
        tables = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in _READABLE)
        hint = f"; it holds {', '.join(tables[:5])}" if tables else ""
        raise InputError(f"{path} is a folder, and none saved by datasets; give a file{hint}")
    datasets = import_extra("datasets", "datasets", f"reading the saved dataset {path}")
    try:
        return _from_dataset(datasets.load_from_disk(str(path)))
    except InputError:
        raise
    except Exception as error:  # datasets raises whatever its readers of damaged files raise.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is no dataset that can be read: {reason}") from error


def _from_dataset(dataset: Any) -> pd.DataFrame:
    # As Arrow, so that images and recordings stay bytes or paths, and no decoder of datasets is needed.
    frame: pd.DataFrame = dataset.with_format("arrow")[:].to_pandas()
    return frame


def _from_records(records: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    names = dict.fromkeys(name for record in records for name in record)
    if len(records) == 1:  # one block: a column each would cost more than all else that is done with a row
        row = np.empty((1, len(names)), dtype=object)
        for i, cell in enumerate(records[0].values()):
            row[0, i] = cell
        return pd.DataFrame(row, columns=pd.Index([clean(str(name)) for name in names]), dtype=object)
    cells = {i: _column([record.get(name) for record in records]) for i, name in enumerate(names)}
    frame = pd.DataFrame(cells, index=pd.RangeIndex(len(records)))
    frame.columns = pd.Index([clean(str(name)) for name in names])
    return frame


def _column(cells: list[Any]) -> pd.Series:
    simple = all(cell is None or isinstance(cell, bool | int | float | str) for cell in cells)
    if simple:
        try:
            return pd.Series(cells)
        except (UnicodeEncodeError, OverflowError):
            pass
    column = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        column[i] = cell
    return pd.Series(column, dtype=object)


def _named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the frame with names that are unique strings."""
    names = [clean(str(column)) for column in frame.columns]
    if not names:
        raise InputError(f"{name} has no columns")
    _check_unique(names, name)
    named = frame.copy(deep=False)
    named.columns = pd.Index(names)
    return named


def _check_unique(names: Iterable[str], place: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{place}: the column names {', '.join(map(repr, twice[:5]))} occur more than once; rename them"
        )
