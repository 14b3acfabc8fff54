"""Some rows before a model, as an adversary leaves them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from polyfuse.attacks.goals import Goal, Unseen, goal_of
from polyfuse.attacks.problem import Point, Problem
from polyfuse.attacks.threat import Seam, Threat, Value
from polyfuse.core.types import Features, Tensors
from polyfuse.data.rows import Rows, joined_text
from polyfuse.ensemble import Ensemble, shared_features
from polyfuse.model import Model
from polyfuse.screening import Screen, Trace

_CHUNK = 128  # values that go through the model together
Values: TypeAlias = dict[str, list["Value | None"]]


@dataclass(frozen=True, eq=False)
class Scene:
    """Rows as a model is given them.

    Attributes:
        model: in evaluation mode, on the device of the inputs.
        rows: with answers; all of them fit into one batch.
        inputs: prepared tensors of the modalities that are changed; of the others what makes least work.
        present: (rows, modalities) bool.
        values: of the modalities under attack, decoded cells for each row, of which the inputs were prepared; None for
            what is absent.
        goal: what the adversary wants.
        screen: that the adversary knows of, if there is one: the outputs end with a column of its logits then.
    """

    model: Model
    rows: Rows
    inputs: dict[str, Features | Tensors]
    present: Tensor
    values: Values
    goal: Goal
    screen: Screen | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        rows: Rows,
        modalities: Sequence[str],
        device: torch.device,
        wanted: int | None = None,
        *,
        absent: Collection[str] = (),
    ) -> Scene:
        """Return rows as they are: what is not to be changed is encoded once.

        Args:
            model: on the device.
            rows: with answers.
            modalities: to be changed.
            device: where the model is.
            wanted: number of the label to go to.
            absent: modalities that may be taken away, changed or not.
        """
        every = {name: [rows.value(name, row) for row in range(len(rows))] for name in model.modalities}
        present = rows.present.to(device)
        inputs: dict[str, Features | Tensors] = {}
        with torch.no_grad():
            for name, values in every.items():
                prepared = _to(model.encoder(name).prepare(values), device)
                known = name not in modalities and name in shared_features(model)
                inputs[name] = model.encode_one(name, prepared, present) if known else prepared
        goal = goal_of(model.head.task, model.head.encode(rows.answers).to(device), wanted)
        kept = {name: values for name, values in every.items() if name in modalities or name in absent}
        return cls(model, rows, inputs, present, kept, goal)

    def watched(self, screen: Screen, threshold: float) -> Scene:
        """Return the scene for an adversary who wants no more suspicion than a threshold (of the screen's logits)."""
        return replace(self, goal=Unseen(self.goal.truth, self.goal, threshold), screen=screen)

    def problem(self, threats: Mapping[str, Threat], clean: Scene) -> Problem:
        """Return the problem of the modalities whose threat gives a region, around the values of the clean scene."""
        numbers = torch.arange(len(self.rows), device=self.present.device)
        regions = {name: threat.region(clean.seam(name)) for name, threat in threats.items() if threat.continuous}
        return Problem(self.outputs, regions, self.goal, numbers, differentiable=is_differentiable(self.model))

    def scored(self, name: str, values: Sequence[Value], places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return damage and success of other values of a modality (n,), each in the row whose place is given."""
        damage, reached = [], []
        for start in range(0, len(values), _CHUNK):
            numbers = torch.tensor(places[start : start + _CHUNK], device=self.present.device)
            some = values[start : start + _CHUNK]
            prepared = _to(self.model.encoder(name).prepare(some), self.present.device)
            with torch.no_grad():
                output = self._output(numbers, {name: prepared}, {name: some})
            goal = self.goal.rows(numbers)
            damage.append(goal.damage(output))
            reached.append(goal.reached(output))
        return torch.cat(damage), torch.cat(reached)

    def moved(self, point: Point, threats: Mapping[str, Threat], clean: Scene) -> Scene:
        """Return the scene with other continuous tensors, and the values that they are prepared from."""
        values = dict(self.values)
        for name, tensor in point.items():
            encoder = self.model.encoder(name)
            (seam,) = encoder.continuous
            prepared = {**self._prepared(name), seam: tensor}
            found = encoder.restore(prepared, self.values[name])
            still = (tensor == clean._prepared(name)[seam]).flatten(1).all(1).tolist()
            values[name] = [
                before if same or value is None or before is None else threats[name].mended(value, before)
                for value, before, same in zip(found, clean.values[name], still, strict=True)
            ]
        return self.with_values({name: values[name] for name in point})

    def with_values(self, values: Values) -> Scene:
        """Return the scene with other values of some modalities; None takes one away."""
        device, present = self.present.device, self.present.clone()
        inputs = dict(self.inputs)
        for name, some in values.items():
            # Features are of what is never changed: taken away, it is not looked at.
            if not isinstance(inputs[name], Features):
                inputs[name] = _to(self.model.encoder(name).prepare(some), device)
            here = [value is not None for value in some]
            present[:, self.model.modalities.index(name)] = torch.tensor(here, device=device)
        return replace(self, inputs=inputs, present=present, values={**self.values, **values})

    def without(self, modalities: Collection[str]) -> Scene:
        """Return the scene with some modalities taken away, where another one is left."""
        gone = torch.tensor([name in modalities for name in self.model.modalities], device=self.present.device)
        left = (self.present & ~gone).any(1).tolist()
        return self.with_values(
            {
                name: [None if other else value for value, other in zip(self.values[name], left, strict=True)]
                for name in modalities
            }
        )

    def damage(self) -> tuple[Tensor, Tensor]:
        """Return damage and success at the values as they are (rows,)."""
        numbers = torch.arange(len(self.rows), device=self.present.device)
        with torch.no_grad():
            output = self._output(numbers, {}, self.values)
        return self.goal.damage(output), self.goal.reached(output)

    def seam(self, name: str) -> Seam:
        """Return the continuous input of a modality."""
        return Seam.of(self.model.encoder(name), self._prepared(name), self.values[name])

    def outputs(self, seams: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        """Return the raw outputs (n, …) of rows by their numbers (n,), with other continuous tensors (n, …)."""
        changed = {}
        for name, tensor in seams.items():
            (seam,) = self.model.encoder(name).continuous
            changed[name] = {key: value[numbers] for key, value in self._prepared(name).items()} | {seam: tensor}
        values = {name: [some[row] for row in numbers.tolist()] for name, some in self.values.items()}
        return self._output(numbers, changed, values)

    def _prepared(self, name: str) -> Tensors:
        prepared = self.inputs[name]
        assert not isinstance(prepared, Features)
        return prepared

    def _output(
        self, numbers: Tensor, changed: Mapping[str, Tensors], values: Mapping[str, Sequence[Value | None]]
    ) -> Tensor:
        """Return the raw outputs of some rows (n, …), with other inputs and values of some modalities."""
        inputs: dict[str, Features | Tensors] = {}
        for name, value in self.inputs.items():
            if name in changed:
                inputs[name] = changed[name]
            elif isinstance(value, Features):
                inputs[name] = value.rows(numbers)
            else:
                inputs[name] = {key: tensor[numbers] for key, tensor in value.items()}
        texts = {name: self._texts(name, numbers, values) for name in self.model.reads_text}
        if self.screen is None:
            return self.model.outputs(inputs, self.present[numbers], texts)
        seen = Trace.of(self.model, inputs, self.present[numbers], texts)
        return torch.cat([seen.output, self.screen.logits(seen)[:, None]], 1)

    def _texts(self, name: str, numbers: Tensor, values: Mapping[str, Sequence[Value | None]]) -> list[str | None]:
        """Return the texts of some rows, as learners read them."""
        if name not in values:
            return [self.rows.text(name, row) for row in numbers.tolist()]
        texts = [i for i, column in enumerate(self.rows.schema.of(name)) if column.type == "text"]
        return [None if value is None else joined_text([value[i] for i in texts]) for value in values[name]]


def is_differentiable(model: Model) -> bool:
    """Tell whether a gradient of the outputs says something: not where learners alone answer."""
    return not isinstance(model, Ensemble) or bool(model.fusion_models)


def _to(tensors: Tensors, device: torch.device) -> Tensors:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
