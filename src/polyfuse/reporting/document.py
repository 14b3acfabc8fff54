"""What was measured of a model on some rows, section by section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from polyfuse.core.files import strict_json, written

#: Version of the JSON document; `docs/report.md` describes it.
FORMAT = 1


class Part(Protocol):
    """What a section holds."""

    def data(self) -> dict[str, Any]:
        """Return JSON values."""


@dataclass(frozen=True, eq=False)
class ModelReport:
    """All that was measured of a model on some rows.

    Attributes:
        about: the model and the measurement: target, task, rows, modalities, fusion, version, seed, seconds.
        parts: what was measured, by the name of its section, in the order of the page.
        left_out: the name of a section to why it is not there, and how to get it.
    """

    about: dict[str, Any]
    parts: Mapping[str, Part]
    left_out: dict[str, str]

    def data(self) -> dict[str, Any]:
        """Return JSON values; each section under its own name."""
        sections = {name: part.data() for name, part in self.parts.items()}
        return {"format": FORMAT, "about": self.about, "sections": sections, "left_out": self.left_out}

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given. Undefined numbers are null."""
        return written(strict_json(self.data()), path)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return one page that loads nothing, written to `path` where one is given."""
        from polyfuse.reporting.page import page

        return written(page(self), path)

    def __str__(self) -> str:
        parts = [f"{name}\n{'─' * len(name)}\n{part}" for name, part in self.parts.items()]
        missing = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n\n".join([*parts, *missing])

    def __repr__(self) -> str:
        return str(self)
