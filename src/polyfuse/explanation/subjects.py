"""Images, recordings, clouds, words and columns, each in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.core.types import Tensors
from polyfuse.data.geometry import parts_of
from polyfuse.data.points import coordinates
from polyfuse.explanation.columns import ColumnsSubject
from polyfuse.explanation.methods import Floats
from polyfuse.explanation.parts import AudioPart, CloudPart, ImagePart, Kind, resampled
from polyfuse.explanation.question import Changed, Question
from polyfuse.explanation.rollout import attentions_of, rollout
from polyfuse.explanation.subject import Place, Subject, evenly
from polyfuse.explanation.words import WordsSubject
from polyfuse.layers.clouds import sphere

_GRID = 8  # pieces a side of an image
_WINDOWS = 32  # pieces of a recording
_PARTS = 24  # pieces of a cloud
_BINS = 256  # of the envelope that is shown
_MELS = 40


def subject_of(question: Question, name: str, seed: int) -> Subject:
    """Return the subject of a modality that the row has: by its columns, and where its encoder lets it be altered."""
    types = {column.type for column in question.schema.of(name)}
    if types == {"text"}:
        return WordsSubject(question, name, seed)
    seams = list(question.model.encoder(name).continuous)
    if len(seams) == 1 and types in ({"image"}, {"audio"}, {"points"}):
        axes = question.prepared(name, [question.values[name]])[seams[0]].ndim
        if types == {"image"} and axes == 5:
            return ImageSubject(question, name, seed)
        if types == {"audio"} and axes == 2:
            return SoundSubject(question, name, seed)
        if types == {"points"} and axes == 3:
            return CloudSubject(question, name, seed)
    # Of an encoder that reads something else there is nothing to show but its cells.
    return ColumnsSubject(question, name, seed)


class _TensorSubject(Subject):
    """What is changed in the encoder's continuous tensor."""

    tensors: Tensors
    seam: str
    others: dict[str, Tensor]

    def _read(self) -> Tensor:
        """Prepare the row, and return its continuous tensor (1, …)."""
        (self.seam,) = self.encoder.continuous
        self.tensors = self.question.prepared(self.name, [self.question.values[self.name]])
        return self.tensors[self.seam]

    def _where(self, kept: Tensor) -> Tensor:
        """Return which entries of the continuous tensor are kept, to broadcast. kept: (n, pieces) bool."""
        raise NotImplementedError

    def changed(self, kept: Tensor, baseline: str) -> Changed:
        """Return the row's tensors, with those of the baseline where pieces are gone."""
        mine, other = self.tensors[self.seam], self.others[baseline]
        wide = {key: tensor.expand(len(kept), *tensor.shape[1:]) for key, tensor in self.tensors.items()}
        return Changed({**wide, self.seam: torch.where(self._where(kept).to(mine.device), mine, other)})

    def place(self, baseline: str) -> Place:
        """Return the continuous tensor."""
        return self.at_tensor(self.tensors, self.seam, self.others[baseline])


class ImageSubject(_TensorSubject):
    """Pixels, in squares."""

    kind: ClassVar[Kind] = "image"
    baselines = ("mean colour", "blurred")

    def __init__(self, question: Question, name: str, seed: int) -> None:
        super().__init__(question, name, seed)
        from scipy.ndimage import gaussian_filter

        pixels = self._read()
        _, self.images, _, self.height, self.width = pixels.shape
        mean = pixels.mean((-2, -1), keepdim=True).expand_as(pixels)
        side = max(self.height, self.width) / _GRID
        blurred = gaussian_filter(pixels.cpu().numpy(), (0, 0, 0, side, side), mode="nearest")
        self.others = {"mean colour": mean, "blurred": torch.from_numpy(blurred).to(pixels)}
        rows, columns = evenly(self.height, _GRID), evenly(self.width, _GRID)
        across = columns.max() + 1
        one = rows[:, None] * across + columns
        each = int(one.max()) + 1
        self.piece_of = np.concatenate([one + i * each for i in range(self.images)], axis=1).ravel()

    def _where(self, kept: Tensor) -> Tensor:
        wide = kept[:, torch.from_numpy(self.piece_of)].view(-1, self.height, self.images, self.width)
        return wide.permute(0, 2, 1, 3).unsqueeze(2)

    def cells(self, found: Sequence[Tensor]) -> Floats:
        """Return weights of pixels, summed over channels, images side by side."""
        return self._flat(found[0][0].sum(1))

    def rolled(self) -> Floats | None:
        """Return how much of each patch reaches the pooled vector, an equal share for each of its pixels."""
        found = attentions_of(self.encoder, self.tensors)
        patch = getattr(getattr(self.encoder.backbone, "config", None), "patch_size", None)
        if found is None or not isinstance(patch, int):
            return None
        high, wide = self.height // patch, self.width // patch
        whole = rollout(found)
        before = whole.shape[-1] - high * wide
        if before < 0 or high * wide == 0:
            return None
        # Tokens before the patches: the first one is the class token, from which the vector is pooled.
        seen = whole[:, 0] if before else whole.mean(1)
        maps = seen[:, before:].view(-1, 1, high, wide) / patch**2
        large = torch.nn.functional.interpolate(maps, (self.height, self.width), mode="nearest")
        return self._flat(large[:, 0])

    def part(self, weights: Floats, **common: Any) -> ImagePart:
        """Return pixels and weights."""
        pixels = self.tensors[self.seam][0].expand(-1, 3, -1, -1).permute(2, 0, 3, 1)
        shape = self.height, self.images * self.width
        image = (pixels.reshape(*shape, 3) * 255).round().clamp(0, 255).byte().cpu().numpy()
        return ImagePart(**common, image=image, weights=weights.reshape(shape))

    def _flat(self, maps: Tensor) -> Floats:
        """Return maps (images, height, width) side by side: (height · images · width,)."""
        flat: Floats = maps.permute(1, 0, 2).reshape(-1).double().cpu().numpy()
        return flat


class SoundSubject(_TensorSubject):
    """Samples of a recording, in windows of time.

    Noise comes first: on the way from silence a recording only grows louder, which many encoders do not even see.
    """

    kind: ClassVar[Kind] = "audio"
    baselines = ("noise as loud", "silence")

    def __init__(self, question: Question, name: str, seed: int) -> None:
        super().__init__(question, name, seed)
        waves = self._read()
        there = self.encoder.alterable(self.tensors)[0].nonzero()
        self.length = int(there.max()) + 1 if len(there) else waves.shape[1]
        self.rate = int(getattr(self.encoder, "rate", 16_000))
        loud = waves[0, : self.length].square().mean().sqrt()
        drawn = np.random.default_rng(seed).standard_normal(self.length).astype(np.float32)
        noise = torch.zeros_like(waves)
        noise[0, : self.length] = (torch.from_numpy(drawn).to(waves) * loud).clamp(-1, 1)
        self.others = {"noise as loud": noise, "silence": torch.zeros_like(waves)}
        self.piece_of = evenly(self.length, _WINDOWS)

    def _where(self, kept: Tensor) -> Tensor:
        wide = kept[:, torch.from_numpy(self.piece_of)]
        return torch.nn.functional.pad(wide, (0, self.tensors[self.seam].shape[1] - self.length))

    def cells(self, found: Sequence[Tensor]) -> Floats:
        """Return weights of samples."""
        weights: Floats = found[0][0, : self.length].double().cpu().numpy()
        return weights

    def rolled(self) -> Floats | None:
        """Return how much of each step of time reaches the pooled vector, an equal share for each of its samples."""
        from polyfuse.encoders.audio_fronts import AST

        # The tokens of an AST are patches of the spectrogram, not steps.
        found = None if isinstance(getattr(self.encoder, "front", None), AST) else self._attentions()
        if found is None:
            return None
        seen = rollout(found)[0]
        with torch.no_grad():
            real = int(self.encoder(**self.tensors).mask[0].sum())
        each = seen[:real].mean(0)[:real].cpu().numpy()
        return resampled(each, self.length)

    def _attentions(self) -> list[Tensor] | None:
        return attentions_of(self.encoder, self.tensors)

    def part(self, weights: Floats, **common: Any) -> AudioPart:
        """Return envelope, spectrogram and weights."""
        wave = self.tensors[self.seam][0, : self.length].cpu().numpy().astype(np.float64)
        at = evenly(self.length, _BINS)
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        envelope = np.stack([np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)], 1)
        bins = resampled(weights, len(envelope))
        shown = {"rate": self.rate, "seconds": self.length / self.rate, "wave": envelope}
        return AudioPart(**common, **cast("Any", shown), mel=mel_of(wave, self.rate), weights=bins)


class CloudSubject(_TensorSubject):
    """Points, in groups that lie together.

    Points scattered come first: on the way from the middle a cloud only grows larger, which many encoders do not see.
    """

    kind: ClassVar[Kind] = "points"
    baselines = ("scattered in its sphere", "gathered in the middle")

    def __init__(self, question: Question, name: str, seed: int) -> None:
        super().__init__(question, name, seed)
        points = self._read()
        self.axes = coordinates(points.shape[2])
        middle, radius = sphere(points[:, :, : self.axes], self.encoder.alterable(self.tensors).any(2))
        drawn = np.random.default_rng(seed)
        far = drawn.standard_normal((points.shape[1], self.axes))
        far *= drawn.random((len(far), 1)) ** (1 / self.axes) / np.linalg.norm(far, axis=1, keepdims=True)
        scattered = points[:, torch.from_numpy(drawn.permutation(len(far))).to(points.device)]
        scattered[:, :, : self.axes] = middle + radius * torch.from_numpy(far).to(points)
        gathered = points.clone()
        gathered[:, :, : self.axes] = middle
        self.others = dict(zip(self.baselines, (scattered, gathered), strict=True))
        places = points[0, :, : self.axes].cpu().numpy()
        self.piece_of = parts_of(places, places, _PARTS)

    def _where(self, kept: Tensor) -> Tensor:
        return kept[:, torch.from_numpy(self.piece_of)][:, :, None]

    def cells(self, found: Sequence[Tensor]) -> Floats:
        """Return weights of points, summed over their numbers."""
        weights: Floats = found[0][0].sum(1).double().cpu().numpy()
        return weights

    def part(self, weights: Floats, **common: Any) -> CloudPart:
        """Return points and weights."""
        places = self.tensors[self.seam][0, :, : self.axes].double().cpu().numpy()
        return CloudPart(**common, places=places, weights=weights)


def mel_of(wave: NDArray[np.float64], rate: int) -> Floats:
    """Return the mel spectrogram of a waveform in dB below its loudest cell, at least -80: (mels, frames)."""
    from polyfuse.encoders.spectrogram import mel_filters, power_spectrum

    window = max(16, round(rate * 0.025))
    fft = 1 << (window - 1).bit_length()
    hop = max(1, min(window // 2, len(wave) // 64), len(wave) // _BINS)  # 64 frames at least, 256 at most
    padded = np.pad(wave, (0, max(0, fft - len(wave)))).astype(np.float32)
    power = power_spectrum(torch.from_numpy(padded)[None], torch.hann_window(window), fft, hop)[0]
    mel = (mel_filters(rate, fft, _MELS) @ power).double().numpy()
    decibels = 10 * np.log10(mel + 1e-10)
    below: Floats = np.maximum(decibels - decibels.max(), -80.0)
    return below
