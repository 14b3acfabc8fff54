"""Scores of models that are as sure as they should be, or not."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from polyfuse.calibration import Calibration, calibrate
from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array

Drawn = tuple[Array, Array]
THREE = Target(name="y", task="classification", levels=["a", "b", "c"], frequencies=[0.4, 0.3, 0.3])


def classes(rows: int, *, sharp: float = 1.0, bias: tuple[float, ...] = (0, 0, 0), seed: int = 0) -> Drawn:
    """Codes, and probabilities of a model that is `sharp` times too sure, with biases in its logits."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 1.5, (rows, len(bias)))
    true = (softmax(z, axis=1).cumsum(1) > random.random((rows, 1))).argmax(1)
    return true, softmax(sharp * z + np.asarray(bias), axis=1).astype(np.float32)


def labels(rows: int, *, sharp: float = 1.0, bias: float = 0.0, seed: int = 0) -> Drawn:
    """0/1 of three labels, and probabilities of such a model."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 1.5, (rows, 3))
    return (random.random(z.shape) < expit(z)).astype(np.float32), expit(sharp * z + bias).astype(np.float32)


def calibrated(true: Array, scores: Array, target: Target = THREE) -> Calibration:
    """A calibration of rows that all have something present."""
    return calibrate(true, scores, np.ones(len(scores), dtype=bool), target)[0]
