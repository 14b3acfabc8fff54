"""What a row says in one modality, in pieces that can be taken away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polyfuse.core.types import Tensors
from polyfuse.explanation.methods import Floats, Function
from polyfuse.explanation.parts import Kind, Part
from polyfuse.explanation.question import BATCH, Changed, Question


@dataclass(frozen=True, eq=False)
class Place:
    """Where gradients are taken.

    Attributes:
        function: from tensors (n, …) to the number that is explained (n,).
        point: the tensors of the row, (1, …) each.
        baseline: those that it is compared with.
    """

    function: Function
    point: list[Tensor]
    baseline: list[Tensor]


class Subject(ABC):
    """One modality of one row. What is shown has a weight in each cell; each cell belongs to one piece.

    Args:
        question: whose row it is.
        name: of the modality, which the row has.
        seed: of what baselines draw.

    Attributes:
        baselines: two of them, by name; gradients are taken along the way from the first, where both are possible.
        piece_of: (cells,) number of the piece of each cell.
    """

    kind: ClassVar[Kind]
    baselines: tuple[str, str]
    piece_of: NDArray[np.int64]

    def __init__(self, question: Question, name: str, seed: int) -> None:
        self.question, self.name, self.seed = question, name, seed
        self.encoder = question.model.encoder(name)

    @abstractmethod
    def changed(self, kept: Tensor, baseline: str) -> Changed:
        """Return the inputs of which some pieces are kept. kept: (n, pieces) bool."""

    def place(self, baseline: str) -> Place | None:
        """Return where gradients are taken; None where there is no such place."""
        return None

    def cells(self, found: Sequence[Tensor]) -> Floats:
        """Return the weights of cells, from an attribution in the shapes of a place's point."""
        raise TypeError(f"{type(self).__name__} takes no gradients")

    def rolled(self) -> Floats | None:
        """Return what attention roll-out says of each cell; None where it says nothing."""
        return None

    @abstractmethod
    def part(self, weights: Floats, **common: Any) -> Part:
        """Return what is shown. weights: (cells,); common: what all parts have."""

    @property
    def pieces(self) -> int:
        """Number of pieces; 0 where there is nothing to take away."""
        return int(self.piece_of.max()) + 1 if len(self.piece_of) else 0

    def summed(self, cells: Floats) -> Floats:
        """Return the weights of pieces: sums of those of their cells."""
        sums: Floats = np.bincount(self.piece_of, cells, minlength=self.pieces).astype(np.float64)
        return sums

    def spread(self, pieces: Floats) -> Floats:
        """Return the weights of cells: an equal share of those of their pieces."""
        sizes = np.bincount(self.piece_of, minlength=self.pieces)
        shares: Floats = (pieces / np.maximum(sizes, 1))[self.piece_of]
        return shares

    @torch.no_grad()
    def value(self, kept: Tensor, baseline: str) -> Tensor:
        """Return the number that is explained, of which pieces are kept (n, pieces): (n,)."""
        question = self.question
        found = [
            question.explained(question.outputs({self.name: self.changed(part, baseline)}, len(part)))
            for part in torch.split(kept, BATCH)
        ]
        return torch.cat(found).cpu()

    def at_tensor(self, tensors: Tensors, seam: str, baseline: Tensor) -> Place:
        """Return the place at one of the prepared tensors, (1, …)."""

        def function(point: Tensor) -> Tensor:
            other = {key: tensor.expand(len(point), *tensor.shape[1:]) for key, tensor in tensors.items()}
            changed = Changed({**other, seam: point})
            return self.question.explained(self.question.outputs({self.name: changed}, len(point)))

        return Place(function, [tensors[seam]], [baseline])

    def at_modules(self, tensors: Tensors, modules: Sequence[nn.Module], others: Tensors) -> Place:
        """Return the place at what some modules of the encoder give, for the row's tensors and for those of a baseline.

        Args:
            tensors: prepared from the row, (1, …).
            modules: each of which is run once.
            others: prepared from the baseline.
        """
        question = self.question

        def seen(given: Tensors) -> list[Tensor]:
            found: dict[nn.Module, Tensor] = {}
            hooks = [m.register_forward_hook(lambda m, _, out: found.__setitem__(m, out)) for m in modules]
            try:
                with torch.no_grad():
                    question.model.encode_one(self.name, given, question.present)
            finally:
                for hook in hooks:
                    hook.remove()
            return [found[module].detach() for module in modules]

        def function(*points: Tensor) -> Tensor:
            count = len(points[0])
            wide = {key: tensor.expand(count, *tensor.shape[1:]) for key, tensor in tensors.items()}
            present = question.present.expand(count, -1)
            with _giving(modules, points):
                features = question.model.encode_one(self.name, wide, present)
            return question.explained(question.outputs({self.name: Changed(features)}, count))

        return Place(function, seen(tensors), seen(others))


@contextmanager
def _giving(modules: Sequence[nn.Module], outputs: Sequence[Tensor]) -> Iterator[None]:
    """Let modules give some outputs, whatever they are given, as long as the block runs."""
    pairs = zip(modules, outputs, strict=True)
    hooks = [module.register_forward_hook(lambda *_, output=output: output) for module, output in pairs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def evenly(cells: int, most: int) -> NDArray[np.int64]:
    """Return the pieces of so many cells in a row: at most `most`, of equal size but for rounding.

    >>> evenly(5, 2).tolist(), evenly(2, 4).tolist()
    ([0, 0, 0, 1, 1], [0, 1])
    """
    return np.arange(cells) * min(most, cells) // max(1, cells)
