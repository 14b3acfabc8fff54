"""A component by name, with what the user set on it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Component(BaseModel):
    """A component by name, with what the user set on it: `attention`, or `{name: attention, heads: 8}`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """What the user set."""
        return dict(self.model_extra or {})

    def as_data(self) -> str | dict[str, Any]:
        """Return the shortest form."""
        options = {name: _as_data(value) for name, value in self.options.items()}
        return {"name": self.name, **options} if options else self.name


def _as_data(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_data(item) for item in value]
    return value.as_data() if hasattr(value, "as_data") else value
