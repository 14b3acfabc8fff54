"""What a model is trained against: adversaries, and noise."""

from __future__ import annotations

from polyfuse.attacks import build_threat, default_threat, name_of
from polyfuse.attacks.noise import check_noise
from polyfuse.attacks.threat import Threat
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import RecipeError, nearest
from polyfuse.data.schema import Schema
from polyfuse.recipe import Built, Recipe
from polyfuse.training.settings import SHARE, AdversarialSettings


def with_budgets(recipe: Recipe, built: Built, schema: Schema) -> Recipe:
    """Return the recipe with what the adversary was allowed, where that was left to us."""
    if recipe.adversarial is None or recipe.adversarial.budgets is not None:
        return recipe
    if recipe.adversarial.regularises:
        return recipe.model_copy(update={"adversarial": with_embeddings(recipe, built, schema)})
    threats = threats_of_training(recipe, built, schema)
    budgets = {name: {"name": name_of(threat), **threat.options()} for name, threat in threats.items()}
    return recipe.model_copy(update={"adversarial": recipe.adversarial.model_copy(update={"budgets": budgets})})


def threats_of_training(recipe: Recipe, built: Built, schema: Schema) -> dict[str, Threat]:
    """Return the threats that a model is trained against.

    Raises:
        RecipeError: a modality cannot be attacked while it is trained.
    """
    if recipe.adversarial is None or recipe.adversarial.regularises:
        return {}
    for name in recipe.adversarial.features or ():
        if name not in schema.modalities:
            raise RecipeError(
                f"adversarial.features: there is no modality {name!r}; {nearest(name, schema.modalities)}"
            )
        if built.cached.get(name) is not built.model.encoder(name):
            raise RecipeError(
                f"adversarial.features: the encoder of {name!r} is trained, so that its Features are not known before;"
                f" let it rest, tuning: {{{name}: frozen}}, or give a budget for its input"
            )
    budgets = recipe.adversarial.budgets
    threats = {}
    for name in schema.modalities if budgets is None else budgets:
        if name not in schema.modalities:
            raise RecipeError(f"adversarial.budgets: there is no modality {name!r}; {nearest(name, schema.modalities)}")
        columns, encoder = schema.of(name), built.model.encoder(name)
        choice = default_threat(columns) if budgets is None else budgets[name]
        resting = name in built.cached
        if budgets is None and (choice is None or resting or not encoder.continuous):
            continue
        threat = build_threat(choice, name, columns) if choice is not None else None
        if budgets is None and threat is not None and threat.discrete:  # a step along the gradient is none of its edits
            continue
        if threat is None or threat.discrete or not threat.continuous or not encoder.continuous:
            raise RecipeError(
                f"adversarial.budgets: what training does to {name!r} would not be what {choice!r} allows: it knows"
                " images, recordings, clouds and vectors; leave it out"
            )
        if resting:
            raise _rests(name, "adversarial.budgets")
        threats[name] = threat
    if not threats and not recipe.adversarial.features:
        raise RecipeError(
            "adversarial: none of the modalities has a continuous input and an encoder that is trained; give an image,"
            " a recording, a cloud or a vector, with tuning: full"
        )
    return threats


def with_embeddings(recipe: Recipe, built: Built, schema: Schema) -> AdversarialSettings | None:
    """Return how a model is trained against an adversary, with the texts whose embeddings are shifted.

    Raises:
        RecipeError: a modality has no embeddings, or its encoder rests; or there is none.
    """
    settings = recipe.adversarial
    if settings is None or not settings.regularises:
        return settings
    with_words = [name for name in schema.modalities if _has_embeddings(built.model.encoder(name))]
    for name in settings.embeddings or ():
        if name not in with_words:
            raise RecipeError(f"adversarial.embeddings: {name!r} is no text; {nearest(name, with_words)}")
        if name in built.cached:
            raise _rests(name, "adversarial.embeddings")
    trained = [name for name in with_words if name not in built.cached]
    if not trained:
        raise RecipeError(
            f"adversarial.method: {settings.method!r} shifts embeddings of text, and there is no text whose encoder is"
            " trained from its first layer on; tune it, e.g. tuning: {text: lora}, or leave it out"
        )
    shares = dict.fromkeys(trained, SHARE) if settings.embeddings is None else settings.embeddings
    return settings.model_copy(update={"embeddings": shares})


def _has_embeddings(encoder: Encoder) -> bool:
    return type(encoder).embedded is not Encoder.embedded


def check_noise_of_training(recipe: Recipe, built: Built, schema: Schema) -> None:
    """Check that noise can be added while a model is trained.

    Raises:
        InputError: a modality is unknown, has no continuous input, or its encoder rests.
    """
    noise = recipe.training.noise or {}
    check_noise(noise, schema, built.model.encoder, "training.noise")
    for name in noise:
        if name in built.cached:
            raise _rests(name, "training.noise")


def _rests(name: str, place: str) -> RecipeError:
    return RecipeError(
        f"{place}: the encoder of {name!r} rests, so that what it says of a value is computed once;"
        f" tune it, e.g. tuning: {{{name}: full}}, or leave it out"
    )
