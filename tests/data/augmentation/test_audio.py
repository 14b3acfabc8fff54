"""Augmentations of recordings: measured in the result, they are what was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from polyfuse.core.types import Sound
from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.data.augmentation.audio import _without_bands
from polyfuse.data.schema import Column

COLUMN = Column(name="voice", type="audio")
RATE = 16_000


def augmented(name: str, samples: NDArray[np.float32], seed: int, **options: Any) -> NDArray[np.float64]:
    built = AUGMENTATIONS.build(name, {"probability": 1.0, **options}, COLUMN)
    found = built(Sound(samples, RATE), np.random.default_rng(seed), lambda: None)
    assert isinstance(found, Sound)
    return found.samples.astype(np.float64)


def noise(level: float = 0.1, length: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    return (level * np.random.default_rng(seed).standard_normal(length)).clip(-1, 1).astype(np.float32)


def decibels(ratio: Any) -> Any:
    return 10 * np.log10(ratio)


def test_gain_is_uniform_in_decibels() -> None:
    before = noise(0.01)
    found = np.array([decibels(np.mean(augmented("gain", before, s, decibels=12.0) ** 2)) for s in range(300)])
    changed = found - decibels(np.mean(before.astype(np.float64) ** 2))
    assert np.abs(changed).max() < 12.001
    assert changed.mean() == pytest.approx(0, abs=1.6)
    assert changed.std() == pytest.approx(24 / 12**0.5, rel=0.1)


def test_gain_is_cut_off_at_full_scale() -> None:
    found = np.array([augmented("gain", noise(0.5), seed, decibels=20.0) for seed in range(10)])
    assert found.max() == 1.0
    assert found.min() == -1.0


@pytest.mark.parametrize("ratio", [0.0, 10.0, 30.0])
def test_noise_has_the_ratio_that_was_asked_for(ratio: float) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    added = augmented("noise", tone, 0, lowest=ratio, highest=ratio) - tone
    assert decibels(np.mean(tone.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(ratio, abs=0.2)
    # White, Gaussian, without a mean.
    assert added.mean() == pytest.approx(0, abs=4 * added.std() / RATE**0.5)
    assert np.mean((added / added.std()) ** 4) == pytest.approx(3, abs=0.2)
    flat = signal.welch(added, nperseg=256)[1][1:-1]
    assert flat.max() / flat.min() < 3


def test_noise_is_uniform_in_decibels() -> None:
    before = noise(0.05)
    power = np.mean(before.astype(np.float64) ** 2)
    added = [augmented("noise", before, seed, lowest=10.0, highest=30.0) - before for seed in range(200)]
    ratios = decibels(power / np.mean(np.square(added), axis=1))
    assert ratios.min() > 9.7
    assert ratios.max() < 30.3
    assert ratios.mean() == pytest.approx(20, abs=1.7)
    assert ratios.std() == pytest.approx(20 / 12**0.5, rel=0.15)


@pytest.mark.parametrize("name", ["gain", "noise", "shift", "spectrum_mask"])
def test_silence_stays_silent(name: str) -> None:
    assert not augmented(name, np.zeros(1000, dtype=np.float32), 0).any()


def test_shift_moves_and_fills_with_zeros() -> None:
    before = noise(length=1000).astype(np.float64)
    moves = []
    for seed in range(300):
        after = augmented("shift", before.astype(np.float32), seed, share=0.2)
        by = next(b for b in range(-200, 201) if after[max(0, b)] == before[max(0, -b)])
        padded = np.concatenate([np.zeros(1000), before, np.zeros(1000)])
        assert np.array_equal(after, padded[1000 - by : 2000 - by])
        moves.append(by)
    assert min(moves) < -150
    assert max(moves) > 150
    assert np.std(moves) == pytest.approx(400 / 12**0.5, rel=0.15)


def test_sound_stays_audible_though_all_of_it_would_be_lost() -> None:
    click = np.zeros(100, dtype=np.float32)
    click[-1] = 0.5
    assert all(augmented("shift", click, seed, share=0.5).any() for seed in range(20))


def test_stretches_of_time_are_silenced() -> None:
    shares = []
    for seed in range(300):
        found = augmented("spectrum_mask", noise(), seed, time_masks=1, time=0.3, frequency_masks=0)
        silent = np.flatnonzero(found == 0)
        shares.append(len(silent) / RATE)
        if len(silent):
            assert np.ptp(silent) + 1 == len(silent), "one stretch"
        kept = np.setdiff1d(np.arange(RATE), silent)
        assert np.array_equal(found[kept], noise()[kept].astype(np.float64))
    assert max(shares) < 0.301
    assert np.mean(shares) == pytest.approx(0.15, abs=0.025)


def test_several_stretches() -> None:
    found = [
        np.sum(augmented("spectrum_mask", noise(), s, time_masks=3, time=0.1, frequency_masks=0) == 0)
        for s in range(50)
    ]
    assert np.mean(found) / RATE == pytest.approx(
        0.15, abs=0.03
    )  # three times the mean of U(0, 0.1), now and then over


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_masked_bands_hold_little_energy_and_the_others_all_of_theirs(rate: int) -> None:
    start, end = 0.4, 0.6
    before = noise(length=rate)
    after = _without_bands(before, rate, [(start, end)])
    low, high = (700 * ((1 + rate / 1400) ** share - 1) for share in (start, end))  # the mel axis, solved for f
    hertz, old = signal.welch(before, rate, nperseg=1024)
    _, new = signal.welch(after, rate, nperseg=1024)
    wide = 2 * rate / 1024
    inside = (hertz > low + wide) & (hertz < high - wide)
    outside = (hertz < low - wide) | (hertz > high + wide)
    assert inside.sum() > 5
    assert decibels(new[inside].sum() / old[inside].sum()) < -20
    assert new[outside].sum() == pytest.approx(old[outside].sum(), rel=0.01)


def test_bands_have_a_width_up_to_the_share_of_the_mel_axis() -> None:
    mel = np.log1p(np.linspace(0, RATE / 2, 513) / 700) / np.log1p(RATE / 1400)
    shares = []
    for seed in range(150):
        after = augmented("spectrum_mask", noise(), seed, time_masks=0, frequency_masks=1, frequency=0.4)
        masked = signal.welch(after, nperseg=1024)[1] < 0.1 * signal.welch(noise(), nperseg=1024)[1]
        shares.append(np.ptp(mel[masked]) if masked.any() else 0.0)
    assert max(shares) < 0.41
    assert np.mean(shares) == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("length", [1, 2, 7, 255, 256, 257, 5000])
@pytest.mark.parametrize("rate", [1, 8000, 44_100])
def test_the_transform_gives_back_what_is_not_masked(length: int, rate: int) -> None:
    before = noise(length=length)
    assert _without_bands(before, rate, [(2.0, 3.0)]) == pytest.approx(before, abs=1e-6)


def test_rates_are_kept_and_bands_follow_them() -> None:
    built = AUGMENTATIONS.build("spectrum_mask", {"probability": 1.0, "time_masks": 0}, COLUMN)
    slow, fast = (built(Sound(noise(), rate), np.random.default_rng(1), lambda: None) for rate in (8000, 44_100))
    assert (slow.rate, fast.rate) == (8000, 44_100)
    assert not np.array_equal(slow.samples, fast.samples)
