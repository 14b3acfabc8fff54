"""Gaussian noise in training: what a model needs to see that is to be smoothed."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from polyfuse.attacks.noise import noisy
from polyfuse.attacks.threat import Seam
from polyfuse.core.types import Features, Inputs
from polyfuse.model import FusionModel
from polyfuse.training.adversarial import with_seams


def with_noise(model: FusionModel, inputs: Inputs, noise: Mapping[str, float], random: torch.Generator) -> Inputs:
    """Return a batch's inputs with noise on the continuous ones (Cohen et al. 2019, section 3.3).

    Args:
        model: whose encoders say what may change.
        inputs: of each modality; of those with noise the prepared tensors.
        noise: standard deviation by modality, in the unit of its continuous input.
        random: on the device of the inputs.
    """
    moved = {}
    for name, deviation in noise.items():
        tensors = inputs[name]
        assert not isinstance(tensors, Features)
        moved[name] = noisy(Seam.of(model.encoder(name), tensors, []), deviation, random)
    return with_seams(model, inputs, moved)
