"""The contract between the parts: Encoder, Fusion, Head, Tuning.

A component's constructor is its only schema: what the builder supplies is positional, what the user may set is
keyword-only, annotated, and has a default. The recipe is derived from those signatures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from polyfuse.core.compute import Way
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Tensors

#: In a batch, the name of the tokens that `Encoder.lower` gave, from which `Encoder.resume` goes on.
HIDDEN = "hidden"

#: From fused Features (batch, …) and the rows that count (batch,) bool to the mean loss of the head over those rows.
LossOf: TypeAlias = Callable[[Features, Tensor], Tensor]


class Encoder(nn.Module, ABC):
    """F_i: turns the values of one modality into Features.

    The builder supplies the columns that feed the modality: `__init__(self, columns, *, options…)`.

    Attributes:
        reads: the column types that it can read.
        continuous: its tensor that is continuous, where it has one, with its natural bounds: where an attack may act.
        dim: width of its tokens.
        backbone: the pretrained transformers model inside, if there is one. Tunings act on it, and an artifact
            stores it in its own format beside the other weights.
        way: how the backbone is run while it rests; None as the model says.
    """

    reads: ClassVar[frozenset[str]]
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {}
    dim: int
    backbone: nn.Module | None
    way: Way | None = None

    def __init__(self) -> None:
        super().__init__()
        # On the instance: a default on the class would hide the module that torch keeps under this name.
        self.backbone = None

    @abstractmethod
    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Turn values into tensors on the CPU, batch first.

        A value holds one decoded cell for each column, None where a cell is missing; an absent value is None, and
        gets any well-formed placeholder. Ragged tensors are padded on the right: where the result has a bool
        `mask` (batch, length), every other tensor (batch, length, …) of the same length may be cut or padded there.
        """

    @abstractmethod
    def forward(self, *args: Any, **tensors: Any) -> Features:
        """Encode prepared tensors, each under its name.

        A row's Features depend on that row alone, and not on its padding.
        """

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which entries of the continuous tensor are of a value, and not padding: bool of its shape.

        Args:
            tensors: prepared.
        """
        raise TypeError(f"{type(self).__name__} does not say what of its input may be altered")

    def embedded(self, tensors: Tensors) -> Tensor | None:
        """Return the embeddings of tokens, (batch, n, width); None where it has none.

        To them `forward` adds a tensor of that shape that is given as `shift`.

        Args:
            tensors: prepared.
        """
        return None

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return values from which `prepare` gives these tensors again: its inverse in the continuous tensor.

        Args:
            tensors: prepared, but for the continuous tensor, which may have been altered where that is possible.
            values: that they were prepared from; what the tensors do not tell is taken from there.
        """
        raise TypeError(f"{type(self).__name__} does not turn its input back into values")

    def preparation(self) -> dict[str, Any]:
        """Return, as JSON values, all that `prepare` and `forward` depend on beside the value and the weights."""
        return {}

    def save_backbone(self, folder: Path) -> None:
        """Write the backbone and its tokenizer or processor to a folder that can be given as `checkpoint`."""
        raise TypeError(f"{type(self).__name__} has no backbone to save")

    def part(self, layers: int) -> None:
        """Part the backbone below its last layers, for those alone to be trained; what lies below them then rests.

        Args:
            layers: number of last layers of the backbone.
        """

    def lower(self) -> Encoder | None:
        """Return what lies below the place where it was parted, as an encoder that never changes.

        A batch may then hold, in place of what `prepare` gives, HIDDEN and `mask`: tokens and mask of its Features.
        None where the encoder was not parted, or where the layers above need more than that.
        """
        return None

    def resume(self, hidden: Tensor, mask: Tensor) -> Features:
        """Go on from the Features of `lower`: what `forward` returns for the same values.

        Args:
            hidden: their tokens, (batch, tokens, width of `lower`).
            mask: (batch, tokens) bool.
        """
        raise TypeError(f"{type(self).__name__} cannot be parted")


class Fusion(nn.Module, ABC):
    """M_O: turns the Features of all modalities into one Features.

    The builder supplies the width of each modality: `__init__(self, dims: Mapping[str, int], *, options…)`.
    Its answer does not depend on what stands in the slot of an absent modality.

    Attributes:
        needs: "tokens" when it reads them, "pooled" when the pooled vectors are enough.
        dim: width of the fused tokens.
    """

    needs: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    dim: int

    @abstractmethod
    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        """Fuse. present: (batch, modalities) bool, in the order of `dims`."""

    def with_penalty(
        self, features: Mapping[str, Features], present: Tensor, loss: LossOf
    ) -> tuple[Features, Tensor | None]:
        """Fuse, in training, and return a scalar that is added to the loss; None where the fusion asks for nothing.

        Args:
            features: of each modality.
            present: (batch, modalities) bool, in the order of `dims`.
            loss: of the head, for any Features of the fusion's width: a fusion may ask it of its parts.
        """
        fused: Features = self(features, present)
        return fused, None


class Head(nn.Module, ABC):
    """Y: turns the fused Features into the answer of one task.

    The builder supplies the width of the fused features and the target: `__init__(self, dim, target, *, options…)`.

    Attributes:
        task: the task it answers.
        metrics: names of its default metrics; the first one decides when training stops.
    """

    task: ClassVar[str]
    metrics: tuple[str, ...]

    @abstractmethod
    def encode(self, answers: Sequence[Any]) -> Tensor:
        """Turn answers, as they stand in a table, into a tensor for `loss`."""

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Return the raw output (batch, …)."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over the batch, a scalar."""

    def truth(self, target: Tensor) -> Tensor:
        """Return an encoded target in the unit of `scores`, for metrics."""
        return target

    @abstractmethod
    def scores(self, output: Tensor) -> Tensor:
        """Return what metrics read: probabilities (batch, classes), or values in the target's own unit (batch,)."""

    def unscored(self, scores: Tensor) -> Tensor:
        """Return raw output (batch, …) that gives these scores.

        Raises:
            InputError: the task has none.
        """
        raise InputError(f"{self.task}: raw outputs do not follow from scores; ask a model of one target")

    def mixed(self, outputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Return the raw output (batch, …) whose scores are the weighted mean of those of several raw outputs.

        Raises:
            InputError: the task has none.
        """
        raise InputError(f"{self.task}: raw outputs of several models have no mean; ask a model of one target")

    @abstractmethod
    def decode(self, scores: Tensor) -> list[Any]:
        """Return the answers, as they would stand in a table."""

    @abstractmethod
    def prior(self) -> Tensor:
        """Return the scores of a row about which nothing is known, from the training rows: one row of `scores`."""


class Tuning(ABC):
    """Which weights of one encoder move."""

    #: True when nothing moves.
    frozen: ClassVar[bool] = False
    #: Learning rate of the backbone; None where that of the training holds.
    learning_rate: float | None = None

    @abstractmethod
    def apply(self, encoder: Encoder) -> None:
        """Set which of the encoder's weights are trained, adding weights where the method brings its own.

        Raises:
            InputError: the encoder is not one that this method can tune.
        """

    def save(self, encoder: Encoder, folder: Path) -> bool:
        """Write the weights that the method added to a folder, in the method's own format; False if there are none."""
        return False

    def restore(self, encoder: Encoder, folder: Path) -> None:
        """Like `apply`, with the added weights read from what `save` wrote."""
        self.apply(encoder)

    def merge(self, encoder: Encoder) -> bool:
        """Fold what the method added into the backbone's own weights: same answers, from the plain model.

        Returns:
            Whether the backbone is the plain model now; False, and nothing changed, where the method cannot be folded.
        """
        return True

    def cached(self, encoder: Encoder) -> Encoder | None:
        """Return the encoder whose Features never change, so that they can be computed once and kept.

        That is the encoder itself where nothing moves, its lower part where that rests, or None.
        """
        return encoder if self.frozen else None

    def rates(self, encoder: Encoder) -> Mapping[nn.Parameter, float]:
        """Return the learning rates of the encoder's weights that have their own."""
        if encoder.backbone is None or self.learning_rate is None:
            return {}
        return dict.fromkeys(encoder.backbone.parameters(), self.learning_rate)

    def begin(self, encoder: Encoder, updates: int) -> None:
        """Take note that training begins, or goes on. updates: how many there will have been when it is over."""
        return

    def penalty(self, encoder: Encoder) -> Tensor | None:
        """Return a scalar that is added to the loss in training; None where the method asks for nothing."""
        return None

    def updated(self, encoder: Encoder, update: int) -> None:
        """Take note of an update: after the optimizer's step, while the gradients still stand. update: from 1."""
        return
