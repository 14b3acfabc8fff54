"""Recipes in: from YAML or a mapping, everything checked before any work, all errors at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from polyfuse.core.errors import InputError, RecipeError, nearest
from polyfuse.core.registry import Registry
from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.encoders import ENCODERS
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.learners import LEARNERS
from polyfuse.recipe.description import DataSettings, Modality, Recipe, ScreenSettings
from polyfuse.recipe.ways import WAYS
from polyfuse.training.fairness import FairnessSettings
from polyfuse.training.settings import AdversarialSettings, TrainingSettings
from polyfuse.tuning import TUNINGS

MAX_BYTES = 8 << 20

#: Every family of components, by the word that a recipe has for it.
FAMILIES: dict[str, Registry[Any]] = {
    "encoder": ENCODERS,
    "fusion": FUSIONS,
    "learner": LEARNERS,
    "way": WAYS,
    "head": HEADS,
    "tuning": TUNINGS,
    "augmentation": AUGMENTATIONS,
}

Place: TypeAlias = tuple[Any, ...]
Errors: TypeAlias = Iterator[tuple[Place, str]]


def read_recipe(
    source: Recipe | Mapping[str, Any] | str | Path, *, target: str | Sequence[str] | None = None
) -> Recipe:
    """Read a recipe from a YAML file or a mapping.

    Args:
        source: the file, the mapping, or a recipe.
        target: goes before what stands there.

    Raises:
        RecipeError: with everything that is wrong in it, each with its place.
    """
    lines: dict[Place, int] = {}
    document: Any
    if isinstance(source, Recipe):
        document, name = source.as_data(), "the recipe"
    elif isinstance(source, Mapping):
        document, name = deepcopy(dict(source)), "the recipe"
    else:
        (document, lines), name = _load(Path(source)), str(source)
    if target is not None and isinstance(document, dict):
        document["target"] = target if isinstance(target, str) else list(target)
    return _checked(document, name, lines)


def updated(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some settings replaced; keys may be dotted, e.g. "training.epochs" or "fusion.heads".

    A mapping is merged into the one that stands there.

    Raises:
        RecipeError: a setting is wrong.
    """
    document = recipe.as_data()
    for key, value in settings.items():
        *path, last = key.split(".")
        place = document
        for part in path:
            inner = place.get(part, {})
            if not isinstance(inner, str | Mapping):
                raise RecipeError(f"{key}: {part} holds {inner!r:.80}, which has no keys; set {part} itself")
            # A component that stands there by its name alone gets its options beside the name.
            place[part] = {"name": inner} if isinstance(inner, str) else dict(inner)
            place = place[part]
        before = place.get(last)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and "name" not in value:
            value = {**before, **value}
        place[last] = value
    return _checked(document, "the settings", {})


def _checked(document: Any, name: str, lines: Mapping[Place, int]) -> Recipe:
    if not isinstance(document, dict):
        raise RecipeError(f"{name}: a recipe is a mapping that begins with  target: <column>;  given {document!r:.80}")
    # First the components: their options are brought to the type that the constructor wants.
    errors = list(_component_errors(document))
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        errors += [(item["loc"], _say(item)) for item in error.errors() if not _told(item["loc"], document)]
    if not errors:
        return recipe
    told = []
    for place, message in dict.fromkeys(errors):
        line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 0)
        where = f"line {line}, " if line else ""
        told.append((line, f"  - {where}{'.'.join(map(str, place))}: {message}"))
    listed = "\n".join(text for _, text in sorted(told, key=lambda item: item[0]))
    raise RecipeError(f"{len(told)} problem{'s' if len(told) != 1 else ''} in {name}:\n{listed}")


def _told(place: Place, document: Mapping[str, Any]) -> bool:
    """Tell whether `_tuning_errors` has said already what is wrong at a place."""
    return place[0] == "tuning" and document["tuning"] is not None


def _say(item: Any) -> str:
    """Say what pydantic found, in the words of this house."""
    if item["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(item['loc'][-1]), _keys_at(item['loc'][:-1]))}"
    if item["type"] == "missing":
        return "is missing"
    given = "" if isinstance(item["input"], dict | list) else f"{item['input']!r:.80} given: "
    return f"{given}{item['msg'].removeprefix('Value error, ')}"


def _keys_at(place: Place) -> list[str]:
    models: dict[Any, type[BaseModel]] = {
        "data": DataSettings,
        "training": TrainingSettings,
        "modalities": Modality,
        "adversarial": AdversarialSettings,
        "fairness": FairnessSettings,
        "screen": ScreenSettings,
    }
    return list((models[place[0]] if place else Recipe).model_fields)


def _component_errors(document: Mapping[str, Any]) -> Errors:
    """Check every component against the constructor of its class, and bring its options to the types there."""
    yield from _way_errors(document.get("fusion"))
    yield from _head_errors(document.get("head"))
    yield from _tuning_errors(document.get("tuning"))
    augmentation = document.get("augmentation")
    for name, some in (augmentation if isinstance(augmentation, Mapping) else {}).items():
        for number, value in enumerate(some if isinstance(some, list) else []):
            yield from _option_errors(AUGMENTATIONS, value, "augmentation", name, number)
    modalities = document.get("modalities")
    for name, modality in (modalities if isinstance(modalities, Mapping) else {}).items():
        if isinstance(modality, Mapping):
            yield from _option_errors(ENCODERS, modality.get("encoder"), "modalities", name, "encoder")
            if modality.get("encoder") and modality.get("share"):
                yield ("modalities", name), "has an encoder and a share; leave one of them out"


def _way_errors(value: Any) -> Errors:
    """Check what stands under `fusion`: a fusion, a learner, or another way to combine."""
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str):
        return
    families: tuple[Registry[Any], ...] = (FUSIONS, LEARNERS, WAYS)
    family = next((family for family in families if name in family), None)
    if family is None:
        every = [way for family in families for way in family]
        yield ("fusion",), f"there is no way to combine called {name!r}; {nearest(name, every)}"
    else:
        yield from _option_errors(family, value, "fusion")


def _head_errors(head: Any) -> Errors:
    """Check a head; of several targets, that of each too."""
    yield from _option_errors(HEADS, head, "head")
    heads = head.get("heads") if isinstance(head, Mapping) else None
    for name, value in (heads if isinstance(heads, Mapping) else {}).items():
        if isinstance(value, str) or (isinstance(value, Mapping) and isinstance(value.get("name"), str)):
            yield from _option_errors(HEADS, value, "head", "heads", name)
        else:
            yield ("head", "heads", name), f"{value!r:.80} given: a head is a name, or a mapping with a name"


def _tuning_errors(tuning: Any) -> Errors:
    if isinstance(tuning, str) or (isinstance(tuning, Mapping) and isinstance(tuning.get("name"), str)):
        yield from _option_errors(TUNINGS, tuning, "tuning")
    elif isinstance(tuning, Mapping):
        for name, value in tuning.items():
            if isinstance(value, str) or (isinstance(value, Mapping) and "name" in value):
                yield from _option_errors(TUNINGS, value, "tuning", name)
            else:
                yield ("tuning", name), f"{value!r:.80} given: a tuning is a name, or a mapping with a name"
    elif tuning is not None:
        yield ("tuning",), f"{tuning!r:.80} given: it is one tuning for all, or a mapping from modality to tuning"


def _option_errors(registry: Registry[Any], value: Any, *place: Any) -> Errors:
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        return  # pydantic tells of that
    try:
        known = registry.options(name)
    except InputError as error:
        yield place, str(error)
        return
    for option, given in options.items():
        if option not in known:
            yield (*place, option), f"{name} has no such option; {nearest(str(option), known)}"
            continue
        try:
            value[option] = _adapter(registry, name, option).validate_python(given)
        except ValidationError as error:
            for item in error.errors():
                shown = "" if item["loc"] else f"{given!r:.80} given: "
                yield (*place, option, *item["loc"]), f"{shown}{item['msg']}"


@cache
def _adapter(registry: Registry[Any], name: str, option: str) -> TypeAdapter[Any]:
    return TypeAdapter(registry.options(name)[option].annotation)


def _load(path: Path) -> tuple[Any, dict[Place, int]]:
    """Read YAML, with the line of every key."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"the recipe {path} has {len(raw):,} bytes; a recipe has at most {MAX_BYTES:,}")
    lines: dict[Place, int] = {}
    try:
        text = raw.decode("utf-8-sig")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise RecipeError(f"the recipe {path} uses a YAML alias (*name), which a recipe may not: write it out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _note_lines(node, (), lines)
        return yaml.safe_load(text), lines
    except RecipeError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error


def _note_lines(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            if inner in lines:
                raise RecipeError(f"line {key.start_mark.line + 1}: {'.'.join(inner)} is given twice; leave one out")
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*place, i)] = value.start_mark.line + 1
            _note_lines(value, (*place, i), lines)
