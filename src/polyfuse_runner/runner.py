"""Reads what `polyfuse export` wrote, and answers rows."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse_runner import media
from polyfuse_runner.cells import SCALARS, CellError, embedding, is_missing
from polyfuse_runner.clouds import points
from polyfuse_runner.learners import LEARNERS, Read, Words
from polyfuse_runner.preparing import KINDS, Array, Preparation, Table, Value, Waves
from polyfuse_runner.scoring import Floats, Part, parts_of
from polyfuse_runner.tables import read_rows

Rows: TypeAlias = "str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]"

FORMAT = 1
_ABOUT = "preparation.json"
_MOST_ABOUT = 64 << 20  # bytes
_BATCH = 64
_WINDOW = 4096  # rows that are read before they are answered
_SHOWN = 20  # problems that an error names


class ExportError(ValueError):
    """The folder is none that `polyfuse export` wrote, or is damaged."""


class RowError(ValueError):
    """Rows hold what the model cannot read."""


class Runner:
    """An exported model.

    >>> runner = Runner("exported")                               # doctest: +SKIP
    >>> runner.predict({"title": "Lovely", "age": 34})            # doctest: +SKIP
    [1]

    Args:
        folder: that `polyfuse export` wrote.
        threads: that the graph is computed with; what onnxruntime chooses when left out.
        verify: read every file once more, and compare its hash.

    Attributes:
        about: what `preparation.json` holds.
        modalities: names, in the order of `present`.
        parts: the targets; of each its name, task and levels.

    Raises:
        ExportError: the folder is damaged, or of a newer format.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, verify: bool = False) -> None:
        self.folder = Path(folder)
        self.about = about = _read_about(self.folder, verify=verify)
        self.modalities: list[str] = [one["name"] for one in about["modalities"]]
        self.parts: list[Part] = parts_of(about["targets"])
        self._columns = {column["name"]: column for column in about["columns"]}
        self._fed = {one["name"]: one["columns"] for one in about["modalities"]}
        try:
            self._prepare: dict[str, Preparation] = {
                one["name"]: KINDS[one["prepare"]["kind"]](one["prepare"], self.folder)
                for one in about["modalities"]
                if one["prepare"] is not None
            }
            named = {one["name"]: one["words"] for one in about["modalities"] if one["words"] is not None}
            self._words = {name: Words(self.folder / file) for name, file in named.items()}
            self._members = [(one["weight"], _say(one, self.folder, self.parts)) for one in about["members"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ExportError(f"{folder} is damaged: {type(error).__name__} {error}") from error
        self._graph = _graph(about["graph"], self.folder, threads)

    def predict(self, rows: Rows, *, media_root: str | Path | None = None) -> list[Any]:
        """Return the answer of each row: a label, a list of labels or a number; of several targets a dict of them.

        Args:
            rows: a dict for one row, several, or the path of a CSV, TSV or JSON Lines file. Columns that the model does
                not know are ignored; missing ones are taken as absent, with a warning.
            media_root: where relative paths of media start from, and what they may not leave; the
                folder of the file, or the current one.

        Raises:
            RowError: with everything in the rows that cannot be read.
        """
        return self.decode(self.scores(rows, media_root=media_root))

    def predict_proba(self, rows: Rows, *, media_root: str | Path | None = None) -> list[Any]:
        """Return the probability of each label in each row, a dict; of several targets a dict of these.

        Raises:
            RowError: with everything in the rows that cannot be read.
            ValueError: the model has no probabilities.
        """
        if not any(part.levels for part in self.parts):
            raise ValueError("a regression has no probabilities; use  predict")
        scores = self.scores(rows, media_root=media_root)
        each = {
            part.name: [dict(zip(part.levels, row, strict=True)) for row in scores[:, part.columns].tolist()]
            for part in self.parts
            if part.levels
        }
        return self._joined(each)

    def decode(self, scores: Floats) -> list[Any]:
        """Return the answers that scores (rows, columns) stand for; see `predict`."""
        return self._joined({part.name: part.answers(scores[:, part.columns]) for part in self.parts})

    def scores(self, rows: Rows, *, media_root: str | Path | None = None) -> Floats:
        """Return calibrated scores (rows, columns), targets side by side: see `parts`.

        Of a row in which nothing is present they are the training prior.
        """
        if isinstance(rows, str | Path):
            media_root = Path(rows).parent if media_root is None else media_root
            rows = read_rows(Path(rows))
        rows = [rows] if isinstance(rows, Mapping) else rows
        lacking = [name for name in self._columns if rows and not any(name in row for row in rows)]
        if lacking:
            warnings.warn(f"the rows lack the columns {', '.join(lacking)}: they are taken as absent", stacklevel=3)
        # Of media only those of one batch are in memory.
        heavy = any(column["type"] in ("image", "audio", "points") for column in self._columns.values())
        window, folder = _BATCH if heavy else _WINDOW, Path(media_root or ".")
        found = [self._of_window(rows[at : at + window], at, folder) for at in range(0, len(rows), window)]
        return np.concatenate(found) if found else np.zeros((0, self.parts[-1].columns.stop))

    def _of_window(self, rows: Sequence[Mapping[str, Any]], first: int, folder: Path) -> Floats:
        """Return calibrated scores of some rows. first: the position of the first one."""
        cells = self._read(rows, first, folder)
        values = {name: list(zip(*(cells[column] for column in fed), strict=True)) for name, fed in self._fed.items()}
        present = np.array([[any(c is not None for c in row) for row in of] for of in values.values()], dtype=bool).T
        found = np.tile(np.concatenate([part.prior for part in self.parts]), (len(rows), 1))
        answered = present.any(axis=1)
        for batch in self._batches(values, np.flatnonzero(answered)):
            some = {
                name: [of[row] if here else None for row, here in zip(batch, present[batch, i], strict=True)]
                for i, (name, of) in enumerate(values.items())
            }
            found[batch] = self._score(some, present[batch])
        for part in self.parts:
            found[answered, part.columns] = part.calibrated(found[answered, part.columns])
        return found

    def _read(self, rows: Sequence[Mapping[str, Any]], first: int, folder: Path) -> dict[str, list[Any]]:
        """Return the decoded cells of each column, None where missing."""
        problems: list[str] = []
        cells: dict[str, list[Any]] = {}
        for name, column in self._columns.items():
            read = _reader(column, folder)
            cells[name] = [None] * len(rows)
            for i, row in enumerate(rows):
                cell = row.get(name)
                try:
                    cells[name][i] = None if is_missing(cell) else read(cell)
                except CellError as error:
                    problems.append(f"row {first + i}, column {name!r}: {error}")
        if problems and self.about["strict"]:
            more = f"\n… and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
            raise RowError("\n".join(problems[:_SHOWN]) + more)
        return cells

    def _batches(self, values: Mapping[str, Sequence[Value]], rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield rows that go together: of a length that is alike, and the same where the graph knows no padding."""
        even = [name for name, some in self._prepare.items() if isinstance(some, Waves) and some.even]
        keys: dict[int, tuple[int, ...]] = {}
        for row in rows.tolist():
            fixed = [self._prepare[name].length(values[name][row]) for name in even]
            rest = sum(some.length(values[name][row]) for name, some in self._prepare.items() if name not in even)
            keys[row] = (*fixed, rest)
        batch: list[int] = []
        for row in sorted(keys, key=lambda row: keys[row]):
            if batch and (len(batch) == _BATCH or keys[row][: len(even)] != keys[batch[0]][: len(even)]):
                yield np.array(batch)
                batch = []
            batch.append(row)
        if batch:
            yield np.array(batch)

    def _score(self, values: Mapping[str, Sequence[Value]], present: NDArray[np.bool_]) -> Floats:
        """Return the mean of what the members say of some rows (rows, columns). present: (rows, modalities)."""
        prepared = {name: some.prepare(values[name]) for name, some in self._prepare.items()}
        given = [
            present if one["tensor"] == "present" else prepared[one["modality"]][one["tensor"]]
            for one in (self.about["graph"] or {"inputs": []})["inputs"]
        ]
        outputs = self._graph(given)
        read = self._to_read(values, prepared, outputs, present)
        total = np.zeros((len(present), self.parts[-1].columns.stop))
        for weight, say in self._members:
            total += weight * say(outputs, read)
        return total

    def _to_read(
        self,
        values: Mapping[str, Sequence[Value]],
        prepared: Mapping[str, Mapping[str, Array]],
        outputs: Mapping[str, Array],
        present: NDArray[np.bool_],
    ) -> Read:
        """Return the rows as learners read them."""
        read = Read(len(present))
        for i, name in enumerate(self.modalities):
            here = present[:, i, None]
            some = self._prepare.get(name)
            if isinstance(some, Table):
                numbers, codes = prepared[name]["numbers"], prepared[name]["codes"]
                missing = prepared[name]["missing"] | ~here
                read.cells[name] = np.where(missing, np.nan, numbers), np.where(here, codes, 0), some.levels
            if f"pooled_{i}" in outputs:
                read.vectors[name] = np.where(here, outputs[f"pooled_{i}"], np.nan)
            if name in self._words:
                text = [column for column in self._fed[name] if self._columns[column]["type"] == "text"]
                places = [self._fed[name].index(column) for column in text]
                texts = [[row[at] for at in places if row[at] is not None] if row else [] for row in values[name]]
                read.words[name] = [self._words[name].read("\n".join(some)) for some in texts]
        return read

    def _joined(self, each: Mapping[str, list[Any]]) -> list[Any]:
        """Return what stands by target as a list of rows."""
        if len(self.parts) == 1:
            return next(iter(each.values()))
        return [dict(zip(each, row, strict=True)) for row in zip(*each.values(), strict=True)]


def _read_about(folder: Path, *, verify: bool) -> dict[str, Any]:
    try:
        if (folder / _ABOUT).stat().st_size > _MOST_ABOUT:
            raise ExportError(f"{folder / _ABOUT} has more than {_MOST_ABOUT:,} bytes")
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if about["format"] > FORMAT:
            raise ExportError(f"{folder} has format {about['format']}, and this runner reads up to {FORMAT}")
        for name in _named(about):
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ExportError(f"{folder} is damaged: {name!r} leads out of it")
        for name, known in about["files"].items():
            path = folder / name
            same = path.stat().st_size == known["bytes"]
            if verify and same:
                with path.open("rb") as file:
                    same = hashlib.file_digest(file, "sha256").hexdigest() == known["sha256"]
            if not same:
                raise ExportError(f"{folder} is damaged: {name} is not the file that was written")
    except ExportError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(f"{folder} is no exported model: {type(error).__name__} {error}") from error
    return about


def _named(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield the name of every file and folder that is read."""
    yield from about["files"]
    if about["graph"] is not None:
        yield about["graph"]["file"]
    for one in about["modalities"]:
        yield from filter(None, (one["words"], (one["prepare"] or {}).get("file")))
    for one in about["members"]:
        yield from filter(None, one.get("folders", ()))


def _reader(column: Mapping[str, Any], folder: Path) -> Any:
    """Return how a cell of a column is read."""
    kind = column["type"]
    if kind == "image":
        return partial(media.images, folder=folder)
    if kind == "audio":
        return partial(media.recording, folder=folder)
    if kind == "points":
        return partial(points, size=column["size"], folder=folder)
    if kind == "embedding":
        return partial(embedding, size=column["size"])
    if kind in ("text", "category"):
        return SCALARS[kind]

    def finite(cell: Any) -> float | None:
        value: float = SCALARS[kind](cell)
        if value != value:  # a word that holds no number
            return None
        if not np.isfinite(value):
            raise CellError("a number must be finite; leave the cell empty where there is none")
        return value

    return finite


def _say(about: Mapping[str, Any], folder: Path, parts: Sequence[Part]) -> Any:
    """Return how a member scores rows, from the graph's outputs and from what learners read."""
    if about["output"] is not None:

        def of_graph(outputs: Mapping[str, Array], read: Read) -> Floats:
            raw = outputs[about["output"]].astype(np.float64).reshape(-1, parts[-1].columns.stop)
            return np.hstack([part.scores(raw[:, part.columns]) for part in parts])

        return of_graph
    made = [
        None if place is None else LEARNERS[about["learner"]](folder / place, part.about)
        for place, part in zip(about["folders"], parts, strict=True)
    ]

    def of_learner(outputs: Mapping[str, Array], read: Read) -> Floats:
        some = read.only(about["modalities"], about["parts"])
        each = zip(parts, made, strict=True)
        return np.hstack([np.tile(p.prior, (read.rows, 1)) if one is None else one.scores(some) for p, one in each])

    return of_learner


def _graph(about: Mapping[str, Any] | None, folder: Path, threads: int | None) -> Any:
    """Return what computes the outputs, by name, from the inputs in their order."""
    if about is None:
        return lambda given: {}
    if about["file"].endswith(".pt2"):
        return _torch_graph(about, folder)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else its import writes into the user's cache folder
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / about["file"], options, providers=["CPUExecutionProvider"])
    names = [one["name"] for one in about["inputs"]]
    return lambda given: dict(
        zip(about["outputs"], session.run(about["outputs"], dict(zip(names, given, strict=True))), strict=True)
    )


def _torch_graph(about: Mapping[str, Any], folder: Path) -> Any:
    import torch

    module = torch.export.load(folder / about["file"]).module()

    def run(given: Sequence[Array]) -> dict[str, Array]:
        with torch.inference_mode():
            found = module(*map(torch.from_numpy, given))
        return {name: tensor.numpy() for name, tensor in zip(about["outputs"], found, strict=True)}

    return run
