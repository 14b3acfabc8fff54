"""Log-mel spectrograms in torch, so that gradients reach the waveform."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def hertz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 2595 log10(1 + f / 700) (O'Shaughnessy 1987; the scale of HTK).

    >>> float(hertz_to_mel(np.array([1000.0])).round(1)[0])
    1000.0
    """
    mel: NDArray[np.float64] = 2595.0 * np.log10(1.0 + hertz / 700.0)
    return mel


def mel_to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 700 (10^(m / 2595) - 1)."""
    hertz: NDArray[np.float64] = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return hertz


def mel_filters(rate: int, fft: int, mels: int) -> Tensor:
    """Return triangular filters of height 1, equally spaced in mel from 0 to rate / 2: (mels, fft // 2 + 1)."""
    top = hertz_to_mel(np.array([rate / 2]))[0]
    edges = mel_to_hertz(np.linspace(0.0, top, mels + 2))
    bins = np.linspace(0.0, rate / 2, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))


def power_spectrum(waves: Tensor, window: Tensor, fft: int, hop: int) -> Tensor:
    """Return |STFT|², frames centred on multiples of the hop, ends reflected.

    Args:
        waves: (batch, samples), more than fft / 2 samples.
        window: (at most fft,).
        fft: samples of a transform; the window is padded with zeros to it.
        hop: samples from one frame to the next.

    Returns:
        (batch, fft // 2 + 1, 1 + samples // hop).
    """
    found = torch.stft(waves, fft, hop, len(window), window, center=True, pad_mode="reflect", return_complex=True)
    return found.real.square() + found.imag.square()
