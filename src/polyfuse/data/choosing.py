"""Choosing among what changes cells, by the columns that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.registry import Registry
from polyfuse.data.schema import Column


def readers(registry: Registry[Any], columns: Sequence[Column]) -> list[str]:
    """Return the names of the components that read some of the columns."""
    types = {column.type for column in columns}
    return [name for name in registry if registry[name].reads & types]


def checked(registry: Registry[Any], name: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return options of a component as its constructor wants them.

    Args:
        registry: that has the component.
        name: of the component.
        options: as they were given.
        where: they stand, with which an error begins.

    Raises:
        InputError: the name or an option is unknown, or a value does not fit.
    """
    known, found = registry.options(name), {}
    for option, given in options.items():
        if option not in known:
            raise InputError(f"{where}: {name!r} has no option {option!r}; {nearest(str(option), known)}")
        try:
            found[option] = TypeAdapter(known[option].annotation).validate_python(given)
        except ValidationError as error:
            rule = error.errors()[0]["msg"]
            raise InputError(f"{where}: {name}.{option}: {given!r:.80} given: {rule}") from error
    return found


def unread(registry: Registry[Any], name: str, reads: frozenset[str], columns: Sequence[Column]) -> str:
    """Return what to tell a user who chose a component that reads none of the columns."""
    others = readers(registry, columns)
    listed = ", ".join(f"{column.name} ({column.type})" for column in columns) or "none"
    advice = f"choose from {', '.join(others)}" if others else "leave it out"
    return f"{registry.family}: {name!r} reads {', '.join(sorted(reads))}, and the columns here are {listed}; {advice}"
