"""Gaussian noise on what is continuous: what a smoothed model averages over, and may be trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from polyfuse.attacks.threat import Seam
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError, nearest
from polyfuse.data.schema import Schema

#: Column types with a continuous input, and its unit, in words for a report.
UNITS = {
    "image": "pixels in [0, 1]",
    "audio": "samples in [-1, 1]",
    "points": "the cloud's own unit",
    "embedding": "the vector's own unit",
    "number": "numbers as the table encoder scales them, in [-3, 3]",
}


def noisy(seam: Seam, deviation: float, random: torch.Generator, draws: int | None = None) -> Tensor:
    """Return x + ε with ε ~ N(0, σ²) in every free entry, (rows, …); of absent values and padding nothing changes.

    Not cut off at the input's bounds: the certificate of Cohen et al. 2019 is of a model that sees x + ε itself.

    Args:
        seam: x.
        deviation: σ, in the unit of the seam.
        random: on the device of the seam.
        draws: of the only row that the seam has, in place of one of each row.
    """
    shape = seam.clean.shape if draws is None else (draws, *seam.clean.shape[1:])
    noise = torch.randn(shape, generator=random, dtype=seam.clean.dtype, device=seam.clean.device)
    return torch.where(seam.free, seam.clean + deviation * noise, seam.clean)


def check_noise(noise: Mapping[str, float], schema: Schema, encoder: Callable[[str], Encoder], place: str) -> None:
    """Check standard deviations of noise by modality.

    Args:
        noise: σ by modality, in the unit of its continuous input.
        schema: of the table.
        encoder: that of a modality.
        place: where they were given.

    Raises:
        InputError: a modality is unknown or has no continuous input, or σ is not a finite number above 0.
    """
    for name, deviation in noise.items():
        if name not in schema.modalities:
            raise InputError(f"{place}: there is no modality {name!r}; {nearest(name, schema.modalities)}")
        if not encoder(name).continuous or not any(column.type in UNITS for column in schema.of(name)):
            raise InputError(
                f"{place}: {name!r} has no continuous input that noise could be added to; give images, recordings,"
                " clouds, vectors or numbers, and leave it out"
            )
        if not (isinstance(deviation, int | float) and deviation > 0 and math.isfinite(deviation)):
            raise InputError(
                f"{place}: {deviation!r} given for {name!r}: a standard deviation is a finite number above 0, in the"
                " unit of the input, e.g. 0.25 of pixels in [0, 1]"
            )
