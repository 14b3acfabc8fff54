"""What a search draws, derived from the constructors of what a recipe names and from what the user said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias, get_type_hints

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.registry import Registry
from polyfuse.data.schema import Schema
from polyfuse.encoders import ENCODERS
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.learners import LEARNERS
from polyfuse.recipe import Component, Recipe
from polyfuse.search.candidates import applying
from polyfuse.search.material import TOKENS
from polyfuse.study.domains import Choices, Domain, Kind, domain_of
from polyfuse.study.reading import Given, settled
from polyfuse.study.space import Parameter, Place, Space, heads_of
from polyfuse.training.settings import TrainingSettings
from polyfuse.tuning import TUNINGS

#: Settings of training that are searched where nothing is said.
SEARCHED = ("learning_rate", "weight_decay", "batch_size", "modality_dropout", "mixup")
#: Those that decide by what, how long and from which seed: searched, they would only flatter.
_NEVER = ("metric", "seed", "time_limit", "checkpoint_every", "trackers", "compute", "precision")
_FIRST = "concat"

_Needs: TypeAlias = tuple[tuple[str, frozenset[str]], ...]


def space_of(
    recipe: Recipe,
    schema: Schema,
    fixed: Collection[str],
    asked: Mapping[str, Given],
    tunings: Mapping[str, Sequence[str]] | None = None,
) -> Space:
    """Derive what a search draws.

    Where nothing is said, that is: the fusion, where the recipe says "auto", from all that apply; the tuning of
    pretrained encoders, with the preset "best"; the options of whatever is drawn or stands there, and of the head; and
    SEARCHED of training.

    Args:
        recipe: completed.
        schema: of the table.
        fixed: dotted keys that the user set: they stay.
        asked: where the user wants the search to look, by dotted key.
        tunings: of each pretrained encoder those that it takes; all when left out.

    Raises:
        InputError: a key is unknown, or cannot take what is asked, or stays; or nothing is left to search.
    """
    deriving = _Deriving(recipe, schema, fixed, asked)
    deriving.fusion()
    deriving.tunings(tunings or {})
    deriving.others()
    return deriving.space()


class _Deriving:
    """A space under way; the arguments are those of `space_of`."""

    def __init__(self, recipe: Recipe, schema: Schema, fixed: Collection[str], asked: Mapping[str, Given]) -> None:
        self.recipe, self.schema, self.asked = recipe, schema, dict(asked)
        # To be found is what "auto" says, whoever says it.
        self.fixed = set(fixed) - ({"fusion"} if recipe.fusion.name == "auto" else set())
        for key in self.asked:
            if key in self.fixed:
                raise InputError(f"{key} is set, and to be searched: leave out --set {key} or --space {key}")
        self.parameters: list[Parameter] = []
        self.standing: dict[Place, dict[str, Any]] = {}
        self.known: set[str] = set()
        self.trained: _Needs | None = ()

    def fusion(self) -> None:
        """Choose among fusions and learners, and derive their options."""
        base, every = self.recipe.fusion, [*FUSIONS, *LEARNERS]
        usual = None
        if base.name == "auto":
            wanted = base.options.get("candidates")
            usual = [name for name in applying(self.schema) if wanted is None or name in wanted]
            if not usual and "fusion" not in self.asked:
                raise InputError("fusion.candidates: name a fusion or a learner that applies, for there is none to try")
        names = self._choice(("fusion",), every, usual, base.name if base.name in every else _FIRST)
        trained = frozenset(name for name in names or [base.name] if name not in LEARNERS)
        # Of what is trained in steps; a learner has no use for it.
        self.trained = None if not trained else (("fusion", trained),) if names and len(trained) < len(names) else ()
        for name in names or [base.name]:
            if name in every:
                registry: Registry[Any] = FUSIONS if name in FUSIONS else LEARNERS
                needs: _Needs = (("fusion", frozenset([name])),) if names else ()
                self._component(("fusion", name), name, registry, base, needs)
                if names and "most_tokens" in registry.options(name):
                    self.standing["fusion", name] = {"most_tokens": TOKENS}

    def tunings(self, taken: Mapping[str, Sequence[str]]) -> None:
        """Choose among the tunings of each pretrained encoder, and derive their options."""
        tuning, modalities = self.recipe.tuning, self.recipe.modalities or {}
        assert isinstance(tuning, dict)
        for modality, base in tuning.items():
            encoder = modalities[modality].encoder
            if encoder is None or "checkpoint" not in ENCODERS.options(encoder.name):
                continue
            open_ = self.recipe.preset == "best" and "tuning" not in self.fixed
            usual = list(taken.get(modality, TUNINGS)) if open_ else None
            place = ("tuning", modality)
            names = self._choice(place, None, usual, base.name, self.trained)
            if self.trained is None:
                continue
            for name in names or [base.name]:
                chosen: _Needs = ((".".join(place), frozenset([name])),) if names else ()
                # Of peft's own configurations, for they are full of switches that are no matter of degree.
                usual_options = None if name in list(TUNINGS) else ("learning_rate",)
                self._component((*place, name), name, TUNINGS, base, (*self.trained, *chosen), usual_options)

    def others(self) -> None:
        """Derive the options of the head, of training, and, where they are asked for, of encoders."""
        recipe = self.recipe
        assert recipe.head is not None
        hints = get_type_hints(TrainingSettings, include_extras=True)
        many = len(self.schema.modalities) > 1
        if self.trained is not None:
            self._component(("head",), recipe.head.name, HEADS, recipe.head, self.trained)
            for target, head in heads_of(recipe.head).items():
                self._component(("head", "heads", target), head.name, HEADS, head, self.trained)
            for name in [name for name in TrainingSettings.model_fields if name not in _NEVER]:
                usual = name in SEARCHED and (many or name != "modality_dropout")
                usual = usual and "training" not in self.fixed
                self._add(("training", name), hints[name], getattr(recipe.training, name), self.trained, usual=usual)
        for modality, described in (recipe.modalities or {}).items():
            if described.encoder is not None:
                place = ("modalities", modality, "encoder")
                self._component(place, described.encoder.name, ENCODERS, described.encoder, (), ())

    def space(self) -> Space:
        """Return what was derived.

        Raises:
            InputError: something was asked for that is not there, or nothing is left to search.
        """
        for key in self.asked:
            if key not in self.known:
                raise InputError(f"--space {key}: there is nothing of this name to search; {nearest(key, self.known)}")
        if not self.parameters:
            raise InputError("nothing is left to search: set less, or say with --space what is to be searched")
        return Space(self.recipe, tuple(self.parameters), self.standing)

    def _choice(
        self, place: Place, known: list[str] | None, usual: list[str] | None, default: str, needs: _Needs | None = ()
    ) -> list[str]:
        """Add a choice of a component, and return its names; none where it is not searched.

        Args:
            place: of the component.
            known: all names; None where the recipe alone can check them.
            usual: names where nothing is said; None where it is not searched then.
            default: the name that stands there.
            needs: what it is drawn with; None if it never is.
        """
        key = ".".join(place)
        self.known.add(key)
        given = self.asked.get(key)
        if given is None and (usual is None or key in self.fixed or needs is None):
            return []
        names = list(usual or ()) if given is None else _names(given, key, known)
        self.parameters.append(Parameter(place, Choices(tuple(names)), default, needs or ()))
        return names

    def _component(
        self,
        place: Place,
        name: str,
        registry: Registry[Any],
        base: Component,
        needs: _Needs,
        usual: Collection[str] | None = None,
    ) -> None:
        """Add the options of a component.

        Args:
            place: ends with the component's name where it may be drawn itself.
            name: of the component.
            registry: of its family.
            base: the component that stands there.
            needs: what they are drawn with.
            usual: options that are searched where nothing is said; all when None.
        """
        options = registry.options(name)
        stands = {option: parameter.default for option, parameter in options.items()}
        stands |= base.options if base.name == name else {}
        for option, parameter in options.items():
            at_most = Kind.of(parameter.annotation).at_most
            limit = None if at_most is None else (".".join((*place, at_most)), stands[at_most])
            wanted = usual is None or option in usual
            self._add((*place, option), parameter.annotation, stands[option], needs, usual=wanted, limit=limit)

    def _add(
        self,
        place: Place,
        annotation: Any,
        default: Any,
        needs: _Needs,
        *,
        usual: bool,
        limit: tuple[str, Any] | None = None,
    ) -> None:
        """Add an option, if it is asked for, or usual and not set."""
        # By its whole name, or without the component's: `fusion.depth` means that of every fusion.
        keys = [".".join(place)]
        if place[0] in ("fusion", "tuning"):
            keys.append(".".join((*place[:-2], place[-1])))
        self.known |= set(keys)
        given = next((self.asked[key] for key in keys if key in self.asked), None)
        domain: Domain | None = None
        if given is not None:
            domain = settled(given, annotation, default, keys[0])
        elif usual and not self.fixed.intersection(keys):
            domain = domain_of(annotation, default)
        if domain is not None:
            self.parameters.append(Parameter(place, domain, default, needs, limit))


def _names(given: Given, key: str, known: list[str] | None) -> list[str]:
    """Return the names that a component is to be chosen from.

    Raises:
        InputError: it is a range, or a name is unknown.
    """
    if not isinstance(given, tuple):
        raise InputError(f"--space {key}: list the names to choose from, e.g. {key}=ONE,OTHER")
    for name in map(str, given):
        if known is None:
            TUNINGS.options(name)
        elif name not in known:
            raise InputError(f"--space {key}: there is no {name!r} to search; {nearest(name, known)}")
    return list(dict.fromkeys(map(str, given)))
