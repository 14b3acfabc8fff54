"""The training rows that look most alike to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from polyfuse.calibration import Calibration
from polyfuse.core.types import Inputs
from polyfuse.data.rows import Rows
from polyfuse.explanation.methods import Floats
from polyfuse.explanation.question import calibrated
from polyfuse.inference import run, score
from polyfuse.model import FusionModel, Model, Texts
from polyfuse.screening import Trace
from polyfuse.screening.traces import spaces_of


@dataclass(frozen=True)
class Neighbour:
    """A training row near one that is explained.

    Attributes:
        row: its label in the training table.
        truth: its answer there.
        answer: what the model says of it.
        distance: 1 - cosine of the two in the model's features: 0 of rows that are the same to it.
    """

    row: str
    truth: Any
    answer: Any
    distance: float


class Neighbourhood:
    """Some training rows in the features of a model.

    These are the fused features; of an ensemble, which has none, the Features of each modality side by side, each of
    length 1 and 0 where it is absent.

    Args:
        model: on the device.
        rows: of the training table, with answers.
        device: where the model is.
        calibration: of its scores, where there is one.
    """

    def __init__(
        self,
        model: Model,
        rows: Rows,
        device: torch.device,
        calibration: Calibration | None = None,
    ) -> None:
        self.rows, self._model, self._device = rows, model, device
        self._vectors = self._of(rows)
        self._said = model.head.decode(calibrated(calibration, *score(model, rows, device)))

    @property
    def known(self) -> bool:
        """Whether the model has features to compare rows in."""
        return self._vectors.shape[1] > 0

    def nearest(self, rows: Rows, count: int) -> list[list[Neighbour]]:
        """Return for each row its nearest ones, the nearest first; none where the model has no features."""
        if not self.known:
            return [[] for _ in range(len(rows))]
        distances = self.distances(rows)
        truths = self.rows.answers
        return [
            [
                Neighbour(str(self.rows.index[at]), truths[at], self._said[at], max(0.0, float(far[at])))
                for at in np.argsort(far, kind="stable")[:count].tolist()
            ]
            for far in distances
        ]

    def others(self, rows: Rows, answer: Any, most: int) -> Rows:
        """Return the nearest training rows to one row to which the model answers something else."""
        far = self.distances(rows)[0] if self.known else np.zeros(len(self.rows))
        order = [at for at in np.argsort(far, kind="stable").tolist() if self._said[at] != answer]
        return self.rows.subset(order[:most])

    def distances(self, rows: Rows) -> Floats:
        """Return 1 - cosine of rows and training rows: (rows, training rows)."""
        found: Floats = 1 - self._of(rows).double().numpy() @ self._vectors.double().numpy().T
        return found

    def _of(self, rows: Rows) -> Tensor:
        """Return vectors (rows, dim) of length 1."""
        model, spaces = self._model, spaces_of(self._model)
        dims = [model.fusion.dim] if isinstance(model, FusionModel) else list(spaces.values())

        def vectors(inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
            seen = Trace.of(model, inputs, present, texts)
            first = len(seen.vectors) - len(dims)
            parts = [
                torch.where(seen.there[:, at, None], F.normalize(seen.vectors[at].float(), dim=1), 0.0)
                for at in range(first, len(seen.vectors))
            ]
            return F.normalize(torch.cat(parts, 1), dim=1) if parts else torch.zeros(len(present), 0)

        return run(model, rows, self._device, vectors, torch.zeros(sum(dims)))[0]
