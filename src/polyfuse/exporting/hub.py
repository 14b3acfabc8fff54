"""An artifact in the layout of the Hugging Face Hub: safetensors, `config.json`, and a card with metadata."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polyfuse import artifact
from polyfuse.artifact import Artifact
from polyfuse.core.files import strict_json
from polyfuse.core.version import __version__
from polyfuse.data.schema import Schema, Target
from polyfuse.exporting.report import ExportReport

#: The Hub's names of what a single kind of columns is classified by; a table is all else.
_TAGS = {"text": "text-classification", "image": "image-classification", "audio": "audio-classification"}
#: The Hub's names of metrics that it has another one for.
_METRICS = {"f1_macro": "f1", "r2": "r_squared"}
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def write_hub(saved: Artifact, folder: Path, *, license: str = "other", overwrite: bool = False) -> ExportReport:
    """Write an artifact as a folder for the Hub, which  polyfuse.load  reads like any other; nothing is uploaded.

    Logs and what new rows are compared with for drift stay behind: the latter holds values of training rows.

    Args:
        saved: what the folder holds.
        folder: where to.
        license: as the Hub names it, e.g. "apache-2.0".
        overwrite: replace an artifact that stands there.

    Raises:
        InputError: the folder is taken.
    """
    begun = time.monotonic()
    bare = Artifact(saved.recipe, saved.schema, saved.built, saved.metrics, saved.screen, saved.calibration)
    name = _NAME.sub("-", folder.absolute().name).strip("-.") or "model"
    beside = {
        "README.md": f"---\n{_metadata(bare, name, license)}\n---\n\n{artifact.card(bare)}",
        "config.json": strict_json(_config(bare)),
    }
    artifact.write(folder, bare, overwrite=overwrite, beside=beside)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return ExportReport(folder, "hub", False, dict(sorted(sizes.items())), time.monotonic() - begun, None)


def _metadata(saved: Artifact, name: str, license: str) -> str:
    """Return the card's metadata as YAML: what the Hub lists and searches by."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=_tag(saved.schema, part),
            dataset_type="table",
            dataset_name="validation rows of the training table",
            metric_type=_METRICS.get(metric, metric),
            metric_value=value,
            metric_name=metric if not saved.schema.target.parts else f"{part.name}: {metric}",
        )
        for part, metric, value in _measured(saved)
    ]
    data = ModelCardData(
        license=license,
        library_name="polyfuse",
        pipeline_tag=_tag(saved.schema, saved.schema.target.each()[0]),
        tags=["polyfuse", "multimodal", *sorted({column.type for column in saved.schema.columns})],
        model_name=name,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _measured(saved: Artifact) -> Iterator[tuple[Target, str, float]]:
    """Yield each metric of the validation report: the target that it measures, its name and its value."""
    target = saved.schema.target
    parts = {part.name: part for part in target.parts}
    for name, found in saved.metrics["validation"]["metrics"].items():
        owner, colon, metric = name.rpartition(":")
        if found["value"] is None or (parts and owner not in parts):
            continue
        yield (parts[owner], metric, found["value"]) if colon and parts else (target, name, found["value"])


def _tag(schema: Schema, target: Target) -> str:
    if target.task == "regression":
        return "tabular-regression"
    types = {column.type for column in schema.columns}
    return _TAGS.get(next(iter(types)), "tabular-classification") if len(types) == 1 else "tabular-classification"


def _config(saved: Artifact) -> dict[str, Any]:
    """Return what `config.json` says: which model it is, what it reads, and what it answers."""
    recipe, schema = saved.recipe.as_data(), saved.schema
    return {
        "model_type": "polyfuse",
        "architectures": [type(saved.built.model).__name__],
        "polyfuse_version": __version__,
        "modalities": {
            name: {"columns": {column.name: column.type for column in schema.of(name)}, **_encoder(recipe, name)}
            for name in schema.modalities
        },
        "fusion": recipe["fusion"],
        "targets": {
            part.name: {"task": part.task, **({"labels": part.levels} if part.levels else {})}
            for part in schema.target.each()
        },
    }


def _encoder(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    told = recipe["modalities"][name]
    return {key: told[key] for key in ("encoder", "share") if told.get(key) is not None}
