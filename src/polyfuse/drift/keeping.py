"""A reference in a folder: tensors in safetensors, all else in JSON, every size checked before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from safetensors import safe_open
from safetensors.numpy import save_file

from polyfuse.calibration import places_of
from polyfuse.core.files import read_about, undamaged
from polyfuse.data.schema import Schema, Strict
from polyfuse.drift.measures import MEASURES
from polyfuse.drift.sample import LEAST, MOST, Sample, encoded
from polyfuse.metrics.metric import Array
from polyfuse.model import Model

FORMAT = 1
_ABOUT, _TENSORS = "reference.json", "reference.safetensors"


class _About(Strict):
    """What `reference.json` holds.

    Attributes:
        format: of the files.
        rows: that are kept.
        by_folds: as of a Sample.
        columns: of the schema, in order.
    """

    format: int
    rows: int = Field(ge=LEAST, le=MOST)
    by_folds: bool
    columns: list[str]


def save_reference(reference: Sample, schema: Schema, folder: Path) -> None:
    """Write a reference to a folder, which is made."""
    folder.mkdir(parents=True)
    names = [column.name for column in schema.columns]
    about = _About(format=FORMAT, rows=len(reference), by_folds=reference.by_folds, columns=names)
    (folder / _ABOUT).write_text(about.model_dump_json(indent=1), encoding="utf-8")
    tensors: dict[str, Array] = {"scores": reference.scores, "truth": reference.truth}
    for i, column in enumerate(schema.columns):
        tensors[f"columns.{i}.missing"] = reference.missing[column.name].astype(np.uint8)
        for j, what in enumerate(MEASURES[column.type]):
            tensors[f"columns.{i}.{j}"] = reference.numbers[column.name, what]
        if column.type == "category":
            tensors[f"columns.{i}.codes"] = reference.codes[column.name]
    for i, name in enumerate(schema.modalities):
        tensors[f"modalities.{i}.present"] = reference.present[name].astype(np.uint8)
        if name in reference.vectors:
            tensors[f"modalities.{i}.features"] = reference.vectors[name]
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / _TENSORS)


def load_reference(folder: Path, schema: Schema, model: Model) -> Sample | None:
    """Read the reference of a model; None where there is none, as in older artifacts.

    Raises:
        ArtifactError: it is damaged, or another model's.
    """
    if not (folder / _ABOUT).is_file():
        return None
    with undamaged(folder, ", or keep another with  fit_reference"):
        about = read_about(folder / _ABOUT, _About, format=FORMAT)
        if about.columns != [column.name for column in schema.columns]:
            raise ValueError(f"{_ABOUT} is of other columns than the model reads")
        with safe_open(folder / _TENSORS, "np") as file:
            return _read(file, about, schema, model)


def _read(file: Any, about: _About, schema: Schema, model: Model) -> Sample:
    """Read tensors of the names, types and shapes that a reference of this model has."""
    parts, rows = places_of(schema.target), about.rows
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "scores": ("F64", (rows, parts[-1].score.stop)),
        "truth": ("F64", (rows, parts[-1].true.stop)),
    }
    for i, column in enumerate(schema.columns):
        wanted[f"columns.{i}.missing"] = "U8", (rows,)
        wanted |= {f"columns.{i}.{j}": ("F64", (rows,)) for j in range(len(MEASURES[column.type]))}
        if column.type == "category":
            wanted[f"columns.{i}.codes"] = "I64", (rows,)
    encoders = encoded(model)
    for i, name in enumerate(schema.modalities):
        wanted[f"modalities.{i}.present"] = "U8", (rows,)
        if name in encoders:
            wanted[f"modalities.{i}.features"] = "F16", (rows, model.encoder(name).dim)
    if set(file.keys()) != set(wanted):
        raise ValueError(f"{_TENSORS} has other tensors than {', '.join(sorted(wanted)[:3])}, …")
    found: dict[str, Array] = {}
    for name, (kind, shape) in wanted.items():
        given = file.get_slice(name)
        if given.get_dtype() != kind or tuple(given.get_shape()) != shape:
            raise ValueError(f"{name} in {_TENSORS} has another type or shape than {shape}")
        found[name] = file.get_tensor(name)
    _check(found)
    columns = list(enumerate(schema.columns))
    return Sample(
        missing={column.name: found[f"columns.{i}.missing"] == 1 for i, column in columns},
        numbers={
            (column.name, what): found[f"columns.{i}.{j}"]
            for i, column in columns
            for j, what in enumerate(MEASURES[column.type])
        },
        codes={column.name: found[f"columns.{i}.codes"] for i, column in columns if column.type == "category"},
        present={name: found[f"modalities.{i}.present"] == 1 for i, name in enumerate(schema.modalities)},
        vectors={
            name: found[f"modalities.{i}.features"] for i, name in enumerate(schema.modalities) if name in encoders
        },
        scores=found["scores"],
        truth=found["truth"],
        by_folds=about.by_folds,
    )


def _check(tensors: dict[str, Array]) -> None:
    """Check that numbers are such as rows have."""
    for name, tensor in tensors.items():
        if tensor.dtype == np.uint8:
            good = bool((tensor <= 1).all())
        elif name == "scores" or tensor.dtype == np.float16:
            good = bool(np.isfinite(tensor).all())
        elif tensor.dtype == np.int64:
            good = bool((tensor >= -1).all())
        else:
            good = not bool(np.isinf(tensor).any())
        if not good:
            raise ValueError(f"{name} in {_TENSORS} has a number that no row has")
