"""What a recipe builds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from polyfuse.core.compute import Precision, Way, has_bf16
from polyfuse.core.contract import Encoder, Head, Tuning
from polyfuse.core.errors import InputError, RecipeError, nearest
from polyfuse.data.schema import Schema
from polyfuse.encoders import ENCODERS
from polyfuse.ensemble import Ensemble, Member, is_table
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.learners import LEARNERS
from polyfuse.learners.several import make_learner
from polyfuse.learners.words import WordStatistics
from polyfuse.model import FusionModel, Model
from polyfuse.recipe.component import Component
from polyfuse.recipe.description import Recipe
from polyfuse.recipe.ways import EnsembleWay, MemberSpec
from polyfuse.tuning import TUNINGS


@dataclass(frozen=True)
class Encoders:
    """The encoders of a model.

    Attributes:
        by_modality: in the schema's order; two modalities may share one.
        tunings: of each modality that has an encoder of its own.
    """

    by_modality: dict[str, Encoder]
    tunings: dict[str, Tuning]


@dataclass(frozen=True)
class Built:
    """A model, and how it is tuned.

    Attributes:
        model: with a fresh fusion and head.
        tunings: of each modality that has an encoder of its own.
        cached: by modality, the encoder whose Features never change: its own, or the lower part of it.
    """

    model: Model
    tunings: dict[str, Tuning]
    cached: dict[str, Encoder]


def build(recipe: Recipe, schema: Schema, device: torch.device, stored: Path | None = None) -> Built:
    """Make the model that a completed recipe describes.

    Args:
        recipe: completed for the schema, with a fusion or an ensemble: what "auto" stands for is found in a fit.
        schema: of the training table.
        device: where the model will run; decides the precision when that is "auto".
        stored: an artifact's folder, whose backbones and adapters are read instead of the checkpoints.

    Raises:
        RecipeError: the parts do not go together.
    """
    precision = precision_of(recipe, device)
    with _recipe_errors():
        if recipe.fusion.name != "ensemble":
            encoders = make_encoders(recipe, schema, stored)
            model: Model = make_fusion_model(recipe, schema, encoders.by_modality, recipe.fusion, precision)
            return Built(model, encoders.tunings, cached_of(recipe, encoders))
        encoders = make_encoders(recipe, schema, stored, resting=True)
        members = [
            _make_member(recipe, schema, encoders, spec, precision, stored and stored / "members" / str(number))
            for number, spec in enumerate(EnsembleWay(**recipe.fusion.options).members)
        ]
        head = make_head(recipe, schema, 1)
        words = {name: WordStatistics() for name in text_modalities(schema)}
        model = Ensemble(encoders.by_modality, head, members, words, precision=precision)
    own = {name for member in members for name in member.own}
    cached = {name: part for name, part in cached_of(recipe, encoders).items() if name not in own}
    return Built(model, encoders.tunings, cached)


def make_encoders(recipe: Recipe, schema: Schema, stored: Path | None = None, *, resting: bool = False) -> Encoders:
    """Make the encoders of a completed recipe, each with its tuning.

    Args:
        recipe: completed for the schema.
        schema: of the training table.
        stored: a folder with `encoders/<number>`, whose backbones and adapters are read instead of the checkpoints.
        resting: leave pretrained backbones as they are, whatever their tuning.
    """
    assert recipe.modalities is not None
    assert isinstance(recipe.tuning, dict)
    own: dict[str, Encoder] = {}
    tunings: dict[str, Tuning] = {}
    for i, (name, modality) in enumerate(recipe.modalities.items()):
        if modality.encoder is None:
            continue
        folder = stored / "encoders" / str(i) if stored is not None else None
        options = modality.encoder.options
        if folder is not None and (folder / "backbone").is_dir():
            options["checkpoint"] = str(folder / "backbone")
        own[name] = encoder = ENCODERS.build(modality.encoder.name, options, schema.of(name))
        component = recipe.tuning[name]
        if resting and encoder.backbone is not None:
            component = Component(name="frozen")
        tunings[name] = tuning = TUNINGS.build(component.name, component.options)
        if folder is not None and (folder / "adapter").is_dir():
            tuning.restore(encoder, folder / "adapter")
        else:
            tuning.apply(encoder)
        if tuning.frozen and encoder.backbone is not None:
            encoder.way = _way_of(recipe, name)
    return Encoders({name: own[modality.share or name] for name, modality in recipe.modalities.items()}, tunings)


def make_fusion_model(
    recipe: Recipe, schema: Schema, encoders: Mapping[str, Encoder], fusion: Component, precision: Precision
) -> FusionModel:
    """Make a model with a fresh fusion and head over some encoders."""
    dims = {name: encoder.dim for name, encoder in encoders.items()}
    fused = FUSIONS.build(fusion.name, fusion.options, dims)
    return FusionModel(encoders, fused, make_head(recipe, schema, fused.dim), precision=precision)


def make_head(recipe: Recipe, schema: Schema, dim: int) -> Head:
    """Make the head of a completed recipe."""
    assert recipe.head is not None
    return HEADS.build(recipe.head.name, recipe.head.options, dim, schema.target)


def with_fresh_tables(recipe: Recipe, schema: Schema, encoders: Mapping[str, Encoder]) -> dict[str, Encoder]:
    """Return the encoders, with new ones in place of those of a table: each model learns its own."""
    assert recipe.modalities is not None
    fresh: dict[Encoder, Encoder] = {}
    for name, encoder in encoders.items():
        owner = recipe.modalities[name].share or name
        made = recipe.modalities[owner].encoder
        if made is not None and is_table(encoder) and encoder not in fresh:
            fresh[encoder] = ENCODERS.build(made.name, made.options, schema.of(owner))
    return {name: fresh.get(encoder, encoder) for name, encoder in encoders.items()}


def text_modalities(schema: Schema) -> list[str]:
    """Name the modalities that have a text."""
    return [name for name in schema.modalities if any(column.type == "text" for column in schema.of(name))]


def with_ways(recipe: Recipe, model: Model) -> Recipe:
    """Return a recipe that says how the encoders at rest were run, where that was to be found."""
    given = recipe.training.compute
    asked = given if isinstance(given, dict) else dict.fromkeys(model.modalities, given)
    encoders = {name: model.encoder(name) for name in model.modalities}
    ways = {name: found.way for name, found in encoders.items() if found.way and found.backbone is not None}
    if all(asked.get(name, "auto") != "auto" for name in ways):
        return recipe
    training = recipe.training.model_copy(update={"compute": {**(given if isinstance(given, dict) else {}), **ways}})
    return recipe.model_copy(update={"training": training})


def _way_of(recipe: Recipe, modality: str) -> Way | None:
    """Return how an encoder at rest is run; None where that is to be found.

    Raises:
        RecipeError: the recipe says it of a modality that is not there.
    """
    given, known = recipe.training.compute, recipe.modalities or {}
    if not isinstance(given, dict):
        return None if given == "auto" else given
    for name in given:
        if name not in known:
            raise RecipeError(f"training.compute.{name}: there is no such modality; {nearest(name, known)}")
    chosen = given.get(modality, "auto")
    return None if chosen == "auto" else chosen


def precision_of(recipe: Recipe, device: torch.device) -> Precision:
    """Return the precision of backbones that move, or of which only the lower part rests, and of what is compared."""
    chosen = recipe.training.precision
    if chosen == "auto":
        return "bf16" if has_bf16(device) else "float32"
    return chosen


def _make_member(
    recipe: Recipe, schema: Schema, shared: Encoders, spec: MemberSpec, precision: Precision, stored: Path | None
) -> Member:
    for name in spec.modalities or ():
        if name not in schema.modalities:
            raise InputError(f"fusion.members: there is no modality {name!r}; {nearest(name, schema.modalities)}")
    chosen = tuple(name for name in schema.modalities if spec.modalities is None or name in spec.modalities)
    label = member_name(spec, schema)
    if spec.combine.name in LEARNERS:
        learner = make_learner(spec.combine.name, spec.combine.options, schema.target)
        return Member(label, spec.weight, learner, chosen, tuple(spec.parts or ("features", "words")))
    own: dict[str, Tuning] = {}
    encoders = with_fresh_tables(recipe, schema, {name: shared.by_modality[name] for name in chosen})
    if spec.tuned:
        tuned = make_encoders(recipe, schema, stored)
        resting = _resting(recipe, tuned)
        own = {
            name: tuned.tunings[modality.share or name]
            for name, modality in (recipe.modalities or {}).items()
            if name in chosen and tuned.by_modality[name].backbone is not None and name not in resting
        }
        encoders |= {name: tuned.by_modality[name] for name in own}
    model = make_fusion_model(recipe, schema, encoders, spec.combine, precision)
    return Member(label, spec.weight, model, chosen, own=own)


def member_name(spec: MemberSpec, schema: Schema) -> str:
    """Say what a member is, as comparisons call it."""
    name = spec.combine.name + (", trained as a whole" if spec.tuned else "")
    if spec.parts == ["words"]:
        name += " of words"
    elif spec.parts == ["features"]:
        name += " of features"
    return name if spec.modalities is None else f"{name} ({', '.join(spec.modalities)})"


def cached_of(recipe: Recipe, encoders: Encoders) -> dict[str, Encoder]:
    """Return, by modality, the encoder whose Features never change: its own, or the lower part of it."""
    assert recipe.modalities is not None
    parts = {name: tuning.cached(encoders.by_modality[name]) for name, tuning in encoders.tunings.items()}
    resting = {name: parts[modality.share or name] for name, modality in recipe.modalities.items()}
    return {name: part for name, part in resting.items() if part is not None}


def _resting(recipe: Recipe, encoders: Encoders) -> set[str]:
    """Name the modalities whose encoder does not move."""
    cached = cached_of(recipe, encoders)
    return {name for name, part in cached.items() if part is encoders.by_modality[name]}


@contextmanager
def _recipe_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if isinstance(error, RecipeError) or type(error) is not ValueError:
            raise
        raise RecipeError(f"the recipe's parts do not go together: {error}") from error
