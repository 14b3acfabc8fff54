"""Models: from the inputs of all modalities to the answer, the one function that all else trains, measures or ships."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from polyfuse.core.compute import Precision, autocast, computing, in_torch
from polyfuse.core.contract import HIDDEN, Encoder, Fusion, Head
from polyfuse.core.types import Features, Inputs, Tensors

#: Of some rows the text of each modality that has one, None where it is absent.
Texts: TypeAlias = Mapping[str, Sequence["str | None"]]

#: An order of the rows of a batch (batch,) int64, and a share.
Mix: TypeAlias = tuple[Tensor, float]


class Model(nn.Module, ABC):
    """An encoder for each modality, and what makes an answer of their Features.

    Args:
        encoders: by modality, in order; two modalities may share one encoder.
        head: of the task.
        precision: of the pretrained backbones; everything else computes in float32.

    Attributes:
        reads: modalities of which it wants the prepared tensors, or the Features.
        reads_text: modalities of which it wants the text itself.
    """

    reads: frozenset[str]
    reads_text: frozenset[str] = frozenset()

    def __init__(self, encoders: Mapping[str, Encoder], head: Head, *, precision: Precision = "float32") -> None:
        super().__init__()
        self.precision = precision
        self.modalities = tuple(encoders)
        self.reads = frozenset(encoders)
        unique = list(dict.fromkeys(encoders.values()))
        self._place = {name: unique.index(encoder) for name, encoder in encoders.items()}
        # A list, not a dict: a modality may bear any name, one that a torch module uses for itself too.
        self.encoders = nn.ModuleList(unique)
        self.head = head

    @abstractmethod
    def scores(self, inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        """Return the head's scores (batch, …), on the device of `present`.

        Args:
            inputs: of each modality in `reads` its prepared tensors, or its Features.
            present: (batch, modalities) bool, in the order of `modalities`.
            texts: of the modalities in `reads_text`.
        """

    @abstractmethod
    def outputs(self, inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        """Return the raw outputs (batch, …) that the head makes these scores of, differentiable where a member is.

        Arguments are those of `scores`.
        """

    def encoder(self, modality: str) -> Encoder:
        """Return the encoder of a modality."""
        encoder = self.encoders[self._place[modality]]
        assert isinstance(encoder, Encoder)
        return encoder

    def encode(self, inputs: Inputs, present: Tensor) -> dict[str, Features]:
        """Return each modality's Features; what stands in an absent slot means nothing."""
        return {name: self.encode_one(name, inputs[name], present) for name in self.modalities}

    def encode_one(self, modality: str, value: Features | Tensors, present: Tensor) -> Features:
        """Return the Features of one modality. present: (batch, modalities) bool."""
        if isinstance(value, Features):
            return value
        encoder = self.encoder(modality)
        way = in_torch(encoder.way, present.device) if encoder.way is not None else self.precision
        with computing(present.device, way if encoder.backbone is not None else "float32"):
            encoded = _encode_present(encoder, value, present[:, self.modalities.index(modality)])
        return Features(encoded.tokens.float(), encoded.mask, encoded.pooled.float())

    def train(self, mode: bool = True) -> Model:
        """Like torch's, but an encoder without a trained weight stays in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders:
            if not any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.eval()
        return self


class FusionModel(Model):
    """Y = head(fusion(F_1(X_1), …, F_k(X_k))).

    Args:
        encoders: by modality, in order; two modalities may share one encoder.
        fusion: made for the encoders' widths, in the same order.
        head: made for the fusion's width.
        precision: of the pretrained backbones; everything else computes in float32.

    Attributes:
        fusing: the precision in which a fusion that reads tokens is trained. With one thread bf16 is faster, with
            several it is not.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], fusion: Fusion, head: Head, *, precision: Precision = "float32"
    ) -> None:
        super().__init__(encoders, head, precision=precision)
        self.fusion = fusion
        self.fusing: Precision = "float32"

    def forward(self, inputs: Inputs, present: Tensor) -> Tensor:
        """Return the head's output. present: (batch, modalities) bool, in the order of `modalities`."""
        output: Tensor = self.head(self.fusion(self.encode(inputs, present), present))
        return output

    def scores(self, inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        """Return the head's scores (batch, …)."""
        return self.head.scores(self(inputs, present))

    def outputs(self, inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        """Return the head's output (batch, …)."""
        output: Tensor = self(inputs, present)
        return output

    def loss(
        self,
        inputs: Inputs,
        present: Tensor,
        target: Tensor,
        mix: Mix | None = None,
        objective: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the mean loss of some rows in training, a scalar.

        Args:
            inputs: of each modality its prepared tensors, or its Features.
            present: (batch, modalities) bool.
            target: (batch, …), as the head encodes it.
            mix: an order of the rows and a share λ: λ of each row's fused features and loss is its own, the rest is
                that of the row in its place.
            objective: of the head's output and the target, in place of the head's own loss; without mix.
        """

        def of(fused: Features, rows: Tensor) -> Tensor:
            return self.head.loss(self.head(fused.rows(rows)), target[rows])

        features = self.encode(inputs, present)
        # The products of a fusion that reads pooled vectors are too small to gain.
        with autocast(present.device, self.fusing if self.fusion.needs == "tokens" else "float32"):
            fused, penalty = self.fusion.with_penalty(features, present, of)
        fused = Features(fused.tokens.float(), fused.mask, fused.pooled.float())
        if mix is None:
            loss = (objective or self.head.loss)(self.head(fused), target)
        else:
            order, share = mix
            other = fused.rows(order)
            pooled = share * fused.pooled + (1 - share) * other.pooled
            tokens = share * fused.tokens + (1 - share) * other.tokens
            output = self.head(Features(tokens, fused.mask & other.mask, pooled))
            loss = share * self.head.loss(output, target) + (1 - share) * self.head.loss(output, target[order])
        return loss if penalty is None else loss + penalty


def _encode_present(encoder: Encoder, tensors: Tensors, here: Tensor) -> Features:
    """Encode the rows that are present, so that placeholders cost nothing and touch no batch statistics."""
    run = encoder.resume if HIDDEN in tensors else encoder
    if bool(here.all()):
        encoded: Features = run(**tensors)
        return encoded
    rows = here.nonzero().squeeze(1)
    batch = len(here)
    if not len(rows):
        return Features.of_pooled(torch.zeros(batch, encoder.dim, device=here.device))
    some: Features = run(**{key: value[rows] for key, value in tensors.items()})

    def spread(value: Tensor) -> Tensor:
        return value.new_zeros(batch, *value.shape[1:]).index_copy(0, rows, value)

    return Features(spread(some.tokens), spread(some.mask), spread(some.pooled))
