"""What a recipe builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from polyfuse.core.compute import Precision, has_bf16
from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import RecipeError
from polyfuse.data.schema import Schema
from polyfuse.encoders import ENCODERS
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.model import FusionModel
from polyfuse.recipe.description import Recipe
from polyfuse.tuning import TUNINGS


@dataclass(frozen=True)
class Built:
    """A model, and how it is tuned.

    Attributes:
        model: with a fresh fusion and head.
        tunings: of each modality that has an encoder of its own.
        frozen: modalities whose encoder does not move.
    """

    model: FusionModel
    tunings: dict[str, Tuning]
    frozen: frozenset[str]


def build(recipe: Recipe, schema: Schema, device: torch.device, stored: Path | None = None) -> Built:
    """Make the model that a completed recipe describes.

    Args:
        recipe: completed for the schema.
        schema: of the training table.
        device: where the model will run; decides the precision when that is "auto".
        stored: an artifact's folder `encoders`, whose backbones and adapters are read instead of the checkpoints.

    Raises:
        RecipeError: the parts do not go together.
    """
    assert recipe.modalities is not None
    assert isinstance(recipe.tuning, dict)
    assert recipe.head is not None
    own: dict[str, Encoder] = {}
    tunings: dict[str, Tuning] = {}
    try:
        for i, (name, modality) in enumerate(recipe.modalities.items()):
            if modality.encoder is None:
                continue
            folder = stored / str(i) if stored is not None else None
            options = modality.encoder.options
            if folder is not None and (folder / "backbone").is_dir():
                options["checkpoint"] = str(folder / "backbone")
            own[name] = ENCODERS.build(modality.encoder.name, options, schema.of(name))
            component = recipe.tuning[name]
            tunings[name] = TUNINGS.build(component.name, component.options)
            if folder is not None and (folder / "adapter").is_dir():
                tunings[name].restore(own[name], folder / "adapter")
            else:
                tunings[name].apply(own[name])
        encoders = {name: own[modality.share or name] for name, modality in recipe.modalities.items()}
        dims = {name: encoder.dim for name, encoder in encoders.items()}
        fusion = FUSIONS.build(recipe.fusion.name, recipe.fusion.options, dims)
        head = HEADS.build(recipe.head.name, recipe.head.options, fusion.dim, schema.target)
    except ValueError as error:
        if isinstance(error, RecipeError) or type(error) is not ValueError:
            raise
        raise RecipeError(f"the recipe's parts do not go together: {error}") from error
    frozen = frozenset(name for name, modality in recipe.modalities.items() if tunings[modality.share or name].frozen)
    return Built(FusionModel(encoders, fusion, head, precision=_precision(recipe, device)), tunings, frozen)


def _precision(recipe: Recipe, device: torch.device) -> Precision:
    chosen = recipe.training.precision
    if chosen == "auto":
        return "bf16" if has_bf16(device) else "float32"
    return chosen
