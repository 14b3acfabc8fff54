"""Threat models of what is continuous: images, recordings, vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from annotated_types import Gt, Le
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.attacks.regions import Ball, Box, Patch, Region
from polyfuse.attacks.threat import Sample, Seam, Threat
from polyfuse.core.options import PositiveShare
from polyfuse.data.schema import Column

_ROUNDING = 1e-5  # of a radius: what float32 may add to it


class LinfThreat(Threat):
    """Each entry may move by so much: ‖x' - x‖_∞ ≤ r, within the input's own bounds.

    An image in [0, 1] before normalisation, and on 8 bits in the end; a recording in [-1, 1].

    Args:
        columns: of the modality.
        radius: r; of images 8/255 when left out, of recordings 0.01.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "audio"})
    norm: ClassVar[str] = "L∞"
    main: ClassVar[str] = "radius"
    continuous: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], *, radius: Annotated[float, Gt(0), Le(2)] | None = None) -> None:
        super().__init__(columns)
        self.radius = radius if radius is not None else 8 / 255 if _is_image(columns) else 0.01

    def region(self, seam: Seam) -> Region:
        """Return a box."""
        return Box(**_common(seam, self.columns), radius=_number(self.radius, seam))

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return max |x' - x| / r - 1."""
        return float(np.abs(_moved(clean, found)).max(initial=0.0)) / self.radius - 1 - _ROUNDING


class L2Threat(Threat):
    """All entries together may move by so much: ‖x' - x‖₂ ≤ r, within the input's own bounds.

    Args:
        columns: of the modality.
        radius: r, in the unit of the input; when left out 0.5 of images, and of vectors and recordings a tenth of what
            each of them is long.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image", "audio", "embedding"})
    norm: ClassVar[str] = "L2"
    main: ClassVar[str] = "radius"
    continuous: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], *, radius: Annotated[float, Gt(0)] | None = None) -> None:
        super().__init__(columns)
        self.radius = radius if radius is not None or not _is_image(columns) else 0.5
        self._share = 0.1

    def region(self, seam: Seam) -> Region:
        """Return a ball."""
        lengths = seam.clean.flatten(1).norm(dim=1)
        radius = lengths * self._share if self.radius is None else torch.full_like(lengths, self.radius)
        return Ball(**_common(seam, self.columns), radius=radius)

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return ‖x' - x‖₂ / r - 1."""
        radius = self._share * _length(clean.tensor) if self.radius is None else self.radius
        return _length(_moved(clean, found)) / max(radius, 1e-12) - 1 - _ROUNDING

    def scaled(self, factor: float) -> Self:
        """Return the same threat with its radius, or the share of the length, multiplied."""
        if self.radius is not None:
            return super().scaled(factor)
        other = type(self)(self.columns)
        other._share = self._share * factor
        return other


class SNRThreat(Threat):
    """Noise on a waveform, so much weaker than the sound: 20 log₁₀(‖x‖₂ / ‖x' - x‖₂) ≥ d.

    Args:
        columns: of the modality.
        decibels: d; 20 dB let the noise have a tenth of the sound's amplitude, a hundredth of its power.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"audio"})
    norm: ClassVar[str] = "SNR"
    main: ClassVar[str] = "decibels"
    continuous: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], *, decibels: Annotated[float, Le(120)] = 20.0) -> None:
        super().__init__(columns)
        self.decibels = decibels

    def region(self, seam: Seam) -> Region:
        """Return a ball of radius ‖x‖₂ 10^(-d/20)."""
        radius = seam.clean.flatten(1).norm(dim=1) * 10 ** (-self.decibels / 20)
        return Ball(**_common(seam, self.columns), radius=radius)

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return the noise's amplitude relative to what is allowed, less 1."""
        noise, sound = _length(_moved(clean, found)), _length(clean.tensor)
        if noise == 0:
            return -1.0
        if sound == 0:
            return math.inf
        return 10 ** ((self.decibels - 20 * math.log10(sound / noise)) / 20) - 1 - _ROUNDING

    def scaled(self, factor: float) -> Self:
        """Return the same threat with the amplitude of the noise multiplied."""
        return type(self)(self.columns, decibels=self.decibels - 20 * math.log10(factor))


class PatchThreat(Threat):
    """A square of each image becomes anything: ‖x' - x‖₀ ≤ share · pixels.

    Args:
        columns: of the modality.
        share: of the pixels that the square covers.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    norm: ClassVar[str] = "L0"
    main: ClassVar[str] = "share"
    continuous: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], *, share: PositiveShare = 0.04) -> None:
        super().__init__(columns)
        self.share = share

    def region(self, seam: Seam) -> Region:
        """Return a patch."""
        height, width = seam.clean.shape[-2:]
        side = max(1, math.floor(math.sqrt(self.share * height * width) + 1e-9))
        inside = torch.zeros_like(seam.clean, dtype=torch.bool)
        return Patch(**_common(seam, self.columns), side=min(side, height, width), inside=inside)

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return the most changed pixels of an image relative to those allowed, less 1; one is always allowed."""
        moved = _moved(clean, found)
        changed = (moved != 0).any(axis=1).reshape(len(moved), -1)
        allowed = max(1.0, self.share * changed.shape[1])
        return float(changed.sum(1).max(initial=0) / allowed) - 1 - _ROUNDING

    def scaled(self, factor: float) -> Self:
        """Return the same threat with the side of the square multiplied."""
        return type(self)(self.columns, share=min(1.0, self.share * factor**2))


def _is_image(columns: Sequence[Column]) -> bool:
    return any(column.type == "image" for column in columns)


def _number(value: float, seam: Seam) -> Tensor:
    return torch.tensor(value, dtype=seam.clean.dtype, device=seam.clean.device)


def _common(seam: Seam, columns: Sequence[Column]) -> dict[str, Any]:
    """Return what all regions of a seam have in common."""
    return {
        "clean": seam.clean,
        "free": seam.free,
        "low": _number(seam.low, seam),
        "high": _number(seam.high, seam),
        "levels": 255 if _is_image(columns) else 0,
    }


def _moved(clean: Sample, found: Sample) -> NDArray[np.float64]:
    assert clean.tensor is not None
    assert found.tensor is not None
    moved: NDArray[np.float64] = found.tensor.astype(np.float64) - clean.tensor
    return moved


def _length(vector: NDArray[Any] | None) -> float:
    assert vector is not None
    return float(np.sqrt(np.square(vector.astype(np.float64)).sum()))
