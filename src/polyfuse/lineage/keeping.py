"""Kept rows in a folder: Parquet, safetensors and JSON, every size checked before it is believed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from safetensors import safe_open
from safetensors.numpy import save_file

from polyfuse.core.files import read_about, undamaged
from polyfuse.data.reading import read_table
from polyfuse.data.schema import Schema, Strict
from polyfuse.lineage.ancestry import Reference
from polyfuse.lineage.kept import Kept, Part

FORMAT = 1
#: Rows of a part, and bytes of its file, at most.
MOST, MOST_BYTES = 1_000_000, 4 << 30
_ABOUT, _TENSORS = "kept.json", "kept.safetensors"


class _About(Strict):
    """What `kept.json` holds.

    Attributes:
        format: of the files.
        references: the tables that the rows come from.
        apart: see `Kept`.
        scored: whether the rows to measure on have scores.
        tables: whether what the rows hold is kept too, not their positions alone.
    """

    format: int
    references: list[Reference] = Field(max_length=1000)
    apart: bool
    scored: bool
    tables: bool


def save_kept(kept: Kept, folder: Path) -> None:
    """Write kept rows to a folder, which is made."""
    folder.mkdir(parents=True)
    tables = {"learned": kept.learned.table, "held": kept.held.table}
    about = _About(
        format=FORMAT,
        references=list(kept.references),
        apart=kept.apart,
        scored=kept.scores is not None,
        tables=tables["held"] is not None,
    )
    (folder / _ABOUT).write_text(about.model_dump_json(indent=1), encoding="utf-8")
    for name, table in tables.items():
        if isinstance(table, Path):
            shutil.copyfile(table, folder / f"{name}.parquet")
        elif table is not None:
            table.to_parquet(folder / f"{name}.parquet", index=False)
    tensors = {"learned": kept.learned.positions, "held": kept.held.positions}
    if kept.scores is not None:
        tensors["scores"] = kept.scores
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / _TENSORS)


def load_kept(folder: Path) -> Kept | None:
    """Read what is said of the kept rows of a model; None where there are none, as in older artifacts.

    The rows themselves are read by `kept_table`, when they are asked for.

    Raises:
        ArtifactError: they are damaged, or another model's.
    """
    if not (folder / _ABOUT).is_file():
        return None
    with undamaged(folder):
        about = read_about(folder / _ABOUT, _About, format=FORMAT)
        with safe_open(folder / _TENSORS, "np") as file:
            names = {"learned", "held", *(["scores"] if about.scored else [])}
            if set(file.keys()) != names:
                raise ValueError(f"{_TENSORS} has other tensors than {', '.join(sorted(names))}")
            positions = {name: _positions(file, name) for name in ("learned", "held")}
            scores = _scores(file, len(positions["held"])) if about.scored else None
    files = {name: folder / f"{name}.parquet" if about.tables else None for name in positions}
    learned, held = (Part(positions[name], files[name]) for name in ("learned", "held"))
    return Kept(tuple(about.references), learned, held, about.apart, scores)


def kept_table(part: Part, schema: Schema) -> pd.DataFrame:
    """Return what some kept rows hold.

    Raises:
        ArtifactError: their file is missing, damaged, or another model's.
    """
    if not isinstance(part.table, Path):
        assert part.table is not None
        return part.table
    with undamaged(part.table):
        return _read(part.table, len(part.positions), schema)


def _read(path: Path, rows: int, schema: Schema) -> pd.DataFrame:
    """Read one of the tables: so many rows, with what the schema reads."""
    from pyarrow import ArrowException, parquet

    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        given = parquet.read_metadata(path).num_rows
    except ArrowException as error:
        raise ValueError(str(error)) from error
    if given != rows:
        raise ValueError(f"it has {given:,} rows instead of {rows:,}")
    table = read_table(path).frame
    wanted = {column.name for column in schema.columns} | set(schema.target.names)
    if rows and (lacking := sorted(wanted - set(table.columns))):
        raise ValueError(f"it lacks the column {lacking[0]!r}")
    return table


def _positions(file: Any, name: str) -> NDArray[np.int64]:
    given = file.get_slice(name)
    shape = given.get_shape()
    if given.get_dtype() != "I64" or len(shape) != 1 or shape[0] > MOST:
        raise ValueError(f"{name} in {_TENSORS} has another type or shape than positions have")
    positions: NDArray[np.int64] = file.get_tensor(name)
    if (positions < 0).any():
        raise ValueError(f"{name} in {_TENSORS} has a position below 0")
    return positions


def _scores(file: Any, rows: int) -> NDArray[Any]:
    given = file.get_slice("scores")
    shape = given.get_shape()
    if given.get_dtype() not in ("F32", "F64") or not shape or shape[0] != rows:
        raise ValueError(f"scores in {_TENSORS} are not of the rows to measure on")
    scores: NDArray[Any] = file.get_tensor("scores")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores in {_TENSORS} are not finite")
    return scores
