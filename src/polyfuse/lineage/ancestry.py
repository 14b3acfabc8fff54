"""Where a model comes from: the tables that it learned from, its parent, and what the two were worth side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from polyfuse.core.errors import ArtifactError
from polyfuse.core.files import read_about
from polyfuse.data.schema import Strict

FORMAT = 1
FILE = "lineage.json"
#: Ancestors that are told of, the nearest ones.
MOST = 50


class Reference(Strict):
    """A table that rows come from.

    Attributes:
        path: as it was given; None of one that was in memory.
        rows: that were used.
        size: rows of the table, those left out included.
        digest: of what the rows hold, as the model's schema reads them.
    """

    path: str | None
    rows: int = Field(ge=0)
    size: int = Field(ge=0)
    digest: str


class Ancestor(Strict):
    """A model that came before.

    Attributes:
        id: of its artifact; empty where that was never saved, or by a version without one.
        path: where it stood.
        made: when, ISO 8601 in UTC.
        by: how.
        rows: that it learned from.
        verdict: of the comparison with its own parent.
    """

    id: str
    path: str | None
    made: str
    by: Literal["fit", "refit"]
    rows: int = Field(ge=0)
    verdict: str = ""


class Lineage(Strict):
    """Where a model comes from.

    Attributes:
        format: of the file.
        id: hash of what makes the artifact answer as it does; empty before it is saved.
        made: when, ISO 8601 in UTC.
        by: how.
        rows: that it learned from, those that decided included.
        sources: the tables behind them, the oldest first.
        comparison: of a refit, the figures of the old and the new model side by side.
        ancestors: its parent, the parent's parent, and so on; at most 50.
    """

    format: int = FORMAT
    id: str = ""
    made: str
    by: Literal["fit", "refit"]
    rows: int = Field(ge=0)
    sources: list[Reference]
    comparison: dict[str, Any] = Field(default_factory=dict)
    ancestors: list[Ancestor] = Field(default_factory=list, max_length=MOST)

    @classmethod
    def begun(cls, sources: Sequence[Reference], rows: int) -> Lineage:
        """Return the lineage of a model that was fitted from nothing."""
        return cls(made=now(), by="fit", rows=rows, sources=list(sources))

    @property
    def verdict(self) -> str:
        """What the comparison with the parent said."""
        return str(self.comparison.get("reason", ""))

    def as_ancestor(self, path: Path | None) -> Ancestor:
        """Return what its children tell of it. path: where it stands."""
        place = str(path) if path is not None else None
        return Ancestor(id=self.id, path=place, made=self.made, by=self.by, rows=self.rows, verdict=self.verdict)

    def child(self, path: Path | None, sources: Sequence[Reference], rows: int, comparison: dict[str, Any]) -> Lineage:
        """Return the lineage of a model that was refitted from this one. path: where this one stands."""
        ancestors = [self.as_ancestor(path), *self.ancestors][:MOST]
        return Lineage(
            made=now(), by="refit", rows=rows, sources=list(sources), comparison=comparison, ancestors=ancestors
        )

    def told(self) -> list[str]:
        """Return sentences on where the model comes from, the nearest ancestor first; none of a fit."""
        if not self.ancestors:
            return []
        lines = [f"Refitted from {_named(self.ancestors[0])}: {self.verdict}."]
        return lines + [f"Before that: {_named(ancestor)}." for ancestor in self.ancestors[1:]]


def now() -> str:
    """Return the time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def identity(folder: Path) -> str:
    """Return a hash (32 hexadecimal digits) of what makes an artifact answer as it does: recipe, schema and weights."""
    whole = hashlib.blake2b(digest_size=16)
    parts = ("recipe.yaml", "schema.json", "weights.safetensors", "encoders", "members", "words", "calibration")
    for name in parts:
        place = folder / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
                whole.update(f"{path.relative_to(folder).as_posix()} ".encode() + digest)
    return whole.hexdigest()


def load_lineage(folder: Path) -> Lineage | None:
    """Read the lineage of an artifact; None where there is none, as in older ones.

    Raises:
        ArtifactError: it is damaged.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return read_about(folder / FILE, Lineage, format=FORMAT)
    except (ValidationError, ValueError, OSError) as error:
        told = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{folder / FILE} is damaged ({told}); restore it from a copy") from error


def _named(ancestor: Ancestor) -> str:
    place = f" ({ancestor.path})" if ancestor.path else ""
    return f"{ancestor.id[:12] or 'a model without an id'}{place} of {ancestor.made[:10] or 'an unknown day'}"
