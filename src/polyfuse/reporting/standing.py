"""How the model stands when parts are missing, and what was found when it was attacked or damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyfuse.core.errors import InputError
from polyfuse.explanation.contributions import Contributions
from polyfuse.metrics.bootstrap import Interval

_MOST = 16 << 20  # bytes of a document


@dataclass(frozen=True)
class Standing:
    """How the model stands.

    Attributes:
        metric: of the figures.
        whole: with every modality.
        without: with some taken away, "image", "image + audio", ….
        attack: the document of `polyfuse attack --json`, where one was given.
        stress: that of `polyfuse stress --json`.
        commands: what runs those that were not given.
    """

    metric: str
    whole: Interval | None
    without: dict[str, Interval]
    attack: dict[str, Any] | None
    stress: dict[str, Any] | None
    commands: list[str]

    def __str__(self) -> str:
        lines = [f"without {name:<24}{at}" for name, at in self.without.items()]
        return "\n".join([f"{self.metric} with parts taken away", *lines, *self.commands])

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def standing(
    given: Contributions | None, metric: str, documents: Mapping[str, dict[str, Any]], run: str, table: str
) -> Standing:
    """Return how the model stands.

    Args:
        given: what each modality gives, of which each subset was measured; None of a model with a single one.
        metric: of the model.
        documents: those of an attack and of a stress, where there are some; see `read_document`.
        run: name of the artifact, for the commands.
        table: name of the table, for the commands.
    """
    without: dict[str, Interval] = {}
    whole = None
    if given is not None:
        names = list(given.values)
        for some, at in given.subsets.items():
            kept = some.split(" + ") if some != "nothing" else []
            gone = [name for name in names if name not in kept]
            if not gone:
                whole = at
            elif kept:
                without[" + ".join(gone)] = at
        without = dict(sorted(without.items(), key=lambda item: item[0].count(" + ")))
    commands = [
        f"polyfuse {name} {run} {table} --json > {name}.json" for name in ("attack", "stress") if name not in documents
    ]
    return Standing(metric, whole, without, documents.get("attack"), documents.get("stress"), commands)


def read_document(name: str, file: Path) -> dict[str, Any]:
    """Return what an attack or a stress printed.

    Args:
        name: "attack" or "stress".
        file: where it stands.

    Raises:
        InputError: it is not such a document.
    """
    wanted = {"attack": {"budgets", "worst", "subsets", "clean"}, "stress": {"corrupted", "severities", "clean"}}[name]
    try:
        if file.stat().st_size > _MOST:
            raise ValueError(f"larger than {_MOST >> 20} MB")
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not wanted <= set(document):
            raise ValueError(f"no {', '.join(sorted(wanted))}")
    except (OSError, ValueError) as error:
        raise InputError(
            f"report: {file} is not what  polyfuse {name} … --json  prints ({error}); give its output"
        ) from error
    return document
