"""Corruptions of recordings."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from polyfuse.core.types import Sound
from polyfuse.data.augmentation.contract import Other
from polyfuse.data.corruption.contract import Corruption, P

Samples: TypeAlias = NDArray[np.float64]

_HARMONICS = 6
_VOICES = 3
# Seconds of a packet of speech, and the highest frequency in Hz that speech needs.
_PACKET = 0.03
_SPEECH = 8000.0


class SoundCorruption(Corruption[P]):
    """What corruptions of recordings share: rate and length stay, samples are cut off at ±1."""

    reads: ClassVar[frozenset[str]] = frozenset({"audio"})

    def __call__(self, cell: Any, random: np.random.Generator, other: Other) -> Sound:
        """Change a recording."""
        sound: Sound = cell
        if len(sound.samples) == 0:
            return sound
        changed = self.change(sound.samples.astype(np.float64), sound.rate, random, other)
        return Sound(np.clip(changed, -1, 1).astype(np.float32), sound.rate)

    @abstractmethod
    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Return changed samples (samples,). samples: at least one, in [-1, 1]."""


class AddedCorruption(SoundCorruption[float]):
    """What is added: x' = x + a n, the noise n at a ratio of powers mean x² / mean (a n)². Setting: it, in decibels.

    Silence stays silent.
    """

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Add noise."""
        noise = self.noise(len(samples), rate, random, other)
        power = _power(noise)
        if power == 0:
            return samples
        return samples + math.sqrt(_power(samples) / power) * 10 ** (-self.setting / 20) * noise

    @abstractmethod
    def noise(self, length: int, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Return what is added, at any level, zeros where there is nothing: (length,)."""


class WhiteNoiseCorruption(AddedCorruption):
    """White Gaussian noise. Setting: the ratio of the signal's power to that of the noise, in decibels."""

    settings = (30.0, 22.0, 15.0, 8.0, 2.0)

    def noise(self, length: int, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Return white noise."""
        return random.standard_normal(length)


class PinkNoiseCorruption(AddedCorruption):
    """Noise whose power falls as 1 / f, as of rain or machines. Setting: the ratio of the powers, in decibels."""

    settings = (28.0, 20.0, 13.0, 6.0, 0.0)

    def noise(self, length: int, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Return pink noise."""
        white = random.standard_normal(length)
        return _filtered(white, rate, lambda hertz: np.where(hertz > 0, hertz, np.inf) ** -0.5)


class HumCorruption(AddedCorruption):
    """Mains hum: a tone of 50 or 60 Hz and its harmonics k with amplitudes 1 / k. Setting: the ratio, in decibels."""

    settings = (28.0, 20.0, 13.0, 6.0, 0.0)

    def noise(self, length: int, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Return a hum."""
        mains = (50, 60)[random.integers(2)]
        total = np.zeros(length)
        for harmonic, phase in enumerate(random.uniform(0, 2 * math.pi, _HARMONICS), 1):
            if mains * harmonic < rate / 2:
                total += np.sin(2 * math.pi * mains * harmonic / rate * np.arange(length) + phase) / harmonic
        return total


class BabbleCorruption(AddedCorruption):
    """Up to three recordings of other rows at once, all equally loud. Setting: the ratio of the powers, in decibels."""

    settings = (24.0, 17.0, 11.0, 6.0, 1.0)

    def noise(self, length: int, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Return voices, each begun at random and over again at its end, at this rate."""
        total = np.zeros(length)
        for _ in range(_VOICES):
            voice: Sound | None = other()
            if voice is None or not voice.samples.any():
                continue
            samples, count = voice.samples.astype(np.float64), len(voice.samples)
            times = random.uniform(0, count) + np.arange(length) * (voice.rate / rate)
            total += np.interp(times, np.arange(count), samples, period=count) / math.sqrt(_power(samples))
        return total


class ClippingCorruption(SoundCorruption[float]):
    """An overdriven amplifier: cut off at ± k times the root of mean x². Setting: k."""

    settings = (2.0, 1.3, 0.8, 0.5, 0.3)

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Cut off."""
        limit = self.setting * math.sqrt(_power(samples))
        return np.clip(samples, -limit, limit)


class LowpassCorruption(SoundCorruption[float]):
    """A thick wall or an old line: |H(f)|² = 1 / (1 + (f / c)^16), a Butterworth filter without its delay.

    Setting: the cut-off c as a share of the highest frequency, of 8 kHz where that is less.
    """

    settings = (0.7, 0.48, 0.33, 0.22, 0.13)

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Muffle."""
        cutoff = self.setting * min(rate / 2, _SPEECH)
        return _filtered(samples, rate, lambda hertz: (1 + (hertz / cutoff) ** 16) ** -0.5)


class ReverbCorruption(SoundCorruption[tuple[float, float]]):
    """A large room: the sound and a tail of noise that decays by 60 dB in T seconds, at the power it had.

    Setting: T, and the ratio of the tail's energy to that of the direct sound, in decibels.
    """

    settings = ((0.2, -12.0), (0.35, -7.0), (0.6, -3.0), (1.0, 1.0), (1.6, 5.0))

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Reverberate."""
        seconds, ratio = self.setting
        count = min(round(seconds * rate), len(samples) - 1)
        if count < 1:
            return samples
        tail = random.standard_normal(count) * 10 ** (-3 * np.arange(count) / (seconds * rate))
        tail *= 10 ** (ratio / 20) / np.linalg.norm(tail)
        heard = signal.fftconvolve(samples, np.concatenate([[1.0], tail]))[: len(samples)]
        power = _power(heard)
        return heard * math.sqrt(_power(samples) / power) if power else samples


class DropoutsCorruption(SoundCorruption[float]):
    """Lost packets of 30 ms, a twentieth of a recording at most, silent. Setting: their share."""

    settings = (0.03, 0.07, 0.13, 0.22, 0.33)

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Lose packets."""
        packet = max(1, min(round(_PACKET * rate), len(samples) // 20))
        lost = random.random(math.ceil(len(samples) / packet)) < self.setting
        return np.where(np.repeat(lost, packet)[: len(samples)], 0.0, samples)


class SpeedCorruption(SoundCorruption[float]):
    """Played faster or slower by a factor 1 + s, linear between samples; cut, or silent, at the end. Setting: s."""

    settings = (0.03, 0.07, 0.12, 0.18, 0.26)

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Play."""
        faster, times = 1 + self.setting, np.arange(len(samples))
        factor = faster if random.random() < 0.5 else 1 / faster
        played: Samples = np.interp(times * factor, times, samples, right=0.0)
        return played


class QuantisationCorruption(SoundCorruption[int]):
    """Few bits: x' = q round(x / q), with the step q = peak · 2^(1 - bits). Setting: the bits."""

    settings = (8, 6, 5, 4, 3)

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Round."""
        step = np.abs(samples).max() * 2.0 ** (1 - self.setting)
        return np.rint(samples / step) * step if step else samples


class GainDownCorruption(SoundCorruption[float]):
    """Recorded too softly, in 16 bits: x' = round(2^15 g x) / 2^15. Setting: the loss, -20 log10 g, in decibels."""

    settings = (6.0, 12.0, 20.0, 30.0, 42.0)

    def change(self, samples: Samples, rate: int, random: np.random.Generator, other: Other) -> Samples:
        """Soften."""
        return np.rint(2.0**15 * 10 ** (-self.setting / 20) * samples) / 2.0**15


def _power(samples: Samples) -> float:
    return float(np.mean(samples**2))


def _filtered(samples: Samples, rate: int, gain: Callable[[Samples], Samples]) -> Samples:
    """Return samples with each of their frequencies (in Hz) at another level."""
    hertz: Samples = np.fft.rfftfreq(len(samples), 1 / rate).astype(np.float64)
    return np.fft.irfft(np.fft.rfft(samples) * gain(hertz), len(samples))
