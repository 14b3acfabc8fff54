"""What a learner is, and what it reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.data.schema import Target

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Cells:
    """The columns of a table, as its encoder prepares them.

    Attributes:
        numbers: (rows, n) float32, scaled, nan where missing.
        codes: (rows, m) int64 of categories.
        levels: of each category, how many codes it has.
    """

    numbers: Array
    codes: Array
    levels: tuple[int, ...]

    def rows(self, chosen: Array) -> Cells:
        """Return some of the rows."""
        return Cells(self.numbers[chosen], self.codes[chosen], self.levels)


@dataclass(frozen=True)
class Design:
    """Rows as learners read them, each part by modality.

    Attributes:
        vectors: pooled Features (rows, dim) float32, nan in rows where the modality is absent.
        cells: columns of a table.
        words: statistics of a text, a sparse matrix (rows, words).
    """

    vectors: Mapping[str, Array]
    cells: Mapping[str, Cells]
    words: Mapping[str, Any]

    def __len__(self) -> int:
        if self.words:
            return int(next(iter(self.words.values())).shape[0])
        every = [*self.vectors.values(), *(some.codes for some in self.cells.values())]
        return len(every[0]) if every else 0

    @property
    def width(self) -> int:
        """How many columns there are in all parts."""
        plain = sum(int(some.numbers.shape[1] + some.codes.shape[1]) for some in self.cells.values())
        return plain + sum(int(part.shape[1]) for part in (*self.vectors.values(), *self.words.values()))

    def rows(self, chosen: Array) -> Design:
        """Return some of the rows."""
        return Design(
            {name: part[chosen] for name, part in self.vectors.items()},
            {name: part.rows(chosen) for name, part in self.cells.items()},
            {name: part[chosen] for name, part in self.words.items()},
        )

    def only(self, modalities: Collection[str], *, parts: Collection[str] = ("features", "words")) -> Design:
        """Return what some modalities say; `parts`: their Features (and columns), the statistics of their words."""
        features = modalities if "features" in parts else ()
        words = modalities if "words" in parts else ()
        return Design(
            {name: part for name, part in self.vectors.items() if name in features},
            {name: part for name, part in self.cells.items() if name in features},
            {name: part for name, part in self.words.items() if name in words},
        )


class Learner(ABC):
    """Learns one target from a Design.

    The builder supplies the target: `__init__(self, target, *, options…)`. `choose` settles all that is not learned
    from the rows it will be fitted on; `fit` may then be called for one choice of rows after the other.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def choose(self, design: Design, answers: Array, held: Array, *, weights: Array | None = None) -> None:
        """Choose hyperparameters on some rows, and learn what needs no answers (scales, projections) from all.

        Args:
            design: all rows to learn from.
            answers: codes (rows,), 0/1 (rows, labels), or numbers (rows,), as the target's task has it.
            held: positions of the rows that decide; the others are learned from.
            weights: of the rows (rows,).
        """

    @abstractmethod
    def fit(self, design: Design, answers: Array, *, weights: Array | None = None) -> None:
        """Learn from rows; see `choose`, which comes first."""

    @abstractmethod
    def scores(self, design: Design) -> Array:
        """Return probabilities (rows, labels), or values in the target's unit (rows,): float64."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that was learned."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ArtifactError: it does not fit the target.
        """


def loss(target: Target, answers: Array, scores: Array) -> float:
    """Return the mean logarithmic loss, of a regression the mean squared error: what choices are made by."""
    if target.task == "regression":
        return float(np.mean((answers - scores) ** 2))
    floor = np.clip(scores, 1e-7, 1 - 1e-7)
    if target.task == "classification":
        return float(-np.log(floor[np.arange(len(answers)), answers]).mean())
    return float(-(answers * np.log(floor) + (1 - answers) * np.log(1 - floor)).mean())


def columns_of(answers: Array, target: Target) -> Sequence[Array]:
    """Return what is learned one by one: the answers, or each label's 0/1 column of a multilabel target."""
    return [np.ascontiguousarray(column) for column in answers.T] if target.task == "multilabel" else [answers]
