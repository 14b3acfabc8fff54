"""Choosing among what changes cells, by the columns that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyfuse.core.registry import Registry
from polyfuse.data.schema import Column


def readers(registry: Registry[Any], columns: Sequence[Column]) -> list[str]:
    """Return the names of the components that read some of the columns."""
    types = {column.type for column in columns}
    return [name for name in registry if registry[name].reads & types]


def unread(registry: Registry[Any], name: str, reads: frozenset[str], columns: Sequence[Column]) -> str:
    """Return what to tell a user who chose a component that reads none of the columns."""
    others = readers(registry, columns)
    listed = ", ".join(f"{column.name} ({column.type})" for column in columns) or "none"
    advice = f"choose from {', '.join(others)}" if others else "leave it out"
    return f"{registry.family}: {name!r} reads {', '.join(sorted(reads))}, and the columns here are {listed}; {advice}"
