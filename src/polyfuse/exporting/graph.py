"""The graph of a model: from prepared tensors and presence to raw outputs, and to what learners read."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from polyfuse.core.contract import Encoder
from polyfuse.core.onnx import program_of, ragged, silence, write_onnx
from polyfuse.core.types import Features, Tensors
from polyfuse.ensemble import Ensemble, Member, is_table
from polyfuse.exporting.describing import NotExportable
from polyfuse.learners.learner import Learner
from polyfuse.model import FusionModel, Model

_ROWS = 7  # of the examples; another number than any axis has that is not of rows
_OTHER = 11


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives, in order.

    Attributes:
        inputs: of each the modality and the name of the tensor that its encoder prepares; presence comes last.
        outputs: names.
    """

    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return [*(f"{modality}.{tensor}" for modality, tensor in self.inputs), "present"]

    def about(self, file: str) -> dict[str, Any]:
        """Return JSON values. file: where the graph stands."""
        told = [{"name": f"{m}.{t}", "modality": m, "tensor": t} for m, t in self.inputs]
        last = {"name": "present", "modality": None, "tensor": "present"}
        return {"file": file, "inputs": [*told, last], "outputs": list(self.outputs)}


class Graph(nn.Module):
    """All of a model that is computed by tensors: encoders, fusions and heads, in float32.

    Every row goes through every encoder, absent or not: what comes out there means nothing to a fusion.

    Args:
        model: on the CPU, at rest.
        tensors: names of what each modality's encoder prepares, of those that are read.
    """

    def __init__(self, model: Model, tensors: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.model = model
        inputs = tuple((modality, name) for modality, names in tensors.items() for name in names)
        self.signature = Signature(inputs, tuple(_output_names(model)))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, each in its place. tensors: as the signature names them."""
        *prepared, present = tensors
        inputs: dict[str, Tensors] = {}
        for (modality, name), tensor in zip(self.signature.inputs, prepared, strict=True):
            inputs.setdefault(modality, {})[name] = tensor
        return tuple(self._outputs(inputs, present))

    def _outputs(self, inputs: Mapping[str, Tensors], present: Tensor) -> Iterator[Tensor]:
        model = self.model
        if isinstance(model, FusionModel):
            yield self._say(model, {name: _features(model.encoder(name), inputs[name]) for name in inputs}, present)
            return
        assert isinstance(model, Ensemble)
        shared = {name: _features(model.encoder(name), inputs[name]) for name in _shared(model)}
        for member in _networks(model):
            assert isinstance(member.model, FusionModel)
            own = {
                name: shared[name]
                if name in shared and not _has_own(model, member, name)
                else _features(member.model.encoder(name), inputs[name])
                for name in member.modalities
            }
            yield self._say(member.model, own, model.present_of(member.modalities, present))
        for name in _pooled(model):
            yield shared[name].pooled

    def _say(self, model: FusionModel, features: Mapping[str, Features], present: Tensor) -> Tensor:
        output: Tensor = model.head(model.fusion(features, present))
        return output


def read_by_graph(model: Model) -> list[str]:
    """Name the modalities whose tensors the graph of a model takes; none where learners read plain cells alone."""
    if isinstance(model, FusionModel):
        return list(model.modalities)
    assert isinstance(model, Ensemble)
    wanted = {name for member in _networks(model) for name in member.modalities} | set(_pooled(model))
    return [name for name in model.modalities if name in wanted]


def write_graph(model: Model, values: Mapping[str, list[Any]], path: Path, *, to: str) -> Signature:
    """Write the graph of a model as ONNX (`.onnx`) or as a program of torch.export (`.pt2`), which holds no pickle.

    Args:
        model: at rest.
        values: of the modalities that it reads, examples of different lengths.
        path: where to.
        to: "onnx" or "torch".

    Raises:
        NotExportable: it does what cannot be exported; the component is named.
    """
    model = model if next(model.parameters(), torch.zeros(0)).device.type == "cpu" else copy.deepcopy(model).cpu()
    prepared = _examples(model, values)
    graph = Graph(model, {name: list(tensors) for name, tensors in prepared.items()}).eval()
    rows = len(next(iter(next(iter(prepared.values())).values())))
    present = torch.ones(rows, len(model.modalities), dtype=torch.bool)
    present[-1, :-1] = False
    tensors = [*(tensor for some in prepared.values() for tensor in some.values()), present]
    axes = [
        *(axis for some in prepared.values() for axis in ragged(some).values()),
        {0: torch.export.Dim.DYNAMIC},
    ]
    signature = graph.signature
    try:
        program = program_of(graph, tensors, axes)
        if to == "onnx":
            write_onnx(program, path, inputs=signature.names, outputs=signature.outputs)
        else:
            _write_program(program, path)
    except Exception as error:  # the exporter raises what it likes
        raise NotExportable(_blame(model, prepared, error)) from error
    return signature


def _write_program(program: ExportedProgram, path: Path) -> None:
    """Write a program of torch; its examples, which it would keep as a pickle, are left out."""
    program._example_inputs = None
    with silence():
        torch.export.save(program, path)


def _examples(model: Model, values: Mapping[str, list[Any]]) -> dict[str, Tensors]:
    """Return prepared tensors of a number of rows that no other axis of any length has."""
    for rows in (_ROWS, _OTHER):
        prepared = {
            name: model.encoder(name).prepare([values[name][row % len(values[name])] for row in range(rows)])
            for name in read_by_graph(model)
        }
        lengths = {some["mask"].shape[1] for some in prepared.values() if "mask" in some}
        if rows not in lengths:
            break
    return prepared


def _blame(model: Model, prepared: Mapping[str, Tensors], error: Exception) -> str:
    """Say which component cannot be exported: encoders are tried one by one, what remains is the fusion or the head."""
    why = f"({type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:200]})"
    for name, tensors in prepared.items():
        encoder = model.encoder(name)
        try:
            program_of(_One(encoder, list(tensors)), list(tensors.values()), list(ragged(tensors).values()))
        except Exception:
            return (
                f"the encoder {type(encoder).__name__} of {name!r} cannot be exported {why}; choose another encoder or"
                " checkpoint for it"
            )
    models = [model] if isinstance(model, FusionModel) else [m.model for m in _networks(model)]  # type: ignore[arg-type]
    parts = ", ".join(dict.fromkeys(type(some.fusion).__name__ for some in models if isinstance(some, FusionModel)))
    return f"every encoder can be exported, but not with {parts or 'what reads them'} {why}; choose another fusion"


class _One(nn.Module):
    """An encoder as the exporter takes it."""

    def __init__(self, encoder: Encoder, names: list[str]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, names

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.encoder(**dict(zip(self.names, tensors, strict=True))).pooled  # type: ignore[no-any-return]


def _features(encoder: Encoder, tensors: Tensors) -> Features:
    features: Features = encoder(**tensors)
    return features


def _output_names(model: Model) -> list[str]:
    if not isinstance(model, Ensemble):
        return ["output"]
    numbers = [i for i, member in enumerate(model.members) if isinstance(member.model, FusionModel)]
    places = [model.modalities.index(name) for name in _pooled(model)]
    return [*(f"output_{i}" for i in numbers), *(f"pooled_{i}" for i in places)]


def _networks(model: Ensemble) -> list[Member]:
    return [member for member in model.members if isinstance(member.model, FusionModel)]


def _pooled(model: Ensemble) -> list[str]:
    """Name the modalities whose pooled Features learners read."""
    readers = [m for m in model.members if isinstance(m.model, Learner) and "features" in m.parts]
    wanted = {name for member in readers for name in member.modalities}
    return [name for name in model.modalities if name in wanted and not is_table(model.encoder(name))]


def _shared(model: Ensemble) -> list[str]:
    """Name the modalities that some member reads from the ensemble's own encoder."""
    read = {name for m in _networks(model) for name in m.modalities if not _has_own(model, m, name)}
    return [name for name in model.modalities if name in read | set(_pooled(model))]


def _has_own(model: Ensemble, member: Member, name: str) -> bool:
    """Tell whether a member encodes a modality with weights of its own: tuned, or of a table."""
    return name in member.own or is_table(model.encoder(name))
