"""The recipes that a search tries: what is drawn, when, and the recipe that the drawn values stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from polyfuse.fusion import FUSIONS
from polyfuse.recipe import Component, Recipe, read_recipe
from polyfuse.study.domains import Domain, Integers, Value

Place: TypeAlias = tuple[str, ...]
Drawn: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class Parameter:
    """One thing that is drawn.

    Attributes:
        place: where it stands, e.g. ("fusion", "attention", "depth").
        domain: what it is drawn from.
        default: what it is without a search.
        needs: names of parameters that stand before it, each with the values that it is drawn with.
        limit: name of a parameter that it does not exceed, and what that is where it is not drawn.
    """

    place: Place
    domain: Domain
    default: Any
    needs: tuple[tuple[str, frozenset[str]], ...] = ()
    limit: tuple[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its name in the study."""
        return ".".join(self.place)

    def wanted(self, drawn: Mapping[str, Value]) -> bool:
        """Tell whether it is drawn, after what was drawn already."""
        return all(drawn.get(name) in values for name, values in self.needs)

    def within(self, drawn: Mapping[str, Value]) -> Domain:
        """Return what it is drawn from, after what was drawn already."""
        if self.limit is None or not isinstance(self.domain, Integers):
            return self.domain
        name, standing = self.limit
        high = min(self.domain.high, int(drawn.get(name, standing)))
        return replace(self.domain, low=min(self.domain.low, high), high=high)


#: Draws a value of a parameter from a domain.
Pick: TypeAlias = Callable[[Parameter, Domain], Value]


@dataclass(frozen=True)
class Space:
    """What a search draws, and around which recipe.

    Attributes:
        base: completed; what is not drawn stays as it stands there.
        parameters: in the order in which they are drawn.
        standing: options that a component has where nothing else is said, by the place of the component.
    """

    base: Recipe
    parameters: tuple[Parameter, ...]
    standing: Mapping[Place, Mapping[str, Any]] = field(default_factory=dict)

    def draw(self, pick: Pick) -> Drawn:
        """Draw a value of each parameter; options of a component only where that component was drawn."""
        drawn: Drawn = {}
        for parameter in self.parameters:
            if parameter.wanted(drawn):
                drawn[parameter.name] = pick(parameter, parameter.within(drawn))
        return drawn

    def suggest(self, trial: Any) -> Drawn:
        """Let an Optuna trial draw."""
        return self.draw(lambda parameter, domain: domain.suggest(trial, parameter.name))

    def defaults(self) -> Drawn:
        """Return the values that come nearest to the recipe as it stands."""
        return self.draw(lambda parameter, domain: domain.nearest(parameter.default))

    def recipe(self, drawn: Mapping[str, Value]) -> Recipe:
        """Return the recipe that some drawn values stand for.

        Raises:
            RecipeError: they do not go together.
        """
        base, values = self.base, {p.place: drawn[p.name] for p in self.parameters if p.name in drawn}
        assert isinstance(base.tuning, dict)
        assert base.head is not None
        tuning = {name: self._component(known, ("tuning", name), values) for name, known in base.tuning.items()}
        modalities = {}
        for name, modality in (base.modalities or {}).items():
            options = _below(values, ("modalities", name, "encoder"))
            if modality.encoder is not None and options:
                modality = modality.model_copy(update={"encoder": _with(modality.encoder, options)})
            modalities[name] = modality
        made = base.model_copy(
            update={
                "fusion": self._component(base.fusion, ("fusion",), values),
                "head": _head(base.head, values),
                "tuning": tuning,
                "modalities": modalities,
                "training": base.training.model_copy(update=_below(values, ("training",))),
            }
        )
        return read_recipe(made)

    def describe(self) -> dict[str, str]:
        """Say what each parameter is drawn from."""
        return {parameter.name: str(parameter.domain) for parameter in self.parameters}

    def names(self, *place: str) -> tuple[str, ...]:
        """Return the names that a component is chosen from: one, where it is not drawn."""
        for parameter in self.parameters:
            if parameter.place == place:
                return tuple(map(str, getattr(parameter.domain, "values", ())))
        assert isinstance(self.base.tuning, dict)
        return (self.base.fusion.name if place == ("fusion",) else self.base.tuning[place[1]].name,)

    @property
    def reads_tokens(self) -> bool:
        """Whether some fusion reads all tokens of an encoder at rest."""
        return any(name in FUSIONS and FUSIONS[name].needs == "tokens" for name in self.names("fusion"))

    def _component(self, base: Component, place: Place, values: Mapping[Place, Value]) -> Component:
        """Return a component whose name may have been drawn, with its options."""
        name = str(values.get(place, base.name))
        options = {**self.standing.get((*place, name), {}), **(base.options if name == base.name else {})}
        return Component.model_validate({"name": name, **options, **_below(values, (*place, name))})


def heads_of(head: Component) -> dict[str, Component]:
    """Return the head of each of several targets; none where there is one target."""
    return {name: Component.model_validate(own) for name, own in (head.options.get("heads") or {}).items()}


def _head(head: Component, values: Mapping[Place, Value]) -> Component:
    """Return a head with the options that were drawn, of several targets those of each."""
    made = _with(head, _below(values, ("head",)))
    heads = {
        name: _with(own, _below(values, ("head", "heads", name))).as_data() for name, own in heads_of(head).items()
    }
    return Component.model_validate({"name": made.name, **made.options, "heads": heads}) if heads else made


def _below(values: Mapping[Place, Value], place: Place) -> dict[str, Value]:
    """Return the options that were drawn of what stands at a place."""
    return {found[-1]: value for found, value in values.items() if found[:-1] == place}


def _with(component: Component, options: Mapping[str, Value]) -> Component:
    return Component.model_validate({"name": component.name, **component.options, **options})
