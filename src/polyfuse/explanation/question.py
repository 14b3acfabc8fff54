"""One row before a model, and what of its answer is explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from polyfuse.calibration import Calibration
from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.data.rows import Rows, joined_text
from polyfuse.ensemble import Ensemble, shared_features
from polyfuse.model import FusionModel, Model

Value: TypeAlias = "tuple[Any, ...] | None"
#: Versions of a row that go through the model together.
BATCH = 32


@dataclass(frozen=True, eq=False)
class Changed:
    """Other inputs of one modality, for n versions of the row.

    Attributes:
        tensors: prepared, (n, …) each, or Features.
        texts: as learners read them, None where they are as they were.
    """

    tensors: Tensors | Features
    texts: list[str | None] | None = None


class Question:
    """One row, what the model answers to it, and the number that is explained.

    That number is the raw output: the logit of the label that is answered (of several labels at once, of the most
    probable one), or the value of a regression in the unit of the target.

    Args:
        model: in evaluation mode, on the device; of one target.
        rows: of a table.
        row: position among them.
        device: where the model is.
        calibration: of its scores, where there is one; the raw output is as it was before.

    Attributes:
        values: by modality, decoded cells; None where it is absent.
        present: (1, modalities) bool.
        answer: as it would stand in a table.
        scores: of the head, calibrated, (1, …) on the CPU.
        at: number of the label that is explained; None of a regression.
        output: the number that is explained; nan where nothing is present, and the answer is the training prior.
    """

    def __init__(
        self, model: Model, rows: Rows, row: int, device: torch.device, calibration: Calibration | None = None
    ) -> None:
        self.model, self.schema, self.device, self._calibration = model, rows.schema, device, calibration
        self.values: dict[str, Value] = {name: rows.value(name, row) for name in model.modalities}
        self.present = rows.present[row : row + 1].to(device)
        self._texts = {name: rows.text(name, row) for name in model.reads_text}
        self._inputs: dict[str, Features | Tensors] = {}
        shared = shared_features(model)
        with torch.no_grad():
            for name in model.modalities:
                prepared = self.prepared(name, [self.values[name]])
                features = name in shared
                self._inputs[name] = model.encode_one(name, prepared, self.present) if features else prepared
            output = self.outputs({}, 1)
        # Where nothing is there, what stands in the slots means nothing, and the answer is the prior.
        known = bool(self.present.any())
        self.scores = self.scores_of(output) if known else model.head.prior().cpu()[None]
        self.answer = model.head.decode(self.scores)[0]
        self.at = None if model.head.task == "regression" else int(self.scores[0].argmax())
        self.output = float(self.explained(output)[0]) if known else float("nan")

    def there(self, name: str) -> bool:
        """Tell whether the row has a modality."""
        return bool(self.present[0, self.model.modalities.index(name)])

    def prepared(self, name: str, values: Sequence[Value]) -> Tensors:
        """Return what the encoder of a modality prepares from values, on the device."""
        prepared = self.model.encoder(name).prepare(values)
        return {key: tensor.to(self.device) for key, tensor in prepared.items()}

    def changed(self, name: str, values: Sequence[Value]) -> Changed:
        """Return the inputs of other values of a modality."""
        columns = self.schema.of(name)
        places = [i for i, column in enumerate(columns) if column.type == "text"]
        texts = [None if value is None else joined_text([value[i] for i in places]) for value in values]
        return Changed(self.prepared(name, values), texts)

    def outputs(self, changes: Mapping[str, Changed], count: int, present: Tensor | None = None) -> Tensor:
        """Return the raw outputs of `count` versions of the row, differentiable where the model is.

        Args:
            changes: by modality.
            count: of versions.
            present: (count, modalities) bool; that of the row when left out.
        """
        first = torch.zeros(count, dtype=torch.long, device=self.device)
        present = self.present[first] if present is None else present
        inputs: dict[str, Features | Tensors] = {}
        for name, value in self._inputs.items():
            if name in changes:
                inputs[name] = changes[name].tensors
            elif isinstance(value, Features):
                inputs[name] = value.rows(first)
            else:
                inputs[name] = {key: tensor[first] for key, tensor in value.items()}
        texts: dict[str, Sequence[str | None]] = {}
        for name, text in self._texts.items():
            other = changes[name].texts if name in changes else None
            here = present[:, self.model.modalities.index(name)].tolist()
            said = [text] * count if other is None else other
            texts[name] = [some if kept else None for some, kept in zip(said, here, strict=True)]
        return self.model.outputs(inputs, present, texts)

    def explained(self, output: Tensor) -> Tensor:
        """Return the number that is explained, of raw outputs: (n,) float32."""
        if self.at is None:
            return self.model.head.scores(output).float().reshape(-1)
        return output[:, self.at].float()

    @torch.no_grad()
    def scored(self, name: str, values: Sequence[Value]) -> Tensor:
        """Return the scores (n, …) of the row with other values of a modality."""
        parts = [values[start : start + BATCH] for start in range(0, len(values), BATCH)]
        found = [self.outputs({name: self.changed(name, part)}, len(part)) for part in parts]
        return self.scores_of(torch.cat(found))

    def scores_of(self, output: Tensor) -> Tensor:
        """Return the calibrated scores (n, …) of raw outputs, on the CPU."""
        return calibrated(self._calibration, self.model.head.scores(output).detach().cpu())


def calibrated(calibration: Calibration | None, scores: Tensor, present: Tensor | None = None) -> Tensor:
    """Return scores (n, …) on the CPU as they are answered; those of rows that lack all modalities are the prior.

    Args:
        calibration: none where scores stay as they are.
        scores: of the head.
        present: (n, modalities) bool; something is, when left out.
    """
    if calibration is None:
        return scores
    answered = np.ones(len(scores), dtype=bool) if present is None else present.any(1).numpy()
    return torch.from_numpy(calibration.apply(scores.numpy(), answered))


def is_whole(model: Model) -> bool:
    """Tell whether a gradient says all: not where a learner has its part in the answer."""
    return isinstance(model, FusionModel) or (
        isinstance(model, Ensemble) and len(model.fusion_models) == len(model.members)
    )


def runs_alone(model: Model, name: str) -> bool:
    """Tell whether the Features of a modality are all that the model has of it, from its one encoder."""
    return name in shared_features(model)


@contextmanager
def in_float32(model: Model) -> Iterator[None]:
    """Let all encoders compute in float32, as long as the block runs: small differences are what counts here."""
    models = [module for module in model.modules() if isinstance(module, Model)]
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    before = [one.precision for one in models], [one.way for one in encoders]
    try:
        for one in models:
            one.precision = "float32"
        for encoder in encoders:
            encoder.way = None
        yield
    finally:
        for one, precision in zip(models, before[0], strict=True):
            one.precision = precision
        for encoder, way in zip(encoders, before[1], strict=True):
            encoder.way = way
