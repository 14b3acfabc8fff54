"""The artifact: a saved folder, written whole or not at all, and read without running anything that is in it.

artifact.json            format, versions, and the size of every other file
recipe.yaml              the completed recipe
schema.json              what is known of the table
metrics.json             how training went, and the report on the validation rows
weights.safetensors      every weight but those of pretrained backbones
encoders/<i>/backbone/   the i-th modality's pretrained model, in transformers' own format
encoders/<i>/adapter/    what its tuning added, in peft's own format
members/<i>/             of an ensemble, the i-th member: its weights, its trees, or encoders that it has for itself
words/<i>.json           of an ensemble, which words count in the i-th modality's text, and how much
calibration/             what makes its probabilities mean what they say, and the validation rows' scores and answers
reference/               what new rows are compared with: of validation rows cells, measures, Features, scores
screen/                  of a model that has one, the screen: tensors in safetensors, all else in JSON
kept/                    rows for the model that comes after: to replay, to measure on; and which tables they are of
lineage.json             what it is, what it learned from, which models came before
logs/                    curves, as the trackers wrote them
README.md                the card
"""

from __future__ import annotations

import json
import platform
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from polyfuse.calibration import Calibration, load_calibration, save_calibration
from polyfuse.core.compute import default_device
from polyfuse.core.contract import Tuning
from polyfuse.core.errors import ArtifactError
from polyfuse.core.files import check_folder, read_json, whole_folder
from polyfuse.core.types import Tensors
from polyfuse.core.version import __version__
from polyfuse.core.weights import base_weights, weights_digest
from polyfuse.data.schema import Schema, Strict
from polyfuse.drift import Sample, load_reference, save_reference
from polyfuse.ensemble import Ensemble
from polyfuse.learners.words import WordStatistics
from polyfuse.lineage import Kept, Lineage, identity, load_kept, load_lineage, save_kept
from polyfuse.lineage.ancestry import FILE as LINEAGE
from polyfuse.model import FusionModel, Model
from polyfuse.recipe import Built, Recipe, build, read_recipe
from polyfuse.screening import Screen, load_screen, save_screen

FORMAT = 1
_MANIFEST = "artifact.json"
_PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "pandas")


@dataclass(frozen=True)
class Artifact:
    """What a saved folder holds.

    Attributes:
        recipe: completed.
        schema: of the training table.
        built: model and tunings.
        metrics: JSON values: "training" and "validation".
        screen: that tells suspicious rows from ordinary ones, if there is one.
        calibration: of its scores; None in artifacts of earlier versions.
        reference: that new rows are compared with, if there is one.
        kept: rows for the model that comes after; None in artifacts of earlier versions.
        lineage: where it comes from; None in artifacts of earlier versions.
    """

    recipe: Recipe
    schema: Schema
    built: Built
    metrics: dict[str, Any]
    screen: Screen | None = None
    calibration: Calibration | None = None
    reference: Sample | None = None
    kept: Kept | None = None
    lineage: Lineage | None = None


class _Manifest(Strict):
    """What `artifact.json` holds.

    Attributes:
        format: of the folder.
        polyfuse: the version that wrote it.
        python: the version it ran on.
        packages: versions of the packages that matter.
        backbones_outside: hashes of the backbones that are read from where they came from, by modality number.
        files: size of every other file in bytes.
    """

    format: int
    polyfuse: str
    python: str
    packages: dict[str, str]
    backbones_outside: dict[int, str]
    files: dict[str, int]


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Check that an artifact may be written to a folder; nothing but an artifact is ever replaced.

    Raises:
        InputError: something else stands there, or an artifact that is not to be replaced.
    """
    check_folder(folder, "artifact", _MANIFEST, overwrite=overwrite)


def write(
    folder: Path,
    artifact: Artifact,
    *,
    standalone: bool = True,
    overwrite: bool = False,
    logs: Path | None = None,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write an artifact, whole or not at all.

    Args:
        folder: where to.
        artifact: what.
        standalone: keep the weights of unchanged backbones inside; without, they are named and read from where they
            came from, and must be the same then.
        overwrite: replace an artifact that stands there.
        logs: a folder with curves, to be kept inside.
        beside: texts of further files, by name; of the card another one.

    Raises:
        InputError: the folder is taken.
    """
    check_free(folder, overwrite=overwrite)
    with whole_folder(folder) as new:
        outside = _write_model(new, artifact, standalone)
        if artifact.screen is not None:
            save_screen(artifact.screen, new / "screen")
        if artifact.calibration is not None:
            save_calibration(artifact.calibration, new / "calibration")
        if artifact.reference is not None:
            save_reference(artifact.reference, artifact.schema, new / "reference")
        if artifact.kept is not None:
            save_kept(artifact.kept, new / "kept")
        (new / "recipe.yaml").write_text(artifact.recipe.to_yaml(), encoding="utf-8")
        _write_json(new / "schema.json", artifact.schema.as_json())
        _write_json(new / "metrics.json", artifact.metrics)
        if artifact.lineage is not None:
            lineage = artifact.lineage.model_copy(update={"id": identity(new)})
            _write_json(new / LINEAGE, lineage.model_dump(mode="json"))
        for name, text in {"README.md": card(artifact), **(beside or {})}.items():
            (new / name).write_text(text, encoding="utf-8")
        if logs is not None and logs.is_dir():
            shutil.copytree(logs, new / "logs", ignore=_links)
        files = {path.relative_to(new).as_posix(): path.stat().st_size for path in new.rglob("*") if path.is_file()}
        manifest = _Manifest(
            format=FORMAT,
            polyfuse=__version__,
            python=platform.python_version(),
            packages=_versions(),
            backbones_outside=outside,
            files=dict(sorted(files.items())),
        )
        _write_json(new / _MANIFEST, manifest.model_dump())


def read(folder: Path) -> Artifact:
    """Read an artifact.

    Raises:
        ArtifactError: it is missing, damaged, or of a format that this version cannot read.
    """
    manifest = _manifest(folder)
    try:
        recipe = read_recipe(folder / "recipe.yaml")
        schema = Schema.model_validate(read_json(folder / "schema.json"))
        metrics = read_json(folder / "metrics.json")
        built = build(recipe, schema, default_device(), stored=folder)
        _load_model(built.model, folder)
        screen = load_screen(folder / "screen", built.model)
        calibration = load_calibration(folder / "calibration", schema.target)
        reference = load_reference(folder / "reference", schema, built.model)
        kept, lineage = load_kept(folder / "kept"), load_lineage(folder)
    except (ValidationError, SafetensorError, OSError, AssertionError, KeyError) as error:
        raise ArtifactError(f"{folder} is damaged ({_briefly(error)}); restore it from a copy") from error
    _warn_versions(manifest.packages)
    names = list(recipe.modalities or {})
    for i, known in manifest.backbones_outside.items():
        backbone = built.model.encoder(names[i]).backbone
        if backbone is None or weights_digest(base_weights(backbone)) != known:
            raise ArtifactError(
                f"{folder}: the backbone of {names[i]!r} is no longer the one it was trained with; fetch the one"
                " of then, or train again"
            )
    return Artifact(recipe, schema, built, metrics, screen, calibration, reference, kept, lineage)


def summary(folder: Path) -> dict[str, Any]:
    """Return what an artifact says of itself, as JSON values, without loading its weights.

    Raises:
        ArtifactError: it is missing, damaged, or of a format that this version cannot read.
    """
    manifest, lineage = _manifest(folder), load_lineage(folder)
    return {
        "versions": {"polyfuse": manifest.polyfuse, "python": manifest.python, **manifest.packages},
        "bytes": sum(manifest.files.values()),
        "recipe": read_recipe(folder / "recipe.yaml").as_data(),
        "metrics": read_json(folder / "metrics.json"),
        "lineage": lineage.model_dump(mode="json") if lineage is not None else None,
    }


def _write_model(folder: Path, artifact: Artifact, standalone: bool) -> dict[int, str]:
    """Write all weights; return the hashes of the backbones that stay outside, by modality number."""
    model, names = artifact.built.model, list(artifact.recipe.modalities or {})
    outside = _write_encoders(folder, names, model, artifact.built.tunings, standalone)
    save_file(_weights(model), folder / "weights.safetensors")
    if not isinstance(model, Ensemble):
        return outside
    (folder / "words").mkdir()
    for i, name in enumerate(names):
        if name in model.words:
            model.words[name].save(folder / "words" / f"{i}.json")
    for i, member in enumerate(model.members):
        place = folder / "members" / str(i)
        place.mkdir(parents=True)
        if isinstance(member.model, FusionModel):
            _write_encoders(place, names, member.model, member.own, standalone=True)
            save_file(_weights(member.model, shared=model.encoders), place / "weights.safetensors")
        else:
            member.model.save(place)
    return outside


def _load_model(model: Model, folder: Path) -> None:
    """Read all weights that do not stand in a backbone's own folder."""
    _load_weights(model, _weights(model), folder)
    if not isinstance(model, Ensemble):
        return
    for i, name in enumerate(model.modalities):
        if name in model.words:
            model.words[name] = WordStatistics.load(folder / "words" / f"{i}.json")
    for i, member in enumerate(model.members):
        place = folder / "members" / str(i)
        if isinstance(member.model, FusionModel):
            _load_weights(member.model, _weights(member.model, shared=model.encoders), place)
        else:
            member.model.restore(place)


def _write_encoders(
    folder: Path, names: Sequence[str], model: Model, tunings: Mapping[str, Tuning], standalone: bool
) -> dict[int, str]:
    """Write backbones and adapters; return the hashes of the backbones that stay outside, by modality number."""
    outside = {}
    for i, name in enumerate(names):
        tuning = tunings.get(name)
        if tuning is None or (encoder := model.encoder(name)).backbone is None:
            continue
        place = folder / "encoders" / str(i)
        adapter = place / "adapter"
        adapter.mkdir(parents=True)
        adapted = tuning.save(encoder, adapter)
        if not adapted:
            adapter.rmdir()
        if standalone or not (tuning.frozen or adapted):
            (place / "backbone").mkdir()
            encoder.save_backbone(place / "backbone")
        else:
            outside[i] = weights_digest(base_weights(encoder.backbone))
    return outside


def _weights(model: Model, shared: Iterable[nn.Module] = ()) -> Tensors:
    """Return the weights that stand neither in a backbone's own folder, nor in a member's, nor in shared encoders."""
    elsewhere = set(shared)
    inside = [f"encoders.{i}.{'' if each in elsewhere else 'backbone.'}" for i, each in enumerate(model.encoders)]
    inside += Ensemble.ELSEWHERE if isinstance(model, Ensemble) else ()
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(tuple(inside))
    }


def _load_weights(model: Model, expected: Tensors, folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    wanted = {name: tensor.shape for name, tensor in expected.items()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    if wanted != given:
        wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        raise ArtifactError(f"{folder}: weights.safetensors does not fit the recipe, e.g. in {wrong[0]!r}")
    model.load_state_dict(weights, strict=False)


def _manifest(folder: Path) -> _Manifest:
    """Read the manifest and check format and sizes."""
    path = folder / _MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} is no Polyfuse artifact: it has no {_MANIFEST}; give a folder that  fit  or  save  wrote"
        )
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise ArtifactError(f"{path} is damaged: it names no format")
    if found["format"] > FORMAT:
        raise ArtifactError(
            f"{folder} has format {found['format']}, written by Polyfuse {found.get('polyfuse')}; this version"
            f" ({__version__}) reads up to {FORMAT}: upgrade with  pip install -U polyfuse"
        )
    try:
        manifest = _Manifest.model_validate(found)
    except ValidationError as error:
        raise ArtifactError(f"{path} is damaged ({_briefly(error)}); restore it from a copy") from error
    for name, size in manifest.files.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{folder} is damaged: {name!r} leads out of it")
        there = file.stat().st_size if file.is_file() else None
        if there != size:
            told = "is missing" if there is None else f"has {there:,} bytes instead of {size:,}"
            raise ArtifactError(f"{folder} is damaged: {name} {told}; restore it from a copy")
    return manifest


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _links(folder: str, names: list[str]) -> set[str]:
    """Name the links in a folder: a tracker's shortcuts to its own files."""
    return {name for name in names if (Path(folder) / name).is_symlink()}


def _briefly(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _warn_versions(saved: dict[str, str]) -> None:
    """Warn where a package that computes is of another major version than the one that the artifact was made with."""
    now = _versions()
    for name in ("torch", "transformers", "peft"):
        if name in saved and name in now and saved[name].split(".")[0] != now[name].split(".")[0]:
            warnings.warn(
                f"the model was made with {name} {saved[name]}, and {now[name]} is installed: answers may differ",
                UserWarning,
                stacklevel=4,
            )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def card(artifact: Artifact) -> str:
    """Return the card: what the model is, how good, and how to use it."""
    recipe, target, training = artifact.recipe, artifact.schema.target, artifact.metrics["training"]
    asked = " and ".join(f"`{_plain(name)}`" for name in target.names)
    tasks = [part.task for part in target.each()]
    lines = [
        f"# {_plain(target.name)}: {', '.join(tasks)} with Polyfuse {__version__}",
        "",
        f"Predicts {asked} from {len(artifact.schema.modalities)} modalities, fused by"
        f" `{recipe.fusion.name}`. Trained on {training['rows']:,} rows for {training['seconds']:.0f} s; ended:"
        f" {training['reason']}.",
        "",
        "| modality | columns | encoder | tuning |",
        "| --- | --- | --- | --- |",
    ]
    assert isinstance(recipe.tuning, dict)
    for name, modality in (recipe.modalities or {}).items():
        encoder = modality.encoder.name if modality.encoder else f"that of {_plain(modality.share or '')}"
        columns = ", ".join(map(_plain, modality.columns))
        lines.append(f"| {_plain(name)} | {columns} | {encoder} | {recipe.tuning[modality.share or name].name} |")
    report = artifact.metrics["validation"]
    lines += ["", f"On {report['rows']:,} validation rows (they also chose the weights, so expect a little less):", ""]
    lines += ["| metric | value | 95 % interval |", "| --- | --- | --- |"]
    for name, found in report["metrics"].items():
        lines.append(f"| {name} | {_figure(found['value'])} | {_figure(found['low'])} to {_figure(found['high'])} |")
    told = artifact.calibration.told() if artifact.calibration is not None else []
    origin = artifact.lineage.told() if artifact.lineage is not None else []
    if artifact.reference is not None:
        told += [
            f"It keeps {len(artifact.reference):,} of these rows for  polyfuse drift  (numbers, hashes of categories,"
            " Features, scores, answers): see  reference  in the recipe."
        ]
    lines += [
        *(["", *map(_plain, told)] if told else []),
        *(["", *map(_plain, origin)] if origin else []),
        "",
        "```python",
        "import polyfuse as pf",
        "",
        'predictor = pf.load("this folder")',
        'predictor.predict("rows.csv")',
        "```",
        "",
        "Not made for other tables than those like the training table; columns and types stand in `schema.json`.",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Make a name from the data harmless in Markdown."""
    return "".join(c if c.isprintable() and c not in "|`<>[]*\\" else " " for c in text)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
