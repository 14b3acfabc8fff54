"""Which tunings an encoder takes."""

from __future__ import annotations

import copy

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.data.schema import Schema
from polyfuse.recipe import Recipe
from polyfuse.recipe.building import make_encoders
from polyfuse.tuning import TUNINGS


def tunings_taken(recipe: Recipe, schema: Schema) -> dict[str, list[str]]:
    """Return of each pretrained encoder, by modality, the tunings that it takes with their default options.

    Args:
        recipe: completed.
        schema: of the table.
    """
    assert isinstance(recipe.tuning, dict)
    encoders = make_encoders(recipe, schema, resting=True).by_modality
    pretrained = [name for name in recipe.tuning if encoders[name].backbone is not None]
    return {name: [tuning for tuning in TUNINGS if _takes(encoders[name], tuning)] for name in pretrained}


def _takes(encoder: Encoder, tuning: str) -> bool:
    """Tell whether a tuning fits an encoder, by a try on a copy."""
    try:
        TUNINGS.build(tuning, {}).apply(copy.deepcopy(encoder))
    except InputError:
        return False
    return True
