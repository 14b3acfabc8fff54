"""Sound, by a pretrained audio model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Le
from torch import Tensor

from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Sound, Tensors
from polyfuse.data.media import resample
from polyfuse.data.schema import Column
from polyfuse.encoders.audio_fronts import AST, Front, Waveform, Whisper
from polyfuse.encoders.pretrained import PretrainedEncoder, load_companion, load_model
from polyfuse.encoders.restoring import sound_of

_FRONTS: dict[str, type[Front]] = {
    "Wav2Vec2FeatureExtractor": Waveform,
    "WhisperFeatureExtractor": Whisper,
    "ASTFeatureExtractor": AST,
}


class AudioTransformerEncoder(PretrainedEncoder):
    """A transformers audio encoder: wav2vec 2.0, HuBERT and what reads waveforms like them, Whisper's encoder, AST.

    What the model's feature extractor does is done in `forward`, so that gradients reach the waveform.
    `prepare` gives `waves` (batch, samples) float in [-1, 1] at the model's rate, and `mask` (batch, samples) bool.

    Args:
        columns: audio columns that feed it; several recordings of a row follow each other.
        checkpoint: hub name or local folder.
        max_seconds: longer recordings are cut there, and where the model itself ends.

    Raises:
        InputError: the checkpoint cannot be loaded, or its features are of another kind.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"audio"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {"waves": (-1.0, 1.0)}

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        checkpoint: str = "facebook/wav2vec2-base-960h",
        max_seconds: Annotated[float, Gt(0), Le(600)] = 20.0,
    ) -> None:
        super().__init__()
        self.companion = load_companion("AutoFeatureExtractor", checkpoint)
        self.backbone, self._prefix = load_model(checkpoint, "audio_config")
        kind = type(self.companion).__name__
        if kind not in _FRONTS:
            raise InputError(
                f"checkpoint={checkpoint!r} needs {kind}; audio_transformer has {', '.join(sorted(_FRONTS))}: give a"
                " wav2vec2, HuBERT, Whisper or AST model"
            )
        self.front = _FRONTS[kind](self.companion, self.backbone.config)
        self.rate = int(self.companion.sampling_rate)
        self.most = min(round(max_seconds * self.rate), self.front.most)
        self.dim = self.front.dim

    @property
    def even(self) -> bool:
        """Whether an exported graph of it takes rows of one length only."""
        return isinstance(self.front, Waveform) and not self.front.paddable

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Resample, cut, and pad what is too short for one token."""
        rows = []
        for value in values:
            parts = [resample(sound.samples, sound.rate, self.rate) for sound in value or () if sound is not None]
            wave = np.concatenate(parts)[: self.most] if parts else np.zeros(0, dtype=np.float32)
            rows.append(np.pad(wave.clip(-1, 1), (0, max(0, self.front.least - len(wave)))))
        longest = max([self.front.least, *map(len, rows)])
        waves = torch.zeros(len(rows), longest)
        for i, row in enumerate(rows):
            waves[i, : len(row)] = torch.from_numpy(row)
        lengths = torch.tensor([len(row) for row in rows])
        return {"waves": waves, "mask": torch.arange(longest) < lengths[:, None]}

    def forward(self, waves: Tensor, mask: Tensor) -> Features:
        """waves: (batch, samples) in [-1, 1], mask: (batch, samples) bool."""
        features: Features = self.front(self.backbone, waves, mask)
        return features

    def forward_lower(self, waves: Tensor, mask: Tensor) -> Features:
        """Return the hidden states at the cut. waves: (batch, samples) in [-1, 1], mask: (batch, samples) bool."""
        assert self._cut is not None
        cut = self._cut

        def read(**tensors: Tensor | None) -> Any:
            model, inputs = cut.lower(self.backbone)
            output = model(**tensors)
            output.last_hidden_state = inputs[-1].float()
            return output

        features: Features = self.front(read, waves, mask)
        return features

    def resume(self, hidden: Tensor, mask: Tensor) -> Features:
        """Go on above the cut. hidden: (batch, tokens, width of `lower`), mask: (batch, tokens) bool."""
        assert self._cut is not None
        cut = self._cut
        return self.front.resume(lambda states: cut.upper(self.backbone, states)[0], hidden, mask)

    def examples(self) -> list[tuple[Any, ...]]:
        """Return two recordings of different lengths."""
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * self.front.least).astype(np.float32)
        return [(Sound(noise, self.rate),), (Sound(noise[: 2 * self.front.least], self.rate),)]

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which samples are of a recording."""
        return tensors["mask"]

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return recordings at the model's rate."""
        pairs = zip(tensors["waves"], tensors["mask"], values, strict=True)
        return [sound_of(wave[: int(mask.sum())], self.rate, value) for wave, mask, value in pairs]

    def preparation(self) -> dict[str, Any]:
        """Return rate, length, and what the feature extractor does."""
        known = {key: value for key, value in self.companion.to_dict().items() if key != "mel_filters"}
        return {"rate": self.rate, "most": self.most, "features": {key: str(known[key]) for key in sorted(known)}}
