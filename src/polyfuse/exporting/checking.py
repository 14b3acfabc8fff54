"""Whether an exported folder answers as the model does: its runner, in a process of its own, beside torch."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from polyfuse.calibration import Calibration, places_of, side_by_side
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import PolyfuseError
from polyfuse.core.files import strict_json
from polyfuse.core.types import Sound
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Schema, Target
from polyfuse.ensemble import Ensemble
from polyfuse.inference import score
from polyfuse.learners.boosting import BoostingLearner
from polyfuse.learners.several import SeveralLearner
from polyfuse.model import FusionModel, Model

#: Rows that are compared, at most.
MOST = 1_000
#: Largest difference of a probability, or of a number in standard deviations of the target.
TOLERANCE = 1e-4
TOLERANCE_INT8 = 0.25
#: Share of rows that may differ by more where trees read Features: a step of theirs turns on the last digit.
STEPS = 0.05

_FILES = (".csv", ".tsv", ".jsonl")
_RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import polyfuse_runner
assert polyfuse_runner.__file__.startswith(sys.argv[1]), polyfuse_runner.__file__
scores = polyfuse_runner.Runner(sys.argv[1], threads=1).scores(sys.argv[2], media_root=sys.argv[3] or None)
json.dump({"scores": scores.tolist(), "modules": sorted({name.partition(".")[0] for name in sys.modules})}, sys.stdout)
"""
_FOREIGN = {"polyfuse", "torch", "pandas", "scipy", "sklearn", "lightgbm", "transformers"}


class NotTheSame(PolyfuseError):
    """What was exported does not answer as the model does."""


@dataclass(frozen=True)
class Difference:
    """How far the runner's answers are from the model's.

    Attributes:
        rows: that were compared.
        made: whether they were made from the schema, for want of real ones.
        largest: difference of a probability, or of a number in standard deviations of the target, to torch in float32.
        mean: of the same differences.
        tolerance: what the largest one may be.
        beyond: rows that differ by more.
        labels: rows whose label is another.
        own: the largest difference to the model as it runs by itself, e.g. in bf16.
    """

    rows: int
    made: bool
    largest: float
    mean: float
    tolerance: float
    beyond: int
    labels: int
    own: float

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        where = "rows made from the schema" if self.made else "rows"
        return (
            f"largest difference {self.largest:.2g} on {self.rows:,} {where} (mean {self.mean:.1g}, tolerance"
            f" {self.tolerance:g}, {self.beyond} beyond, {self.labels} with another label; {self.own:.2g} to the model"
            " as it runs by itself)"
        )


def measure(
    folder: Path,
    model: Model,
    rows: Rows,
    table: Table,
    schema: Schema,
    calibration: Calibration | None,
    *,
    tolerance: float,
    made: bool,
    device: torch.device,
) -> Difference:
    """Run an exported folder on rows, and compare with the model.

    Args:
        folder: whole, with its runner.
        model: that it was made of.
        rows: as polyfuse reads them.
        table: that they stand in; where it is a file that the runner reads too, it is given that very file.
        schema: of the training table.
        calibration: of the scores.
        tolerance: what the largest difference may be.
        made: whether the rows were made from the schema.
        device: where the model is.

    Raises:
        NotTheSame: the runner fails.
    """
    found = run_apart(folder, rows, table)
    own = _scores(model, rows, device, calibration)
    with in_float32(model) as changed:
        plain = _scores(model, rows, device, calibration) if changed else own
    apart = _apart(found, plain, schema.target)
    answers = [_labels(some, schema.target) for some in (found, plain)]
    return Difference(
        rows=len(rows),
        made=made,
        largest=float(apart.max(initial=0.0)),
        mean=float(apart.mean()) if apart.size else 0.0,
        tolerance=tolerance,
        beyond=int((apart.max(axis=1, initial=0.0) > tolerance).sum()),
        labels=int((answers[0] != answers[1]).any(axis=1).sum()),
        own=float(_apart(found, own, schema.target).max(initial=0.0)),
    )


def check_same(model: Model, difference: Difference) -> None:
    """Check that a difference is one of rounding.

    Raises:
        NotTheSame: it is more than that.
    """
    allowed = max(1, round(STEPS * difference.rows)) if _trees_read_features(model) else 0
    if difference.beyond > allowed:
        raise NotTheSame(
            f"the export does not answer as the model does: {difference}; nothing was written. Try other rows (check),"
            " another way (int8 off), or say that so much may differ (tolerance)"
        )


def run_apart(folder: Path, rows: Rows, table: Table) -> NDArray[np.float64]:
    """Return the scores (rows, columns) of the folder's own runner, in a process that has nothing of polyfuse."""
    with tempfile.TemporaryDirectory() as place:
        file, root = _file_of(rows, table, Path(place))
        command = [sys.executable, "-P", "-c", _RUN, str(folder.resolve()), str(file.resolve()), str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotTheSame(f"the runner failed on what was exported, and nothing was written: {told}")
    said = json.loads(done.stdout)
    foreign = _FOREIGN & set(said["modules"])
    if foreign - ({"torch"} if list(folder.glob("*.pt2")) else set()):
        raise NotTheSame(f"the runner used {', '.join(sorted(foreign))}, and nothing was written")
    return np.array(said["scores"], dtype=np.float64).reshape(len(rows), -1)


@contextmanager
def in_float32(model: Model) -> Iterator[bool]:
    """Let a model compute in float32 throughout, as a graph does; tell whether that is another way than its own."""
    models = [model, *(model.fusion_models if isinstance(model, Ensemble) else ())]
    encoders = [part for some in models for part in some.encoders if isinstance(part, Encoder)]
    ways, precisions = [part.way for part in encoders], [some.precision for some in models]
    try:
        for part in encoders:
            part.way = "float32" if part.way is not None else None
        for some in models:
            some.precision = "float32"
        yield "bf16" in precisions or any(way not in (None, "float32", "onnx") for way in ways)
    finally:
        for part, way in zip(encoders, ways, strict=True):
            part.way = way
        for some, precision in zip(models, precisions, strict=True):
            some.precision = precision


def _scores(model: Model, rows: Rows, device: torch.device, calibration: Calibration | None) -> NDArray[np.float64]:
    scores, present = score(model, rows, device)
    found = scores.numpy()
    if calibration is not None:
        found = calibration.apply(found, present.any(1).numpy())
    return side_by_side(found).astype(np.float64)


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Return how far scores are apart (rows, columns), numbers in standard deviations of their target."""
    apart = np.abs(one - other)
    for place, part in zip(places_of(target), target.each(), strict=True):
        if part.task == "regression":
            apart[:, place.score] /= part.std
    return np.where(np.isnan(apart), np.inf, apart)


def _labels(scores: NDArray[np.float64], target: Target) -> NDArray[np.int64]:
    """Return what is answered, as codes (rows, …), without numbers."""
    columns = [np.zeros((len(scores), 0), dtype=np.int64)]
    for place, part in zip(places_of(target), target.each(), strict=True):
        own = scores[:, place.score]
        if part.task == "classification":
            columns.append(own.argmax(axis=1)[:, None])
        elif part.task == "multilabel":
            columns.append((own >= 0.5).astype(np.int64))
    return np.hstack(columns)


def _trees_read_features(model: Model) -> bool:
    if isinstance(model, FusionModel):
        return False
    assert isinstance(model, Ensemble)
    learners = [
        learner
        for member in model.members
        if not isinstance(member.model, FusionModel)
        for learner in (member.model.learners if isinstance(member.model, SeveralLearner) else [member.model])
    ]
    return any(isinstance(learner, BoostingLearner) for learner in learners)


def _file_of(rows: Rows, table: Table, place: Path) -> tuple[Path, str]:
    """Return a file with the rows, and where its relative paths start from: the table's own where that will do."""
    own = Path(table.name)
    if own.suffix in _FILES and own.is_file() and len(rows) == len(table.frame):
        return own, str((table.folder or Path()).resolve())
    file = place / "rows.jsonl"
    write_lines(rows, file)
    return file, ""


def write_lines(rows: Rows, file: Path) -> None:
    """Write rows as JSON Lines, media inside: the runner reads from them what polyfuse has read."""
    names = [column.name for column in rows.schema.columns]
    with file.open("w", encoding="utf-8") as lines:
        for row in range(len(rows)):
            cells = {name: _as_json(rows.cell(name, row)) for name in names}
            lines.write(json.dumps(json.loads(strict_json(cells)), ensure_ascii=False) + "\n")


def _as_json(cell: Any) -> Any:
    """Return a decoded cell as JSON values that the runner decodes to the same."""
    if isinstance(cell, Sound):
        return {"bytes": _base64(_wav(cell))}
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    if isinstance(cell, list):
        return [{"bytes": _base64(_png(image))} for image in cell]
    return cell


def _wav(sound: Sound) -> bytes:
    """Return a recording as a WAV file of float32."""
    import soundfile

    data = io.BytesIO()
    soundfile.write(data, sound.samples, sound.rate, format="WAV", subtype="FLOAT")
    return data.getvalue()


def _png(image: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
