"""A saved folder is read only when it is whole, of a known format, and stays inside itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

import polyfuse as pf
from polyfuse.core.errors import ArtifactError


@pytest.fixture(scope="module")
def predictor() -> pf.Predictor:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=60), "y": rng.integers(0, 2, 60)})
    return pf.Predictor("y", training={"epochs": 1}).fit(table, progress=False)


def change_manifest(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "artifact.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return apply


def swap_weights(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    name, _tensor = next(iter(weights.items()))
    weights["other"] = weights.pop(name)
    save_file(weights, folder / "weights.safetensors")
    size = (folder / "weights.safetensors").stat().st_size
    change_manifest(lambda manifest: manifest["files"].update({"weights.safetensors": size}))(folder)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "artifact.json").unlink(), "no Polyfuse artifact"),
        (lambda folder: (folder / "artifact.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "artifact.json").write_text("[]"), "damaged"),
        (lambda folder: (folder / "schema.json").unlink(), "schema.json is missing"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x"), "instead of"),
        (change_manifest(lambda manifest: manifest.update(format=99)), "upgrade"),
        (change_manifest(lambda manifest: manifest.update(format="1")), "damaged"),
        (change_manifest(lambda manifest: manifest.pop("files")), "damaged"),
        (change_manifest(lambda manifest: manifest["files"].update({"../../etc/hostname": 5})), "leads out"),
        (swap_weights, "does not fit"),
    ],
)
def test_damage_is_told(
    predictor: pf.Predictor, tmp_path: Path, damage: Callable[[Path], object], expected: str
) -> None:
    folder = predictor.save(tmp_path / "run")
    damage(folder)
    with pytest.raises(ArtifactError, match=expected):
        pf.load(folder)


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no Polyfuse artifact"):
        pf.load(tmp_path / "missing")


def test_a_failed_save_leaves_what_was_there(
    predictor: pf.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = predictor.save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("polyfuse.artifact._write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        predictor.save(folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
