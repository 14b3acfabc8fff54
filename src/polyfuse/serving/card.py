"""What a server tells about its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from polyfuse.core.version import __version__
from polyfuse.data.schema import Label, Task

if TYPE_CHECKING:
    from polyfuse.predictor import Predictor


class TargetCard(BaseModel):
    """One column that is asked for."""

    name: str
    task: Task
    labels: list[Label]


class ColumnCard(BaseModel):
    """One column that may be given."""

    name: str
    type: str
    modality: str
    missing: float


class LevelsCard(BaseModel):
    """Between which levels sets and intervals can be asked for."""

    lowest: float
    highest: float


class Card(BaseModel):
    """The model: what it reads, what it answers, how good it was on its validation rows, and which it was made from."""

    task: Task
    targets: list[TargetCard]
    columns: list[ColumnCard]
    fusion: str
    weights: int
    screen: bool
    levels: LevelsCard | None
    validation: dict[str, Any]
    id: str
    made: str
    ancestors: list[str]
    version: str


def card_of(predictor: Predictor) -> Card:
    """Return what is told about a model; nothing of its training rows but what its answers show anyway."""
    schema, bounds = predictor.schema, predictor.levels
    lineage = predictor.lineage
    feeds = {name: modality for modality, names in schema.modalities.items() for name in names}
    report = predictor.metrics.get("validation", {})
    return Card(
        task=schema.target.task,
        targets=[TargetCard(name=part.name, task=part.task, labels=part.levels) for part in schema.target.each()],
        columns=[
            ColumnCard(name=column.name, type=column.type, modality=feeds[column.name], missing=column.missing)
            for column in schema.columns
        ],
        fusion=predictor.recipe.fusion.name,
        weights=sum(weight.numel() for weight in predictor.model.parameters()),
        screen=predictor.has_screen,
        levels=None if bounds is None else LevelsCard(lowest=bounds[0], highest=bounds[1]),
        validation={key: report[key] for key in ("rows", "level", "metrics", "baseline", "present") if key in report},
        id=lineage.get("id", ""),
        made=lineage.get("made", ""),
        ancestors=[ancestor["id"] for ancestor in lineage.get("ancestors", [])],
        version=__version__,
    )
