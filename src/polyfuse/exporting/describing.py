"""What an export says of a model beside its graph: how values are prepared, what learners read, how scores are made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polyfuse.calibration import Calibration
from polyfuse.core.contract import Encoder, Head
from polyfuse.core.errors import InputError
from polyfuse.data.schema import Column, Schema, Target
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.audio_transformer import AudioTransformerEncoder
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.encoders.embedding import EmbeddingEncoder
from polyfuse.encoders.image_transformer import ImageTransformerEncoder
from polyfuse.encoders.mel_convnet import MelConvnetEncoder
from polyfuse.encoders.pointnet import PointNetEncoder
from polyfuse.encoders.table import TableEncoder
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.ensemble import Ensemble, Member
from polyfuse.heads.classification import ClassificationHead
from polyfuse.heads.multilabel import MultilabelHead
from polyfuse.heads.regression import RegressionHead
from polyfuse.heads.several import SeveralHead
from polyfuse.learners import LEARNERS
from polyfuse.learners.learner import Learner
from polyfuse.learners.several import SeveralLearner
from polyfuse.model import FusionModel, Model

_BICUBIC = 3  # Pillow's number of it
_HEADS: tuple[type[Head], ...] = (ClassificationHead, MultilabelHead, RegressionHead, SeveralHead)
_PORTABLE_LEARNERS = ("linear", "boosting")


class NotExportable(InputError):
    """A component cannot be exported."""


def check_portable(model: Model) -> None:
    """Check that all parts of a model can be described to the runner; its graph is tried later.

    Raises:
        NotExportable: it names those that cannot, and says what to do.
    """
    wrong = []
    for name in model.modalities:
        encoder = model.encoder(name)
        if name not in model.reads:
            continue
        if _described(encoder) is None:
            wrong.append(
                f"the encoder {type(encoder).__name__} of {name!r} prepares values in a way that the runner does not"
                f" know; choose one of {', '.join(sorted(ENCODERS))}, or keep the prepare of one"
            )
        elif isinstance(encoder, TransformerEncoder) and encoder.companion.backend_tokenizer is None:
            wrong.append(
                f"the tokenizer {type(encoder.companion).__name__} of {name!r} is not a fast one; choose a checkpoint"
                " that has a tokenizer.json"
            )
    members = model.members if isinstance(model, Ensemble) else []
    heads = [model.head, *(member.model.head for member in members if isinstance(member.model, FusionModel))]
    for head in dict.fromkeys(inner for outer in heads for inner in _each_head(outer)):
        if type(head) not in _HEADS:
            wrong.append(f"the head {type(head).__name__} is none that the runner knows; fit with one of its own")
    for member in members:
        for learner in _each_learner(member):
            if _learner_name(learner) is None:
                wrong.append(f"the learner {type(learner).__name__} is none that the runner knows; fit without it")
    if wrong:
        raise NotExportable("; ".join(dict.fromkeys(wrong)))


def describe(model: Model, schema: Schema, calibration: Calibration | None, folder: Path) -> dict[str, Any]:
    """Return what `preparation.json` says of a model, all but its graph, and write the files that it names.

    Args:
        model: that `check_portable` has passed.
        schema: of the training table.
        calibration: of its scores.
        folder: where tokenizers, learners and words are written to.
    """
    return {
        "columns": [_column(column) for column in schema.columns],
        "modalities": [_modality(model, schema, i, name, folder) for i, name in enumerate(model.modalities)],
        "targets": [_target(part, calibration) for part in schema.target.each()],
        "members": _members(model, schema.target, folder),
    }


def _column(column: Column) -> dict[str, Any]:
    return {"name": column.name, "type": column.type, "size": column.size}


def _modality(model: Model, schema: Schema, i: int, name: str, folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"name": name, "columns": schema.modalities[name], "prepare": None, "words": None}
    encoder = model.encoder(name)
    if name in model.reads:
        described = _described(encoder)
        assert described is not None
        about["prepare"] = described(encoder, schema.of(name))
        if isinstance(encoder, TransformerEncoder):
            about["prepare"]["file"] = file = f"tokenizer-{i}.json"
            # Truncation and padding are set by the runner.
            tokenizer = {
                **json.loads(encoder.companion.backend_tokenizer.to_str()),
                "truncation": None,
                "padding": None,
            }
            (folder / file).write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    if isinstance(model, Ensemble) and name in model.reads_text and len(model.words[name]):
        about["words"] = f"words-{i}.json"
        model.words[name].save(folder / about["words"])
    return about


def _target(target: Target, calibration: Calibration | None) -> dict[str, Any]:
    scaling = None if calibration is None else calibration.scalings[target.name]
    about = target.model_dump(mode="json", include={"name", "task", "levels", "frequencies", "mean", "std"})
    about["scaling"] = None
    if scaling is not None and scaling.method != "none":
        about["scaling"] = {
            "method": scaling.method,
            "weights": scaling.weights.tolist(),
            "biases": scaling.biases.tolist(),
        }
    return about


def _members(model: Model, target: Target, folder: Path) -> list[dict[str, Any]]:
    """Return how the scores are made, a weighted mean: of a fusion model there is one member."""
    if not isinstance(model, Ensemble):
        return [{"weight": 1.0, "output": "output"}]
    described = []
    for number, member in enumerate(model.members):
        if isinstance(member.model, FusionModel):
            described.append({"weight": member.weight, "output": f"output_{number}"})
            continue
        place = f"members/{number}"
        (folder / place).mkdir(parents=True)
        member.model.save(folder / place)
        several = isinstance(member.model, SeveralLearner)
        folders = [f"{place}/{i}" for i in range(len(target.parts))] if several else [place]
        described.append(
            {
                "weight": member.weight,
                "output": None,
                "learner": _learner_name(_each_learner(member)[0]),
                "modalities": list(member.modalities),
                "parts": list(member.parts),
                # Where too few rows had an answer, the training prior is what is said.
                "folders": [each if (folder / each).is_dir() else None for each in folders],
            }
        )
    return described


def _each_head(head: Head) -> list[Head]:
    """Return a head, and those inside it."""
    inner = [each for each in head.heads if isinstance(each, Head)] if isinstance(head, SeveralHead) else []
    return [head, *inner]


def _each_learner(member: Member) -> list[Learner]:
    if isinstance(member.model, FusionModel):
        return []
    return list(member.model.learners) if isinstance(member.model, SeveralLearner) else [member.model]


def _learner_name(learner: Learner) -> str | None:
    return next((name for name in _PORTABLE_LEARNERS if type(learner) is LEARNERS[name]), None)


def _described(encoder: Encoder) -> Callable[[Any, list[Column]], dict[str, Any]] | None:
    """Return what describes the preparation of an encoder; None where it is one of its own."""
    return _PREPARATIONS.get(type(encoder).prepare)


def _text(encoder: TransformerEncoder, columns: list[Column]) -> dict[str, Any]:
    cut = encoder.companion.truncation_side
    return {"kind": "tokens", "most": encoder.max_tokens, "pad": encoder.pad, "cut": cut}


def _fitted_images(encoder: ImageTransformerEncoder, columns: list[Column]) -> dict[str, Any]:
    known = encoder.preparation()
    return {"kind": "images", "grey": False, **{key: known[key] for key in ("sides", "bleed", "resample")}}


def _resized_images(encoder: ConvnetEncoder, columns: list[Column]) -> dict[str, Any]:
    sides = [encoder.size, encoder.size]
    return {"kind": "images", "grey": encoder.grey, "sides": sides, "bleed": None, "resample": _BICUBIC}


def _waves(encoder: AudioTransformerEncoder, columns: list[Column]) -> dict[str, Any]:
    least, most = encoder.front.least, encoder.most
    return {"kind": "waves", "rate": encoder.rate, "least": least, "most": most, "even": encoder.even}


def _cut_waves(encoder: MelConvnetEncoder, columns: list[Column]) -> dict[str, Any]:
    return {
        "kind": "waves",
        "rate": encoder.rate,
        "least": encoder.samples,
        "most": encoder.samples,
        "even": False,
    }


def _table(encoder: TableEncoder, columns: list[Column]) -> dict[str, Any]:
    described: list[Mapping[str, Any]] = []
    for i, column in enumerate(columns):
        if column.type == "category":
            described.append({"type": column.type, "levels": column.levels})
        else:
            center, width = encoder.scales[i]
            described.append({"type": column.type, "center": center, "width": width})
    return {"kind": "table", "columns": described}


def _vectors(encoder: EmbeddingEncoder, columns: list[Column]) -> dict[str, Any]:
    return {"kind": "vectors", "sizes": encoder.sizes}


def _clouds(encoder: PointNetEncoder, columns: list[Column]) -> dict[str, Any]:
    return {"kind": "clouds", "points": encoder.points, "size": encoder.size}


#: By the function that prepares: a subclass that keeps it can be exported too.
_PREPARATIONS: dict[Any, Callable[[Any, list[Column]], dict[str, Any]]] = {
    TransformerEncoder.prepare: _text,
    ImageTransformerEncoder.prepare: _fitted_images,
    ConvnetEncoder.prepare: _resized_images,
    AudioTransformerEncoder.prepare: _waves,
    MelConvnetEncoder.prepare: _cut_waves,
    TableEncoder.prepare: _table,
    EmbeddingEncoder.prepare: _vectors,
    PointNetEncoder.prepare: _clouds,
}
