"""A calibration in a folder: tensors in safetensors, all else in JSON, every size checked before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from safetensors import safe_open
from safetensors.numpy import save_file

from polyfuse.calibration.calibration import MOST, MOST_NUMBERS, Calibration, places_of
from polyfuse.calibration.scaling import MOST_BIAS, MOST_WEIGHT, Method, Scaling
from polyfuse.core.files import read_about, undamaged
from polyfuse.data.schema import Strict, Target
from polyfuse.metrics.metric import Array
from polyfuse.metrics.several import Part

FORMAT = 1
_ABOUT, _TENSORS = "calibration.json", "calibration.safetensors"
_KINDS = ("F32", "F64")


class _Scaling(Strict):
    """What `calibration.json` says of a target's scaling."""

    method: Method
    rows: int = Field(ge=0)
    why: str


class _About(Strict):
    """What `calibration.json` holds.

    Attributes:
        format: of the files.
        scalings: of each target, in order.
    """

    format: int
    scalings: list[_Scaling]


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write a calibration to a folder, which is made."""
    folder.mkdir(parents=True)
    each = [calibration.scalings[part.name] for part in calibration.parts]
    about = _About(
        format=FORMAT,
        scalings=[_Scaling(method=scaling.method, rows=scaling.rows, why=scaling.why) for scaling in each],
    )
    (folder / _ABOUT).write_text(about.model_dump_json(indent=1), encoding="utf-8")
    tensors = {"truth": calibration.truth, "scores": calibration.scores}
    for i, scaling in enumerate(each):
        tensors |= {f"{i}.weights": scaling.weights, f"{i}.biases": scaling.biases}
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / _TENSORS)


def load_calibration(folder: Path, target: Target) -> Calibration | None:
    """Read the calibration of a model of a target; None where there is none, as in older artifacts.

    Raises:
        ArtifactError: it is damaged, or another model's.
    """
    if not (folder / _ABOUT).is_file():
        return None
    with undamaged(folder, ", or fit another with  fit_calibration"):
        about = read_about(folder / _ABOUT, _About, format=FORMAT)
        parts = places_of(target)
        if len(about.scalings) != len(parts):
            raise ValueError(f"{_ABOUT} is of {len(about.scalings)} targets, and the model has {len(parts)}")
        with safe_open(folder / _TENSORS, "np") as file:
            return _read(file, about, parts)


def _read(file: Any, about: _About, parts: list[Part]) -> Calibration:
    """Read tensors of the names, types and shapes that a calibration of these targets has."""
    names = {"truth", "scores", *(f"{i}.{what}" for i in range(len(parts)) for what in ("weights", "biases"))}
    if set(file.keys()) != names:
        raise ValueError(f"{_TENSORS} has other tensors than {', '.join(sorted(names)[:4])}, …")
    columns = parts[-1].score.stop
    rows = file.get_slice("scores").get_shape()[0]
    if not 0 <= rows <= min(MOST, MOST_NUMBERS // columns):
        raise ValueError(f"{_TENSORS} has {rows:,} rows, more than are kept")
    truth = _tensor(file, "truth", (rows, parts[-1].true.stop))
    scores = _tensor(file, "scores", (rows, columns))
    for part in parts:
        _check_rows(part, truth[:, part.true], scores[:, part.score])
    scalings = {}
    for i, (part, said) in enumerate(zip(parts, about.scalings, strict=True)):
        labels = (part.score.stop - part.score.start,)
        weights, biases = (_tensor(file, f"{i}.{what}", labels) for what in ("weights", "biases"))
        inside = (weights >= 0.999 / MOST_WEIGHT) & (weights <= 1.001 * MOST_WEIGHT) & (abs(biases) <= MOST_BIAS)
        if not inside.all() or (part.task == "regression" and said.method != "none"):
            raise ValueError(f"the scaling of {part.name!r} is none that a fit makes")
        scalings[part.name] = Scaling(part.task, said.method, weights, biases, said.rows, said.why)
    return Calibration(parts, scalings, truth, scores)


def _tensor(file: Any, name: str, shape: tuple[int, ...]) -> Array:
    given = file.get_slice(name)
    if given.get_dtype() not in _KINDS or tuple(given.get_shape()) != shape:
        raise ValueError(f"{name} in {_TENSORS} has another type or shape than {shape}")
    tensor: Array = file.get_tensor(name)
    return tensor


def _check_rows(part: Part, truth: Array, scores: Array) -> None:
    """Check that truth and scores are such as a target has."""
    known = truth[~np.isnan(truth).any(axis=1)]
    if not np.isfinite(scores).all() or not np.isfinite(known).all():
        raise ValueError(f"{part.name!r} has a row that no model makes")
    if part.task == "regression":
        return
    labels = part.score.stop - part.score.start
    most = labels - 1 if part.task == "classification" else 1
    outside = abs(scores - 0.5) > 0.5 + 1e-5  # a mean of probabilities may round to a little more than 1
    if (known % 1).any() or (known < 0).any() or (known > most).any() or outside.any():
        raise ValueError(f"{part.name!r} has a row that no model makes")
