"""What is drawn at random for a batch: the same in every process, and after a run was taken up again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyfuse.model import Mix
from polyfuse.training.parallel import part_of


def drawn_for(*numbers: int) -> np.random.Generator:
    """Return the generator of one batch, the same in every process, and after a run was taken up again."""
    return np.random.default_rng(numbers)


def mix_of(rows: int, alpha: float, drawn: np.random.Generator) -> Mix | None:
    """Draw what a batch is mixed with."""
    if alpha == 0:
        return None
    share = float(drawn.beta(alpha, alpha))
    return torch.from_numpy(drawn.permutation(rows)), share


def hidden(present: Tensor, rate: float, drawn: np.random.Generator, rows: int) -> Tensor:
    """Hide a share of the present modalities, but never the last one of a row.

    Args:
        present: (this process's part of the batch, modalities) bool.
        rate: the share.
        drawn: of the batch.
        rows: of the whole batch: what is hidden does not depend on how many processes share it.
    """
    if rate == 0:
        return present
    some = part_of(range(rows))[0]
    kept = present & torch.from_numpy(drawn.random((rows, present.shape[1]))[some] >= rate).to(present.device)
    return torch.where(kept.any(1, keepdim=True), kept, present)
