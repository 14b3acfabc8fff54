"""Augmentations of recordings."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from polyfuse.core.errors import InputError
from polyfuse.core.types import Sound
from polyfuse.data.augmentation.contract import Augmentation, Other, Probability
from polyfuse.data.schema import Column

Decibels: TypeAlias = Annotated[float, Ge(-20), Le(100)]
Masks: TypeAlias = Annotated[int, Ge(0), Le(10)]
HalfShare: TypeAlias = Annotated[float, Ge(0), Le(0.5)]
Samples: TypeAlias = NDArray[np.float32]

# A result below this share of the former peak (-80 dB) counts as silence.
_SILENT = 1e-4


class SoundAugmentation(Augmentation):
    """What augmentations of recordings share: rate and length stay, samples are cut off at ±1, sound stays audible.

    Args:
        column: that is changed.
        probability: that a recording is changed.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"audio"})

    def __init__(self, column: Column, probability: float) -> None:
        super().__init__(column)
        self.probability = probability

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Sound:
        """Change a recording."""
        sound: Sound = cell
        if random.random() >= self.probability or len(sound.samples) == 0:
            return sound
        changed = np.clip(self.change(sound.samples, sound.rate, random), -1, 1).astype(np.float32, copy=False)
        if _peak(changed) < _SILENT * _peak(sound.samples):
            return sound
        return Sound(changed, sound.rate)

    @abstractmethod
    def change(self, samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        """Return changed samples (samples,), or those given. samples: at least one, never written to."""


class GainAugmentation(SoundAugmentation):
    """Louder or softer: x' = 10^(g / 20) x, g ~ U(± decibels), cut off at ±1.

    Args:
        column: that is changed.
        probability: that a recording is changed.
        decibels: most that the level changes, either way.
    """

    def __init__(
        self, column: Column, *, probability: Probability = 0.8, decibels: Annotated[float, Ge(0), Le(60)] = 6.0
    ) -> None:
        super().__init__(column, probability)
        self.decibels = decibels

    def change(self, samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        """Scale."""
        return samples * np.float32(10 ** (self.decibels * random.uniform(-1, 1) / 20))


class NoiseAugmentation(SoundAugmentation):
    """White Gaussian noise: x' = x + n, mean n² = mean x² / 10^(r / 10), r ~ U(lowest, highest) in decibels.

    Silence stays silent.

    Args:
        column: that is changed.
        probability: that a recording is changed.
        lowest: ratio of the signal's power to that of the loudest noise, in decibels.
        highest: ratio of the signal's power to that of the softest noise, in decibels.
    """

    def __init__(
        self, column: Column, *, probability: Probability = 0.5, lowest: Decibels = 10.0, highest: Decibels = 40.0
    ) -> None:
        super().__init__(column, probability)
        if lowest > highest:
            raise InputError(f"noise: lowest={lowest} is more than highest={highest}; the lower ratio comes first")
        self.lowest, self.highest = lowest, highest

    def change(self, samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        """Add noise."""
        level = np.sqrt(np.dot(samples, samples) / len(samples))
        scale = level * 10 ** (-random.uniform(self.lowest, self.highest) / 20)
        return samples + np.float32(scale) * random.standard_normal(len(samples), dtype=np.float32)


class ShiftAugmentation(SoundAugmentation):
    """Earlier or later by up to a share of the length; what is pushed out is lost, zeros come in.

    Args:
        column: that is changed.
        probability: that a recording is changed.
        share: most that it moves, either way, as a share of its length.
    """

    def __init__(self, column: Column, *, probability: Probability = 0.5, share: HalfShare = 0.1) -> None:
        super().__init__(column, probability)
        self.share = share

    def change(self, samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        """Move."""
        by = round(len(samples) * self.share * random.uniform(-1, 1))
        moved = np.zeros_like(samples)
        moved[max(0, by) : len(samples) + min(0, by)] = samples[max(0, -by) : len(samples) - max(0, by)]
        return moved


class SpectrumMaskAugmentation(SoundAugmentation):
    """Stretches of time and bands of frequency are silenced (SpecAugment without warping, Park et al. 2019).

    The paper masks an encoder's log-mel spectrogram; here the waveform is masked, so that it serves before any encoder.
    Stretches, each ~ U(0, time) of the recording's length, are set to zero. Of bands, each ~ U(0, frequency) of the mel
    axis from 0 to half the rate (mel = 2595 log10(1 + f / 700)), the bins are set to zero in a short-time Fourier
    transform, with sine windows of about 32 ms half over each other, and the transform is inverted.

    Args:
        column: that is changed.
        probability: that a recording is changed.
        time_masks: stretches of time.
        time: widest stretch, as a share of the length.
        frequency_masks: bands of frequency.
        frequency: widest band, as a share of the mel axis.
    """

    def __init__(
        self,
        column: Column,
        *,
        probability: Probability = 0.5,
        time_masks: Masks = 2,
        time: HalfShare = 0.1,
        frequency_masks: Masks = 2,
        frequency: HalfShare = 0.15,
    ) -> None:
        super().__init__(column, probability)
        self.time_masks, self.time = time_masks, time
        self.frequency_masks, self.frequency = frequency_masks, frequency

    def change(self, samples: Samples, rate: int, random: np.random.Generator) -> Samples:
        """Mask bands, then stretches: the other way round, bands would leak into the silence."""
        masked = _without_bands(samples, rate, self._spans(self.frequency_masks, self.frequency, random))
        for start, end in self._spans(self.time_masks, self.time, random):
            masked[round(start * len(samples)) : round(end * len(samples))] = 0
        return masked

    def _spans(self, count: int, widest: float, random: np.random.Generator) -> list[tuple[float, float]]:
        """Return start and end of random parts of [0, 1]."""
        widths = random.uniform(0, widest, size=count)
        starts = random.uniform(0, 1 - widths)
        return list(zip(starts.tolist(), (starts + widths).tolist(), strict=True))


def _without_bands(samples: Samples, rate: int, bands: list[tuple[float, float]]) -> Samples:
    """Return a copy of samples without some bands, given as start and end on the mel axis from 0 to 1."""
    if not bands:
        return samples.copy()
    # A power of two, about 32 ms: fine enough for a mel band, short enough to follow speech.
    hop = 2 ** max(3, round(np.log2(0.016 * rate)))
    window = np.sin(np.pi * (np.arange(2 * hop, dtype=np.float32) + 0.5) / (2 * hop))
    mel = np.log1p(np.linspace(0, rate / 2, hop + 1) / 700) / np.log1p(rate / 1400)
    keep = np.ones(hop + 1, dtype=np.float32)
    for start, end in bands:
        keep[(mel >= start) & (mel < end)] = 0
    # With a block of zeros at each end, every sample lies in two windows, and sin² + cos² = 1 gives it back.
    blocks = np.zeros((2 - (-len(samples) // hop), hop), dtype=np.float32)
    blocks.reshape(-1)[hop : hop + len(samples)] = samples
    spectrum = np.fft.rfft(np.concatenate([blocks[:-1], blocks[1:]], axis=1) * window)
    frames = np.fft.irfft(spectrum * keep, 2 * hop) * window
    whole = np.zeros_like(blocks)
    whole[:-1] += frames[:, :hop]
    whole[1:] += frames[:, hop:]
    return whole.reshape(-1)[hop : hop + len(samples)]


def _peak(samples: Samples) -> float:
    return float(max(samples.max(), -samples.min()))
