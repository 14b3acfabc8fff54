"""A fit that begins with a model that is there, in the place of a fresh one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from polyfuse.ensemble import is_table
from polyfuse.learners.learner import Array
from polyfuse.model import FusionModel, Model
from polyfuse.training.settings import TrainingSettings

_SHARE_OF_EPOCHS = 0.5
_SHARE_OF_RATE = 0.3


@dataclass(frozen=True)
class Start:
    """What a fit begins with.

    Attributes:
        model: whose weights are taken over, of a model of the same recipe.
        found: whether the model is put together on Features of encoders at rest, as where a way to combine was found;
            else it is trained as a whole.
        aside: positions of the rows that decide, where some are kept aside; None where they are to be split off.
    """

    model: Model
    found: bool
    aside: Array | None


def warm(model: FusionModel, start: Model) -> bool:
    """Take over the weights that two models of a recipe have in common; tell whether these are all.

    An ensemble has of its own the encoders that began at random, and have learned, and so has a model with another
    fusion; the rest of a model that is trained to give it such encoders is fresh.
    """
    if not isinstance(start, FusionModel) or type(start.fusion) is not type(model.fusion):
        for name in model.modalities:
            if model.encoder(name).backbone is None and not is_table(model.encoder(name)):
                model.encoder(name).load_state_dict(start.encoder(name).state_dict())
        return False
    for name in model.modalities:
        model.encoder(name).load_state_dict(start.encoder(name).state_dict())
    model.fusion.load_state_dict(start.fusion.state_dict())
    model.head.load_state_dict(start.head.state_dict())
    return True


def gentle(settings: TrainingSettings, *, whole: bool) -> TrainingSettings:
    """Return how a model is trained further: in half the epochs, and where all of it was taken over in smaller steps.

    What was learned is to be mended, not learned anew; large steps forget it first (Howard & Ruder 2018).
    """
    changed: dict[str, object] = {"epochs": max(1, math.ceil(settings.epochs * _SHARE_OF_EPOCHS))}
    if whole:
        changed["learning_rate"] = settings.learning_rate * _SHARE_OF_RATE
    return settings.model_copy(update=changed)
