"""Corruptions in training."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from polyfuse.core.errors import InputError, nearest
from polyfuse.data.augmentation.contract import Augmentation, Other, Probability
from polyfuse.data.corruption import CORRUPTIONS, corruptions_for
from polyfuse.data.corruption.contract import Severity
from polyfuse.data.schema import Column


class CorruptAugmentation(Augmentation):
    """Harmless damage of a kind and a severity drawn at random, so that a model learns to do with it.

    What is trained on is no longer unseen: `stress` tells how a model stands it with other kinds than these.

    Args:
        column: that is changed.
        kinds: corruptions to draw from; all that read the column, when left out.
        severity: at most.
        probability: that a cell is changed.

    Raises:
        InputError: a kind is unknown.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "audio", "points", "text", "number", "category", "datetime"})

    def __init__(
        self,
        column: Column,
        *,
        kinds: list[str] | None = None,
        severity: Severity = 3,
        probability: Probability = 0.5,
    ) -> None:
        super().__init__(column)
        for name in kinds or ():
            if name not in CORRUPTIONS:
                raise InputError(f"augmentations: corrupt.kinds: there is no {name!r}; {nearest(name, CORRUPTIONS)}")
        self.probability = probability
        fitting = [name for name in corruptions_for([column]) if kinds is None or name in kinds]
        if not fitting:
            given, able = (", ".join(some) for some in (kinds or (), corruptions_for([column])))
            self.idle = f"none of corrupt.kinds ({given}) damages {column.name} ({column.type}): {able} do"
        self._kinds = [
            [CORRUPTIONS.build(name, {"severity": level}, column) for level in range(1, severity + 1)]
            for name in fitting
        ]

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Any:
        """Damage the cell; one that would be lost stays as it is."""
        if self.idle or random.random() >= self.probability:
            return cell
        levels = self._kinds[random.integers(len(self._kinds))]
        changed = levels[random.integers(len(levels))](cell, random, other)
        return cell if changed is None else changed
