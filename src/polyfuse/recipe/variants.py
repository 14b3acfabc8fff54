"""Recipes of what a model is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from polyfuse.recipe.description import Recipe
from polyfuse.recipe.reading import read_recipe, updated


def late(recipe: Recipe) -> Recipe:
    """Return the recipe of late fusion on the same encoders: each modality answers, and the answers are weighed."""
    return updated(recipe, {"fusion": "late", "screen": None})


def alone(recipe: Recipe, modality: str) -> Recipe:
    """Return the recipe of one modality's own model, trained in the same way.

    Args:
        recipe: complete, with its modalities.
        modality: whose columns are read; those of the others are ignored.
    """
    modalities = recipe.modalities or {}
    document = recipe.as_data()
    own = set(modalities[modality].columns)
    ignored = {name: "ignore" for other in modalities.values() for name in other.columns if name not in own}
    document["columns"] = {**document.get("columns", {}), **ignored}
    document["fusion"] = "concat"
    document.pop("screen", None)
    document["modalities"] = {modality: document["modalities"][modality]}
    for key in ("tuning", "augmentation"):
        document[key] = _of(document.get(key), modality)
    document["training"]["compute"] = _of(document["training"]["compute"], modality)
    if recipe.adversarial is not None:
        spaces = ("budgets", "features", "embeddings")
        changed = {key: _of(document["adversarial"].get(key), modality) for key in spaces}
        # Where all that the adversary may change is gone, nothing is left to resist.
        gone = changed["embeddings" if recipe.adversarial.regularises else "budgets"] == {} and not changed["features"]
        document["adversarial"] = None if gone else {**document["adversarial"], **changed}
    return read_recipe({key: value for key, value in document.items() if value not in (None, {})})


def _of(settings: object, modality: str) -> object:
    """Return settings by modality for one of them; those that hold for all stay."""
    if isinstance(settings, Mapping) and "name" not in settings:
        return {name: value for name, value in settings.items() if name == modality}
    return settings
