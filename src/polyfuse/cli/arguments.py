"""What several commands make of their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

#: Options of the default search of attacks, where it is to be quick.
FAST_SEARCH = {"steps": 20, "rivals": 2, "queries": 50}


def predictor_of(target: list[str] | None, recipe: Path | None, settings: list[str] | None, **options: Any) -> Any:
    """Return the predictor of a call; options are keys of the recipe, None where they were not given."""
    from polyfuse.predictor import Predictor

    chosen = dict(map(_setting, settings or []))
    chosen |= {key: value for key, value in options.items() if value is not None}
    return Predictor(target or None, recipe=recipe, **chosen)


def _setting(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; the value is YAML."""
    import yaml

    key, value = pair(text, "--set", "fusion=attention")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"--set {text!r}: the value is not YAML: {' '.join(str(error).split())}") from error


def pair(text: str, option: str, example: str) -> tuple[str, str]:
    """Split KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{option} {text!r}: write KEY=VALUE, e.g. {example}")
    return key, value


def budgets_of(texts: list[str] | None) -> dict[str, str]:
    """Split each MODALITY=THREAT:RADIUS."""
    return dict(pair(text, "--budget", "image=linf:8/255") for text in texts or [])


def listed(text: str | None) -> list[str] | None:
    """Split A,B; None where nothing was given."""
    return None if text is None else [name.strip() for name in text.split(",")]


def deviation(text: str) -> tuple[str, float]:
    """Split MODALITY=SIGMA."""
    name, value = pair(text, "--noise", "image=0.25")
    try:
        return name, float(value)
    except ValueError as error:
        raise typer.BadParameter(f"--noise {text!r}: {value!r} is not a number; write e.g. image=0.25") from error
