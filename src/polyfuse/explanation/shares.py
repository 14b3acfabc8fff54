"""What each modality gives to the answer of one row: Shapley values of its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Silent
from polyfuse.data.rows import Rows
from polyfuse.explanation.contributions import (
    EXACT,
    Subset,
    calibrated,
    drawn_weights,
    orders_of,
    shapley_weights,
    shared_sources,
    subsets,
    through_orders,
)
from polyfuse.inference import score
from polyfuse.metrics.metric import Floats
from polyfuse.model import Model


@dataclass(frozen=True, eq=False)
class Shares:
    """What each modality gives to the scores of one row.

    Attributes:
        nothing: (scores,) as they are when every modality is taken away: the prior.
        everything: (scores,) of the row as it is.
        gives: of each modality, (scores,): what it adds, on average over all orders in which the row's modalities are
            added to the prior (Shapley 1953). They sum to `everything - nothing`; a modality that the row lacks gives
            zero.
    """

    nothing: Floats
    everything: Floats
    gives: Mapping[str, Floats]


def shares_of(
    model: Model, rows: Rows, device: torch.device, *, calibration: Calibration | None = None, seed: int = 0
) -> Shares:
    """Measure what each modality gives to one row; each encoder runs once where its Features will do.

    Args:
        model: on the device.
        rows: a single one.
        device: where the model is.
        calibration: of its scores.
        seed: of the orders that are drawn where the row has more than eight modalities.

    Raises:
        InputError: there are several rows, or none.
    """
    if len(rows) != 1:
        raise InputError(f"shares are of one row, and {len(rows)} are given")
    there = [name for name, here in zip(model.modalities, rows.present[0].tolist(), strict=True) if here]
    orders = None if len(there) <= EXACT else orders_of(there, seed)
    wanted = list(map(frozenset, subsets(there))) if orders is None else through_orders(there, orders)
    sources = shared_sources(model, rows, device, Silent())
    found: dict[Subset, Floats] = {}
    for some in wanted:
        gone = [name for name in model.modalities if name not in some]
        scores, present = score(model, rows, device, without=gone, sources=sources)
        found[some] = calibrated(calibration, scores, present)[0]
    nothing, everything = found[frozenset()], found[frozenset(there)]
    gives = dict.fromkeys(model.modalities, np.zeros_like(nothing))
    for name in there:
        weights = shapley_weights(there, name) if orders is None else drawn_weights(orders, name)
        gives[name] = np.sum([weight * found[some] for some, weight in weights.items()], axis=0)
    return Shares(nothing, everything, gives)
