"""The recipe: the whole description of a model and its training, as data; how it is read, and what it builds."""

from polyfuse.recipe.building import Built, build
from polyfuse.recipe.component import Component
from polyfuse.recipe.description import DataSettings, Modality, Recipe
from polyfuse.recipe.reading import read_recipe, updated
from polyfuse.recipe.variants import alone, late

__all__ = [
    "Built",
    "Component",
    "DataSettings",
    "Modality",
    "Recipe",
    "alone",
    "build",
    "late",
    "read_recipe",
    "updated",
]
