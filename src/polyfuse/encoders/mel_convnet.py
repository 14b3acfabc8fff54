"""Sound, by a small convolutional network over a log-mel spectrogram, trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.options import Depth, Share, Width
from polyfuse.core.types import Features, Tensors
from polyfuse.data.media import resample
from polyfuse.data.schema import Column
from polyfuse.encoders.residual import ResidualNet
from polyfuse.encoders.restoring import sound_of
from polyfuse.encoders.spectrogram import mel_filters, power_spectrum
from polyfuse.layers.dropout import Dropout

_WINDOW, _HOP = 0.025, 0.01  # seconds
_RANGE = 18.4  # nepers of power below the loudest cell that are kept: 80 dB


class MelConvnetEncoder(Encoder):
    """A residual network over (mel, time); tokens are steps of time.

    The spectrogram is the log of the mel power, from the loudest cell of the recording down to 80 dB below it, so that
    the volume of a recording does not count. Recordings are cut, or padded with silence, to one length.
    `prepare` gives `waves` (batch, samples) float in [-1, 1].

    Args:
        columns: audio columns that feed it; several recordings of a row follow each other.
        rate: samples a second; the training recordings' own, between 8,000 and 16,000, when left out.
        seconds: length; the 95 % quantile of the training recordings' own, at most 30, when left out.
        mels: bands of the spectrogram.
        width: channels of the first layer.
        depth: residual blocks between two halvings of the map.
        dim: width of the tokens.
        dropout: share of the tokens' entries that is zeroed in training.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"audio"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {"waves": (-1.0, 1.0)}

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        rate: Annotated[int, Ge(4000), Le(48_000)] | None = None,
        seconds: Annotated[float, Gt(0), Le(120)] | None = None,
        mels: Annotated[int, Ge(16), Le(256)] = 64,
        width: Width = 16,
        depth: Depth = 1,
        dim: Width = 128,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        rates = [column.size for column in columns if column.size]
        self.rate = rate or min(16_000, max(8_000, *rates, 0) if rates else 16_000)
        known = sum(column.duration or 0.0 for column in columns) or 1.0
        self.samples = round(self.rate * max(0.1, seconds or min(30.0, known)))
        window = round(self.rate * _WINDOW)
        self.fft, self.hop = 2 << window.bit_length(), round(self.rate * _HOP)
        self.samples = max(self.samples, self.fft)
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(self.rate, self.fft, mels), persistent=False)
        self.net = ResidualNet(1, (mels, 1 + self.samples // self.hop), width=width, depth=depth)
        # A band keeps its place: the sum over bands has weights for each, where a mean would forget the pitch.
        self.collapse = nn.Linear(self.net.dim * self.net.cells[0], dim)
        self.dropout = Dropout(dropout)
        self.dim = dim

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Resample, cut and pad."""
        waves = np.zeros((len(values), self.samples), dtype=np.float32)
        for i, value in enumerate(values):
            parts = [resample(sound.samples, sound.rate, self.rate) for sound in value or () if sound is not None]
            if parts:
                wave = np.concatenate(parts)[: self.samples]
                waves[i, : len(wave)] = wave.clip(-1, 1)
        return {"waves": torch.from_numpy(waves)}

    def forward(self, waves: Tensor) -> Features:
        """waves: (batch, samples) in [-1, 1]."""
        cells = self.net(self.spectrogram(waves).unsqueeze(1))
        steps = torch.relu(self.collapse(cells.flatten(1, 2).transpose(1, 2)))
        mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
        return Features.of_tokens(self.dropout(steps), mask)

    def spectrogram(self, waves: Tensor) -> Tensor:
        """Return the log-mel spectrogram in [-1, 1]: (batch, mels, frames)."""
        power = self.filters @ power_spectrum(waves, self.window, self.fft, self.hop)
        log = torch.log(power + 1e-10)
        loudest = log.amax((1, 2), keepdim=True)
        return (log - loudest).clamp(min=-_RANGE) * (2 / _RANGE) + 1

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which samples are not the silence at the end, which may be padding."""
        waves = tensors["waves"]
        return (waves != 0).flip(1).cummax(1).values.flip(1)

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return recordings of the rate and length that the network reads."""
        return [sound_of(wave, self.rate, value) for wave, value in zip(tensors["waves"], values, strict=True)]

    def preparation(self) -> dict[str, Any]:
        """Return rate, length and bands."""
        return {"rate": self.rate, "samples": self.samples, "mels": len(self.filters)}
