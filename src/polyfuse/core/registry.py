"""One table for each family of components: a name, and where its class lives."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from polyfuse.core.errors import InputError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of components, and the classes behind them, imported when first asked for.

    Third parties add their own through the entry point group `polyfuse.<family>`, or with `register`.

    Args:
        family: what the components are, in the plural, e.g. "encoders".
        places: name to "module:Class".
    """

    def __init__(self, family: str, places: Mapping[str, str]) -> None:
        self.family = family
        self._places = dict(places)
        self._classes: dict[str, type[T]] = {}
        self._scanned = False

    def register(self, name: str, component: type[T] | str) -> None:
        """Add a component by its class, or by "module:Class".

        Raises:
            InputError: the name is taken.
        """
        self._scan()
        if name in self._places:
            raise InputError(f"{self.family}: the name {name!r} is taken by {self._places[name]}; choose another")
        if isinstance(component, str):
            self._places[name] = component
        else:
            self._places[name] = f"{component.__module__}:{component.__qualname__}"
            self._classes[name] = component

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            module, _, attribute = self._place(name).partition(":")
            self._classes[name] = getattr(importlib.import_module(module), attribute)
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._places))

    def __len__(self) -> int:
        self._scan()
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._places

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """Return what a user may set on a component: the keyword-only parameters of its constructor."""
        parameters = inspect.signature(self[name], eval_str=True).parameters
        return {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}

    def build(self, name: str, options: Mapping[str, Any], /, *supplied: Any) -> T:
        """Make a component from what the builder supplies and what the user set.

        Raises:
            InputError: the name, or an option, is unknown.
        """
        known = self.options(name)
        for option in options:
            if option not in known:
                raise InputError(f"{self.family}: {name!r} has no option {option!r}; {nearest(option, known)}")
        return self[name](*supplied, **options)

    def _place(self, name: str) -> str:
        if name not in self._places:
            self._scan()
        if name not in self._places:
            raise InputError(f"{self.family}: there is no {name!r}; {nearest(name, self._places)}")
        return self._places[name]

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for point in entry_points(group=f"polyfuse.{self.family}"):
            if point.name in self._places:
                taken = f"taken by {self._places[point.name]}; uninstall one of them"
                raise InputError(f"{self.family}: {point.value} wants the name {point.name!r}, {taken}")
            self._places[point.name] = point.value
