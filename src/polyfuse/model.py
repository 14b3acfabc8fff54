"""FusionModel: Y = head(fusion(F_1(X_1), …, F_k(X_k))), the one function that all else trains, measures or ships."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyfuse.core.compute import Precision, autocast
from polyfuse.core.contract import Encoder, Fusion, Head
from polyfuse.core.types import Features, Inputs, Tensors


class FusionModel(nn.Module):
    """An encoder for each modality, one fusion, one head.

    Args:
        encoders: by modality, in order; two modalities may share one encoder.
        fusion: made for the encoders' widths, in the same order.
        head: made for the fusion's width.
        precision: of the pretrained backbones; everything else computes in float32.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], fusion: Fusion, head: Head, *, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.precision = precision
        self.modalities = tuple(encoders)
        unique = list(dict.fromkeys(encoders.values()))
        self._place = {name: unique.index(encoder) for name, encoder in encoders.items()}
        # A list, not a dict: a modality may bear any name, one that a torch module uses for itself too.
        self.encoders = nn.ModuleList(unique)
        self.fusion, self.head = fusion, head

    def encoder(self, modality: str) -> Encoder:
        """Return the encoder of a modality."""
        encoder = self.encoders[self._place[modality]]
        assert isinstance(encoder, Encoder)
        return encoder

    def forward(self, inputs: Inputs, present: Tensor) -> Tensor:
        """Return the head's output. present: (batch, modalities) bool, in the order of `modalities`."""
        output: Tensor = self.head(self.fusion(self.encode(inputs, present), present))
        return output

    def loss(self, inputs: Inputs, present: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of some rows in training, a scalar. target: (batch, …), as the head encodes it."""

        def of(fused: Features, rows: Tensor) -> Tensor:
            return self.head.loss(self.head(fused.rows(rows)), target[rows])

        fused, penalty = self.fusion.with_penalty(self.encode(inputs, present), present, of)
        loss = self.head.loss(self.head(fused), target)
        return loss if penalty is None else loss + penalty

    def encode(self, inputs: Inputs, present: Tensor) -> dict[str, Features]:
        """Return each modality's Features; what stands in an absent slot means nothing."""
        features = {}
        for i, name in enumerate(self.modalities):
            value = inputs[name]
            if isinstance(value, Features):
                features[name] = value
                continue
            encoder = self.encoder(name)
            with autocast(present.device, self.precision if encoder.backbone is not None else "float32"):
                encoded = _encode_present(encoder, value, present[:, i])
            features[name] = Features(encoded.tokens.float(), encoded.mask, encoded.pooled.float())
        return features

    def train(self, mode: bool = True) -> FusionModel:
        """Like torch's, but an encoder without a trained weight stays in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders:
            if not any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.eval()
        return self


def _encode_present(encoder: Encoder, tensors: Tensors, here: Tensor) -> Features:
    """Encode the rows that are present, so that placeholders cost nothing and touch no batch statistics."""
    if bool(here.all()):
        encoded: Features = encoder(**tensors)
        return encoded
    rows = here.nonzero().squeeze(1)
    batch = len(here)
    if not len(rows):
        return Features.of_pooled(torch.zeros(batch, encoder.dim, device=here.device))
    some: Features = encoder(**{key: value[rows] for key, value in tensors.items()})

    def spread(value: Tensor) -> Tensor:
        return value.new_zeros(batch, *value.shape[1:]).index_copy(0, rows, value)

    return Features(spread(some.tokens), spread(some.mask), spread(some.pooled))
