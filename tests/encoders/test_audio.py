from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel
from transformers.audio_utils import mel_filter_bank

from polyfuse.core.errors import InputError
from polyfuse.core.types import Sound
from polyfuse.data.schema import Column
from polyfuse.encoders.audio_transformer import AudioTransformerEncoder
from polyfuse.encoders.mel_convnet import MelConvnetEncoder
from polyfuse.encoders.spectrogram import mel_filters, power_spectrum

VOICE = [Column(name="voice", type="audio", size=16_000, duration=0.3)]
Find = Callable[[str], str]


def sound(samples: int, rate: int = 16_000, seed: int = 0) -> Sound:
    noise = np.random.default_rng(seed).normal(size=samples)
    return Sound((0.2 * noise).clip(-1, 1).astype(np.float32), rate)


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_layer", "hubert"])
def test_waveform_models_answer_as_in_transformers(name: str, tiny_model: Find) -> None:
    folder = tiny_model(name)
    encoder = AudioTransformerEncoder(VOICE, checkpoint=folder).eval()
    extractor, model = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    sounds = [sound(1000), sound(1777, seed=1)]
    found = encoder(**encoder.prepare([(each,) for each in sounds]))
    for row, each in enumerate(sounds):
        inputs = extractor(each.samples, sampling_rate=16_000, return_tensors="pt")
        expected = model(inputs["input_values"]).last_hidden_state[0]
        torch.testing.assert_close(found.tokens[row][found.mask[row]], expected, rtol=1e-4, atol=1e-4)


def test_whisper_features_are_those_of_its_extractor(tiny_model: Find) -> None:
    folder = tiny_model("whisper")
    encoder = AudioTransformerEncoder(VOICE, checkpoint=folder).eval()
    wave = sound(7000)
    expected = AutoFeatureExtractor.from_pretrained(folder)(wave.samples, sampling_rate=16_000, return_tensors="pt")
    found = encoder.front.features(torch.from_numpy(wave.samples)[None])
    assert (found - expected["input_features"]).abs().max() < 1e-4
    features = encoder(**encoder.prepare([(wave,), (sound(320),)]))
    assert features.mask.sum(1).tolist() == [22, 1]
    model = AutoModel.from_pretrained(folder).eval().get_encoder()
    tokens = model(expected["input_features"]).last_hidden_state[:, :22]
    torch.testing.assert_close(features.tokens[:1], tokens, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("samples", [400, 5000, 20_000])
def test_ast_features_are_those_of_its_extractor(samples: int, tiny_model: Find) -> None:
    folder = tiny_model("ast")
    encoder = AudioTransformerEncoder(VOICE, checkpoint=folder).eval()
    wave = sound(samples)
    expected = AutoFeatureExtractor.from_pretrained(folder)(wave.samples, sampling_rate=16_000, return_tensors="pt")
    tensors = encoder.prepare([(wave,)])
    found = encoder.front.features(tensors["waves"], tensors["mask"].sum(1))
    assert (found - expected["input_values"]).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_layer", "hubert", "whisper", "ast"])
def test_a_saved_backbone_is_a_checkpoint(name: str, tiny_model: Find, tmp_path: Path) -> None:
    first = AudioTransformerEncoder(VOICE, checkpoint=tiny_model(name)).eval()
    values = [(sound(900),), (sound(2000, 8000),)]
    first.save_backbone(tmp_path)
    second = AudioTransformerEncoder(VOICE, checkpoint=str(tmp_path)).eval()
    assert second.preparation() == first.preparation()
    expected = first(**first.prepare(values)).pooled
    torch.testing.assert_close(second(**second.prepare(values)).pooled, expected, rtol=0, atol=0)


def test_recordings_are_resampled_cut_and_padded_to_one_token(tiny_model: Find) -> None:
    encoder = AudioTransformerEncoder(VOICE, checkpoint=tiny_model("wav2vec2"), max_seconds=0.1)
    lengths = encoder.prepare([(sound(400, 8000),), (sound(99_999),), (sound(1),), None])["mask"].sum(1)
    assert lengths.tolist() == [800, 1600, 25, 25]
    assert encoder(**encoder.prepare([(sound(1),)])).mask.tolist() == [[True]]


def test_short_recordings_can_be_trained_on(tiny_model: Find) -> None:
    encoder = AudioTransformerEncoder(VOICE, checkpoint=tiny_model("hubert")).train()
    encoder(**encoder.prepare([(sound(30),), (sound(500),)])).pooled.sum().backward()


def test_another_kind_of_features_is_refused(tiny_model: Find, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny_model("wav2vec2")).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "ClapFeatureExtractor"}')
    with pytest.raises(InputError, match="needs ClapFeatureExtractor"):
        AudioTransformerEncoder(VOICE, checkpoint=str(tmp_path))


@pytest.mark.parametrize(("rate", "fft", "mels"), [(8000, 512, 64), (16_000, 1024, 80), (8000, 512, 24)])
def test_mel_filters_against_transformers_and_the_definition(rate: int, fft: int, mels: int) -> None:
    found = mel_filters(rate, fft, mels).numpy()
    reference = mel_filter_bank(fft // 2 + 1, mels, 0, rate / 2, rate, None, "htk").T
    np.testing.assert_allclose(found, reference, atol=1e-5)
    step = 2595 * np.log10(1 + rate / 2 / 700) / (mels + 1)
    peak = 700 * (10 ** (step * 3 / 2595) - 1)
    low, high = (700 * (10 ** (step * k / 2595) - 1) for k in (2, 4))
    for k, weight in enumerate(found[2]):
        hertz = k * rate / fft
        triangle = (hertz - low) / (peak - low) if hertz <= peak else (high - hertz) / (high - peak)
        assert weight == pytest.approx(max(0.0, triangle), abs=1e-5)


def test_power_spectrum_is_that_of_a_plain_transform() -> None:
    wave = np.random.default_rng(0).normal(size=300)
    found = power_spectrum(torch.from_numpy(wave)[None], torch.hann_window(50, dtype=torch.float64), 64, 20)[0].numpy()
    padded = np.pad(wave, 32, mode="reflect")
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(50) / 50), 7)
    for frame in range(found.shape[1]):
        expected = np.abs(np.fft.rfft(padded[20 * frame : 20 * frame + 64] * window)) ** 2
        np.testing.assert_allclose(found[:, frame], expected, atol=1e-9)


def test_the_spectrogram_forgets_the_volume_and_keeps_the_pitch() -> None:
    encoder = MelConvnetEncoder([Column(name="voice", type="audio", size=8000, duration=0.2)], width=4).eval()
    time = np.arange(1600) / 8000
    low, high = (0.4 * np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (700, 1400))
    waves = encoder.prepare([(Sound(wave, 8000),) for wave in (low, 0.1 * low, high)])["waves"]
    first, quiet, other = encoder.spectrogram(waves)
    torch.testing.assert_close(first, quiet, atol=1e-3, rtol=0)
    assert first.mean(1).argmax() < other.mean(1).argmax()
    assert float(first.max()) == pytest.approx(1.0)
    assert float(first.min()) >= -1.0


def test_mel_convnet_takes_rate_and_length_from_the_training_recordings() -> None:
    def about(option: dict[str, float], size: int | None, duration: float | None) -> dict[str, int]:
        column = Column(name="voice", type="audio", size=size, duration=duration)
        return MelConvnetEncoder([column], width=4, mels=16, **option).preparation()  # type: ignore[arg-type]

    assert about({}, 11_025, 0.5) == {"rate": 11_025, "samples": 5512, "mels": 16}
    assert about({}, 44_100, 90.0) == {"rate": 16_000, "samples": 480_000, "mels": 16}
    assert about({}, None, None) == {"rate": 16_000, "samples": 16_000, "mels": 16}
    assert about({"rate": 4000, "seconds": 2.0}, 8000, 0.5) == {"rate": 4000, "samples": 8000, "mels": 16}


def test_mel_convnet_options_have_their_effect() -> None:
    wide, narrow = (MelConvnetEncoder(VOICE, width=width, depth=depth) for width, depth in ((8, 2), (4, 1)))
    assert wide.net.dim == 2 * narrow.net.dim
    assert len(wide.net.blocks) == 2 * len(narrow.net.blocks)
    assert MelConvnetEncoder(VOICE, width=4, dim=24)(waves=torch.zeros(1, 4800)).pooled.shape == (1, 24)
    dropped = MelConvnetEncoder(VOICE, width=4, dropout=0.9).train()
    assert not dropped(waves=torch.ones(1, 4800)).pooled.equal(dropped(waves=torch.ones(1, 4800)).pooled)
