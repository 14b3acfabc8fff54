"""What a system is asked to do. Only the standard library: interpreters that have little else read it too."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One fit of one system, and the questions that follow it.

    Attributes:
        train: CSV with the training rows.
        test: CSV with the test rows; the target's column is in it, but no system sees it.
        target: the column that is asked for.
        classes: its labels, as text; none of a regression.
        columns: names of columns by type ("text", "number", "category", …), for systems that infer none.
        encoder: folder of the pretrained text encoder.
        tokens: that a text is cut to, where a system is told.
        epochs: of a full fine-tuning.
        seed: of the fit.
        variant: what a system is to do, where it can do several things.
        folder: where the model is saved; nothing is there yet.
        scores: CSV to write: a column for each class, or one for the number; a line for each test row.
    """

    train: str
    test: str
    target: str
    classes: list[str]
    columns: dict[str, list[str]]
    encoder: str
    tokens: int
    epochs: int
    seed: int
    variant: str
    folder: str
    scores: str

    def of(self, kind: str) -> list[str]:
        """Return the columns of one type."""
        return self.columns.get(kind, [])

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2))

    @classmethod
    def read(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text()))


def as_label(value: object) -> str:
    """Return a label as text, the same whether a column was read as 1, 1.0 or "1".

    >>> as_label(1.0), as_label(True), as_label("a")
    ('1', 'True', 'a')
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
