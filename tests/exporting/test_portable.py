"""Everything that is registered is exported and answers the same, or is refused by its name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder, Fusion
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Column, Schema, Target
from polyfuse.encoders import ENCODERS
from polyfuse.ensemble import Ensemble, Member
from polyfuse.exporting import NotExportable, NotTheSame, export
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.learners.words import WordStatistics
from polyfuse.model import FusionModel, Model
from test_contracts import CASES, HEAD_CASES

#: Of the pretrained encoders; of these, the wave model is one that takes rows of one length only.
CHECKPOINTS = {"transformer": "bert", "image_transformer": "resnet", "audio_transformer": "wav2vec2"}
CPU = torch.device("cpu")


def schema_of(cases: dict[str, list[Column]], target: Target) -> Schema:
    renamed = {
        name: [column.model_copy(update={"name": f"{name} {column.name}"}) for column in columns]
        for name, columns in cases.items()
    }
    modalities = {name: [column.name for column in columns] for name, columns in renamed.items()}
    return Schema(columns=[c for columns in renamed.values() for c in columns], modalities=modalities, target=target)


def fused(encoders: dict[str, Encoder], fusion: str, target: Target) -> FusionModel:
    options = {"dim": 8, **({"heads": 2} if "heads" in FUSIONS.options(fusion) else {})}
    made = FUSIONS.build(fusion, options, {name: encoder.dim for name, encoder in encoders.items()})
    name = target.task if target.task in HEADS else "classification"
    return FusionModel(encoders, made, HEADS.build(name, {}, 8, target))


def exported(model: Model, schema: Schema, folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"to": "onnx", "strict": True, "device": CPU, **options}
    return export(model.eval(), schema, None, folder, **given)


def test_every_encoder_answers_the_same_in_onnx(tiny_model: Callable[[str], str], tmp_path: Path) -> None:
    target, _ = HEAD_CASES["several"]
    assert {part.task for part in target.parts} | {"several"} == set(HEADS)
    encoders = {}
    for name, (options, columns, _) in CASES.items():
        checkpoint = {"checkpoint": tiny_model(CHECKPOINTS[name])} if name in CHECKPOINTS else {}
        encoders[name] = ENCODERS.build(name, {**options, **checkpoint}, columns)
    schema = schema_of({name: columns for name, (_, columns, _) in CASES.items()}, target)
    report = exported(fused(encoders, "attention", target), schema, tmp_path / "out")
    assert report.difference.largest < 1e-5
    assert report.difference.labels == 0


def test_every_fusion_answers_the_same_in_onnx(tmp_path: Path) -> None:
    target, _ = HEAD_CASES["classification"]
    cases = {name: CASES[name][1] for name in ("mlp", "embedding")}
    encoders = {name: ENCODERS.build(name, CASES[name][0], columns) for name, columns in cases.items()}
    models = {name: fused(encoders, name, target) for name in FUSIONS}
    members = [Member(name, 1 / len(models), model, tuple(encoders)) for name, model in models.items()]
    model = Ensemble(encoders, HEADS.build("classification", {}, 1, target), members, {})
    report = exported(model, schema_of(cases, target), tmp_path / "out")
    assert report.difference.largest < 1e-5
    outputs = json.loads((tmp_path / "out" / "preparation.json").read_text())["graph"]["outputs"]
    assert len(outputs) == len(FUSIONS)


def test_a_program_of_torch_holds_no_pickle(tiny_model: Callable[[str], str], tmp_path: Path) -> None:
    target, _ = HEAD_CASES["classification"]
    cases = {name: CASES[name][1] for name in ("convnet", "mlp")}
    encoders = {name: ENCODERS.build(name, CASES[name][0], columns) for name, columns in cases.items()}
    model = fused(encoders, "attention", target)
    report = exported(model, schema_of(cases, target), tmp_path / "out", to="torch")
    assert report.difference.largest < 1e-5
    with zipfile.ZipFile(tmp_path / "out" / "model.pt2") as archive:
        for entry in archive.namelist():
            # Weights are raw bytes, which may begin with anything; all else would show what it is.
            assert "/data/weights/weight_" in entry or not archive.read(entry).startswith((b"\x80", b"PK")), entry
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    prepared = {name: encoder.prepare([None]) for name, encoder in encoders.items()}
    tensors = [tensor for some in prepared.values() for tensor in some.values()]
    (found,) = program(*tensors, torch.ones(1, 2, dtype=torch.bool))
    assert torch.allclose(found, model(prepared, torch.ones(1, 2, dtype=torch.bool)), atol=1e-5)


class Foreign(Encoder):
    """An encoder of another package, that prepares in its own way."""

    reads = frozenset({"text"})
    dim = 2

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        return {"lengths": torch.tensor([[float(len(str(value)))] * 2 for value in values])}

    def forward(self, lengths: Tensor) -> Features:
        return Features.of_pooled(lengths)


class Twisted(Fusion):
    """A fusion whose shape depends on the data."""

    dim = 8

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.out = nn.Linear(sum(dims.values()), 8)

    def forward(self, features: dict[str, Features], present: Tensor) -> Features:
        joined = torch.cat([one.pooled for one in features.values()], dim=1)
        return Features.of_pooled(self.out(joined) * (2.0 if bool(present.all()) else 1.0))


def test_what_cannot_be_exported_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    target, _ = HEAD_CASES["classification"]
    cases = {"note": [Column(name="note", type="text")]}
    with pytest.raises(NotExportable, match="the encoder Foreign of 'note' prepares values in a way"):
        exported(fused({"note": Foreign()}, "concat", target), schema_of(cases, target), tmp_path / "out")
    cases = {"mlp": CASES["mlp"][1]}
    encoders = {"mlp": ENCODERS.build("mlp", {}, cases["mlp"])}
    model = FusionModel(encoders, Twisted({"mlp": encoders["mlp"].dim}), HEADS.build("classification", {}, 8, target))
    with pytest.raises(NotExportable, match="not with Twisted"):
        exported(model, schema_of(cases, target), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_answers_that_differ_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    target, _ = HEAD_CASES["classification"]
    cases = {"mlp": CASES["mlp"][1]}
    model = fused({"mlp": ENCODERS.build("mlp", {}, cases["mlp"])}, "concat", target)
    with pytest.raises(NotTheSame, match="does not answer as the model does: largest difference"):
        exported(model, schema_of(cases, target), tmp_path / "out", tolerance=0.0)
    assert not list(tmp_path.iterdir())


def test_words_stand_in_the_order_of_the_modalities_whatever_that_of_the_texts() -> None:
    target, _ = HEAD_CASES["classification"]
    words = {name: WordStatistics(least=1).fit(["one two"]) for name in ("a", "b")}
    encoders = {name: ENCODERS.build("mlp", {}, CASES["mlp"][1]) for name in words}
    model = Ensemble(encoders, HEADS.build("classification", {}, 1, target), [], words)
    design = model.design({}, torch.ones(1, 2, dtype=torch.bool), {"b": ["one"], "a": ["two"]})
    assert list(design.words) == ["a", "b"]
