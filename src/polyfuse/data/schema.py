"""What is known of a table: its columns, their types and statistics, the modalities they feed, the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ColumnType = Literal["text", "image", "audio", "points", "number", "category", "datetime", "embedding"]
#: What may be asked of one column.
ColumnTask = Literal["classification", "multilabel", "regression"]
Task = Literal["classification", "multilabel", "regression", "several"]
Label = bool | int | float | str


class Strict(BaseModel):
    """A model that refuses unknown keys and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Strict):
    """One column, with the statistics of its training rows.

    Attributes:
        name: as in the table.
        type: what its cells are.
        missing: share of training rows in which the cell is missing.
        levels: of a category, its values in the training rows, the most frequent first; rare ones are left out.
        quantiles: of a number or a datetime (seconds since 1970), its 0 %, 2 %, …, 100 % quantiles: 51 values.
        whole: of a number, whether the training rows have whole ones only.
        size: of an embedding, its length; of images, the median of the longer side in pixels; of audio, the median rate
            in Hz; of points, the numbers of each.
        duration: of audio, the 95 % quantile of its length in seconds.
        scales: of points, the root mean square of each number after the coordinates.
    """

    name: str
    type: ColumnType
    missing: float = Field(0.0, ge=0, le=1)
    levels: list[str] = []
    quantiles: list[float] = []
    whole: bool = False
    size: int | None = None
    duration: float | None = None
    scales: list[float] = []


class Target(Strict):
    """The column that is asked for; or several of them.

    Attributes:
        name: as in the table; of several, their names.
        task: what is asked of it; "several" of several.
        levels: of a classification or multilabel task, its labels in a fixed order.
        frequencies: share of the training rows that have each label.
        mean: of a regression, the mean of the training rows.
        std: of a regression, their standard deviation, 1 when they do not differ.
        parts: of several, each of them, in order. An answer is a tuple then, with None for what a row lacks.
    """

    name: str
    task: Task
    levels: list[Label] = []
    frequencies: list[float] = []
    mean: float = 0.0
    std: float = 1.0
    parts: list[Target] = []

    @classmethod
    def of(cls, parts: Sequence[Target]) -> Target:
        """Return one target of several; the only one where there is one."""
        if len(parts) == 1:
            return parts[0]
        return cls(name=", ".join(part.name for part in parts), task="several", parts=list(parts))

    def each(self) -> list[Target]:
        """Return each of several, or the one that it is."""
        return self.parts or [self]

    @property
    def names(self) -> list[str]:
        """The columns that are asked for."""
        return [part.name for part in self.each()]

    @property
    def asked(self) -> Task | tuple[Task, ...]:
        """The task; of several, that of each."""
        return tuple(part.task for part in self.parts) or self.task


class Schema(Strict):
    """All columns of the training table.

    Attributes:
        columns: those that feed a modality.
        modalities: name of a modality to the names of its columns, in order.
        target: what is asked for; None in a table to be predicted.
        left_out: name of a column to the reason why it is not used.
        notes: things that a user may want to know about how columns were read, e.g. numbers that could not be parsed.
    """

    columns: list[Column]
    modalities: dict[str, list[str]]
    target: Target
    left_out: dict[str, str] = {}
    notes: list[str] = []

    def of(self, modality: str) -> list[Column]:
        """Return the columns of a modality, in order."""
        by_name = {column.name: column for column in self.columns}
        return [by_name[name] for name in self.modalities[modality]]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return self.model_dump(mode="json")
