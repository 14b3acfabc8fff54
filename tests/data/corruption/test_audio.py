"""Corruptions of recordings: measured in the result, they are what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from polyfuse.core.types import Sound
from polyfuse.data.corruption import CORRUPTIONS, corruptions_for
from polyfuse.data.schema import Column

COLUMN = Column(name="voice", type="audio")
RATE = 16_000
SEVERITIES = (1, 3, 5)
Samples = NDArray[np.float64]


def damaged(
    name: str, samples: Any, severity: int, seed: int = 0, rate: int = RATE, other: Callable[[], Any] = lambda: None
) -> tuple[Samples, Any]:
    """Return what becomes of samples, and the setting."""
    corruption = CORRUPTIONS.build(name, {"severity": severity}, COLUMN)
    found = corruption(Sound(samples.astype(np.float32), rate), np.random.default_rng(seed), other)
    return found.samples.astype(np.float64), corruption.setting


def tone(hertz: float, level: float = 0.1, length: int = RATE, rate: int = RATE) -> Samples:
    return level * np.sin(2 * np.pi * hertz * np.arange(length) / rate)


def hiss(level: float = 0.1, length: int = RATE, seed: int = 0) -> Samples:
    return (level * np.random.default_rng(seed).standard_normal(length)).clip(-1, 1)


def power(samples: Samples) -> float:
    return float(np.mean(samples**2))


def decibels(ratio: Any) -> Any:
    return 10 * np.log10(ratio)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["white_noise", "pink_noise", "hum", "babble"])
def test_what_is_added_has_the_ratio_that_was_asked_for(name: str, severity: int) -> None:
    before = tone(440)
    found, ratio = damaged(name, before, severity, other=lambda: Sound(hiss(0.3, 5000).astype(np.float32), 8000))
    assert decibels(power(before) / power(found - before)) == pytest.approx(ratio, abs=0.02)


def test_white_noise_is_flat_and_pink_noise_falls_by_3_decibels_an_octave() -> None:
    slopes = []
    for name in ("white_noise", "pink_noise"):
        added = damaged(name, tone(440, length=8 * RATE), 3)[0] - tone(440, length=8 * RATE)
        hertz, density = signal.welch(added, RATE, nperseg=4096)
        inside = (hertz > 40) & (hertz < 7900)
        slopes.append(np.polyfit(np.log2(hertz[inside]), decibels(density[inside]), 1)[0])
    assert slopes == [pytest.approx(0, abs=0.1), pytest.approx(-3.01, abs=0.1)]


def test_hum_is_of_the_mains_and_its_harmonics() -> None:
    found = set()
    for seed in range(8):
        added = damaged("hum", tone(440), 3, seed)[0] - tone(440)
        levels = np.abs(np.fft.rfft(added))
        peaks = np.flatnonzero(levels > 0.1 * levels.max())
        assert levels[peaks] / levels[peaks[0]] == pytest.approx(1 / np.arange(1, 7), rel=0.01)
        found.add(tuple(peaks.tolist()))
    assert found == {tuple(range(mains, 6 * mains + 1, mains)) for mains in (50, 60)}


def test_babble_is_of_up_to_three_other_recordings_each_equally_loud() -> None:
    voices = [tone(hertz, level, 4000, 8000) for hertz, level in ((300, 0.9), (500, 0.01), (800, 0.1))]
    queue = [Sound(voice.astype(np.float32), 8000) for voice in voices]
    added = damaged("babble", tone(1234), 5, other=lambda: queue.pop())[0] - tone(1234)
    assert queue == []
    levels = np.abs(np.fft.rfft(added))
    assert levels[[300, 500, 800]] == pytest.approx(levels[300], rel=0.05)
    assert sorted(np.argsort(levels)[-3:].tolist()) == [300, 500, 800]


def test_babble_leaves_out_rows_without_a_recording() -> None:
    before = tone(440)
    for nothing in (None, Sound(np.zeros(0, dtype=np.float32), RATE), Sound(np.zeros(9, dtype=np.float32), RATE)):
        assert damaged("babble", before, 5, other=lambda: nothing)[0] == pytest.approx(before, abs=1e-7)  # noqa: B023


@pytest.mark.parametrize("severity", SEVERITIES)
def test_clipping_cuts_off_at_a_multiple_of_the_level(severity: int) -> None:
    before = hiss(0.1)
    found, ratio = damaged("clipping", before, severity)
    limit = ratio * power(before) ** 0.5
    assert found == pytest.approx(np.sign(before) * np.minimum(np.abs(before), limit), abs=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_lowpass_takes_a_tone_above_its_band_and_leaves_one_below(severity: int, rate: int) -> None:
    # A long fade in and out, so that no tone begins with a click.
    fade = np.hanning(rate)
    cutoff = damaged("lowpass", tone(1), severity)[1] * min(rate / 2, 8000)
    for hertz, gain in ((0.5 * cutoff, 1.0), (cutoff, 0.5**0.5), (1.4 * cutoff, (1 + 1.4**16) ** -0.5)):
        before = fade * tone(hertz, length=rate, rate=rate)
        found, _ = damaged("lowpass", before, severity, rate=rate)
        assert found == pytest.approx(gain * before, abs=0.002)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_reverb_decays_by_60_decibels_in_its_time(severity: int) -> None:
    click = np.zeros(3 * RATE)
    click[0] = 0.9
    found, (seconds, ratio) = damaged("reverb", click, severity)
    direct, tail = found[0], found[1:]
    assert power(found) == pytest.approx(power(click), rel=0.001), "at the power it had"
    assert decibels(np.sum(tail**2) / direct**2) == pytest.approx(ratio, abs=0.1)
    blocks = decibels(np.mean(tail[: 800 * 50].reshape(50, 800) ** 2, axis=1) + 1e-20)
    times = (np.arange(50) + 0.5) * 800 / RATE
    early = times < 0.6 * seconds
    assert np.polyfit(times[early], blocks[early], 1)[0] == pytest.approx(-60 / seconds, rel=0.15)
    assert np.abs(tail[round(1.01 * seconds * RATE) :]).max() < 1e-6


@pytest.mark.parametrize("severity", SEVERITIES)
def test_dropouts_lose_their_share_in_packets(severity: int) -> None:
    before = hiss(length=20 * RATE)
    found, share = damaged("dropouts", before, severity)
    packets = found[: 600 * 480].reshape(600, 480)
    lost = ~packets.any(1)
    assert lost.mean() == pytest.approx(share, rel=0.4)
    assert np.array_equal(packets[~lost], before.astype(np.float32)[: 600 * 480].reshape(600, 480)[~lost])


def test_a_short_recording_loses_a_twentieth_at_a_time() -> None:
    found, _ = damaged("dropouts", hiss(length=200), 5)
    assert 0 < np.sum(found == 0) < 140
    assert np.sum(found == 0) % 10 == 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_speed_moves_a_tone_either_way(severity: int) -> None:
    found = set()
    for seed in range(10):
        samples, more = damaged("speed", tone(1000), severity, seed)
        found.add(int(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(RATE))))))
    assert sorted(found) == pytest.approx([1000 / (1 + more), 1000 * (1 + more)], abs=2)


def test_speed_is_cut_or_silent_at_the_end() -> None:
    # From 0.1 to 0.2: what is heard last tells how far it came.
    before = np.linspace(0.1, 0.2, 1000)
    ends = sorted({round(float(damaged("speed", before, 5, seed)[0][-1]), 3) for seed in range(10)})
    assert ends == [0.0, pytest.approx(0.1 + 0.1 / 1.26, abs=0.002)]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_quantisation_leaves_the_levels_of_its_bits(severity: int) -> None:
    before = hiss(0.05)
    found, bits = damaged("quantisation", before, severity)
    step = np.abs(before).max() / 2 ** (bits - 1)
    assert np.abs(found / step - np.round(found / step)).max() < 1e-3
    assert np.abs(found - before).max() <= step / 2 * 1.001
    assert np.abs(found).max() == pytest.approx(np.abs(before).max(), rel=1e-6)
    assert len(np.unique(np.round(found / step))) <= 2**bits + 1
    # Rounding errors are even over a step: the mean square is a twelfth of its own.
    assert power(found - before) == pytest.approx(step**2 / 12, rel=0.1)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gain_goes_down_and_16_bits_are_left(severity: int) -> None:
    before = hiss(0.2)
    found, loss = damaged("gain_down", before, severity)
    assert decibels(power(before) / power(found)) == pytest.approx(loss, abs=0.01)
    assert np.array_equal(found * 2**15, np.round(found * 2**15))


@pytest.mark.parametrize("name", corruptions_for([COLUMN]))
def test_silence_stays_silent(name: str) -> None:
    voice = Sound(hiss().astype(np.float32), RATE)
    assert not damaged(name, np.zeros(1000), 5, other=lambda: voice)[0].any()


def test_loud_recordings_are_cut_off_at_full_scale() -> None:
    found, _ = damaged("white_noise", np.sign(tone(440)), 5)
    assert (found.min(), found.max()) == (-1, 1)
