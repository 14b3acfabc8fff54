"""From a waveform to the tokens of a pretrained audio model: what its feature extractor does, in torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyfuse.core.types import Features
from polyfuse.encoders.spectrogram import power_spectrum


class Model(Protocol):
    """A transformers model, bare or wrapped by peft."""

    def __call__(self, **tensors: Tensor | None) -> Any:
        """Return its outputs."""


class Front(nn.Module):
    """Feeds one kind of audio model.

    Attributes:
        dim: width of the model's tokens.
        least: samples that give one token.
        most: samples that the model can take.
    """

    dim: int
    least: int
    most: int

    @abstractmethod
    def forward(self, model: Model, waves: Tensor, mask: Tensor) -> Features:
        """waves: (batch, samples) in [-1, 1], mask: (batch, samples) bool."""

    def resume(self, upper: Callable[[Tensor], Any], hidden: Tensor, mask: Tensor) -> Features:
        """Go on from hidden states between two layers.

        Args:
            upper: from some rows' hidden states to the model that goes on from them, whatever else it is given.
            hidden: (batch, tokens, dim).
            mask: (batch, tokens) bool.

        Raises:
            NotImplementedError: the layers above need more than these.
        """
        raise NotImplementedError


class Waveform(Front):
    """Zero mean and unit variance over the real samples, for wav2vec 2.0, HuBERT, WavLM and their like.

    Where the model's first layer normalises over time (`feat_extract_norm="group"`), padding would change every token:
    rows of one length go through it together, without any.
    """

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.normalize = bool(extractor.do_normalize)
        self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.paddable = getattr(config, "feat_extract_norm", "group") == "layer" and not getattr(
            config, "add_adapter", False
        )
        self.dim = (getattr(config, "add_adapter", False) and config.output_hidden_size) or config.hidden_size
        self.least = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            self.least = (self.least - 1) * stride + kernel
        self.most = 1 << 31

    def forward(self, model: Model, waves: Tensor, mask: Tensor) -> Features:
        """waves: (batch, samples) in [-1, 1], mask: (batch, samples) bool."""
        lengths = mask.sum(1)
        if self.normalize:
            count = lengths.unsqueeze(1)
            centred = torch.where(mask, waves - torch.where(mask, waves, 0.0).sum(1, keepdim=True) / count, 0.0)
            waves = centred * (centred.square().sum(1, keepdim=True) / count + 1e-7).rsqrt()
        waves = torch.where(mask, waves, 0.0)
        if self.paddable:
            tokens = model(input_values=waves, attention_mask=mask.long()).last_hidden_state
            steps = torch.arange(tokens.shape[1], device=waves.device)
            return Features.of_tokens(tokens, steps < self.tokens(lengths).unsqueeze(1))
        if torch.compiler.is_exporting():  # a graph for rows of one length
            tokens = model(input_values=waves).last_hidden_state
            return Features.of_tokens(tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool))
        return _by_length(model, waves, lengths)

    def resume(self, upper: Callable[[Tensor], Any], hidden: Tensor, mask: Tensor) -> Features:
        """Go on from hidden states between two layers, past the convolutions. Shapes as above."""
        model = upper(hidden)
        if getattr(model, "adapter", None) is not None:
            raise NotImplementedError
        # Only the convolutions could not be told what is padding.
        return Features.of_tokens(model.encoder(hidden, attention_mask=mask).last_hidden_state, mask)

    def tokens(self, lengths: Tensor) -> Tensor:
        """Return how many tokens so many samples give."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths


def _by_length(model: Model, waves: Tensor, lengths: Tensor) -> Features:
    parts: list[tuple[Tensor, Tensor]] = []
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero().squeeze(1)
        parts.append((rows, model(input_values=waves[rows, :length]).last_hidden_state))
    longest = max(found.shape[1] for _, found in parts)
    order = torch.cat([rows for rows, _ in parts]).argsort()
    tokens = torch.cat([F.pad(found, (0, 0, 0, longest - found.shape[1])) for _, found in parts])[order]
    counts = torch.cat([torch.full_like(rows, found.shape[1]) for rows, found in parts])[order]
    return Features.of_tokens(tokens, torch.arange(longest, device=waves.device) < counts.unsqueeze(1))


class Whisper(Front):
    """Whisper's log-mel spectrogram (Radford et al. 2023), padded with silence to the length that the model asks for.

    Tokens are those of the recording, without those of the silence after it.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.fft, self.hop = extractor.n_fft, extractor.hop_length
        self.dim, self.least = config.d_model, 1
        # Two samples of the spectrogram make a token: the second convolution has a stride of 2.
        self.most = 2 * config.max_source_positions * self.hop
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)
        filters = torch.from_numpy(np.asarray(extractor.mel_filters, dtype=np.float32)).T.contiguous()
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, model: Model, waves: Tensor, mask: Tensor) -> Features:
        """waves: (batch, samples) in [-1, 1], mask: (batch, samples) bool."""
        waves = torch.where(mask, waves, 0.0)
        tokens = model(input_features=self.features(waves)).last_hidden_state
        counts = (mask.sum(1) + 2 * self.hop - 1) // (2 * self.hop)
        if not torch.compiler.is_exporting():  # where it is, the mask alone tells
            tokens = tokens[:, : int(counts.max())]
        return Features.of_tokens(tokens, torch.arange(tokens.shape[1], device=waves.device) < counts.unsqueeze(1))

    def features(self, waves: Tensor) -> Tensor:
        """Return the spectrogram (batch, mels, frames)."""
        waves = F.pad(waves, (0, self.most - waves.shape[1]))
        with torch.autocast(waves.device.type, enabled=False):
            power = self.filters @ power_spectrum(waves, self.window, self.fft, self.hop)[..., :-1]
            log = power.clamp(min=1e-10).log10()
            return (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class AST(Front):
    """Kaldi's log-mel filter bank, as the Audio Spectrogram Transformer wants it (Gong et al. 2021)."""

    window: Tensor
    filters: Tensor

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank

        rate = extractor.sampling_rate
        self.frame, self.hop = rate // 40, rate // 100
        self.fft = 1 << (self.frame - 1).bit_length()
        self.frames, self.dim, self.least = extractor.max_length, config.hidden_size, self.frame
        self.most = (self.frames - 1) * self.hop + self.frame
        self.normalize = bool(extractor.do_normalize)
        self.mean, self.std = float(extractor.mean), float(extractor.std)
        filters = mel_filter_bank(
            self.fft // 2 + 1,
            extractor.num_mel_bins,
            20,
            rate // 2,
            rate,
            None,
            "kaldi",
            triangularize_in_mel_space=True,
        )
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)
        self.register_buffer("window", torch.hann_window(self.frame, periodic=False), persistent=False)

    def forward(self, model: Model, waves: Tensor, mask: Tensor) -> Features:
        """waves: (batch, samples) in [-1, 1], mask: (batch, samples) bool."""
        out = model(input_values=self.features(torch.where(mask, waves, 0.0), mask.sum(1)))
        tokens = out.last_hidden_state
        real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=waves.device)
        return Features(tokens, real, out.pooler_output)

    def resume(self, upper: Callable[[Tensor], Any], hidden: Tensor, mask: Tensor) -> Features:
        """Go on from hidden states between two layers. Shapes as above."""
        placeholder = hidden.new_zeros(1, self.frames, self.filters.shape[1]).expand(len(hidden), -1, -1)
        out = upper(hidden)(input_values=placeholder)
        return Features(out.last_hidden_state, mask, out.pooler_output)

    def features(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Return the filter bank's output (batch, frames, mels); frames after a recording's end are 0 in the log."""
        frames = waves.unfold(1, self.frame, self.hop)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.fft.rfft((frames - 0.97 * before) * self.window, self.fft)
            power = spectrum.real.square() + spectrum.imag.square()
            log = (power @ self.filters).clamp(min=torch.finfo(torch.float32).eps).log()
        counts = (lengths - self.frame) // self.hop + 1
        real = torch.arange(log.shape[1], device=log.device) < counts.unsqueeze(1)
        log = F.pad(torch.where(real.unsqueeze(-1), log, 0.0), (0, 0, 0, self.frames - log.shape[1]))
        return (log - self.mean) / (2 * self.std) if self.normalize else log
