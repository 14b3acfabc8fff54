"""A screen is kept with its model, and believed only when it is whole and the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core.errors import ArtifactError, InputError

Damage = Callable[[Path], object]


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = drawn.normal(size=(rows, 2)) + 2 * y[:, None]
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": np.array(["no", "yes"])[y]})


@pytest.fixture(scope="module", params=["concat", "linear"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artifact with a screen."""
    folder = tmp_path_factory.mktemp("kept")
    settings: dict[str, Any] = {"fusion": request.param, "screen": True, "training": {"epochs": 2, "trackers": []}}
    pf.Predictor("y", **settings).fit(table(160), out=folder / "run", progress=False)
    return folder / "run"


def sized(folder: Path, *files: str) -> None:
    """Write the sizes that files have now into the manifest: what is left is for the screen's own checks."""
    path = folder / "artifact.json"
    manifest = json.loads(path.read_text())
    manifest["files"].update({f"screen/{file}": (folder / "screen" / file).stat().st_size for file in files})
    path.write_text(json.dumps(manifest))


def about(change: Callable[[dict[str, Any]], object]) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / "screen" / "screen.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))
        sized(folder, path.name)

    return apply


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / "screen" / "screen.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)
        sized(folder, path.name)

    return apply


def every(found: dict[str, Any], **values: Any) -> None:
    for shape in found["spaces"].values():
        shape.update(values)


def text(folder: Path) -> None:
    (folder / "screen" / "screen.json").write_text("{")
    sized(folder, "screen.json")


def test_what_is_read_says_what_was_written(run: Path) -> None:
    kept, again = pf.load(run), pf.load(run)
    first = kept.predict(table(50, 1), screen=True)
    pd.testing.assert_frame_equal(again.predict(table(50, 1), screen=True), first)
    assert sorted(path.name for path in (run / "screen").iterdir()) == ["screen.json", "screen.safetensors"]
    assert again._screen is not None
    assert (again._screen.rate, again._screen.rows, again._screen.neighbours) == (0.05, 24, 10)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "screen" / "screen.json").unlink(), "screen.json is missing"),
        (lambda folder: (folder / "screen" / "screen.safetensors").write_bytes(b"x"), "instead of"),
        (text, "fit another screen"),
        (about(lambda found: found.update(format=2)), "format 2.*upgrade"),
        (about(lambda found: found.update(task="regression")), "does not describe"),
        (about(lambda found: found.update(neighbours=0)), "neighbours"),
        (about(lambda found: found.update(more=1)), "more"),
        (about(lambda found: found.pop("rate")), "rate"),
        (about(lambda found: every(found, bank=10**9)), "does not describe"),
        (about(lambda found: every(found, dim=10**6)), "does not describe"),
        (about(lambda found: every(found, groups=3)), "does not describe"),
        (about(lambda found: every(found, bank=5)), "another type or shape"),
        (tensors(lambda found: found.pop("bias")), "other tensors"),
        (tensors(lambda found: found.update(x=torch.zeros(1))), "other tensors"),
        (tensors(lambda found: found["center"].fill_(torch.nan)), "no screen has"),
        (tensors(lambda found: found["width"].fill_(0)), "no screen has"),
        (tensors(lambda found: found["weights"].fill_(-1)), "below 0"),
        (tensors(lambda found: found.update(bias=found["bias"].double())), "another type"),
        (tensors(lambda found: found.update(threshold=found["threshold"].expand(4).clone())), "another type or shape"),
    ],
)
def test_damage_is_told(run: Path, tmp_path: Path, damage: Damage, said: str) -> None:
    folder = pf.load(run).save(tmp_path / "run")
    damage(folder)
    with pytest.raises(ArtifactError, match=said):
        pf.load(folder)


def test_an_artifact_of_before_screens_still_answers(run: Path, tmp_path: Path) -> None:
    folder = pf.load(run).save(tmp_path / "run")
    manifest = json.loads((folder / "artifact.json").read_text())
    for name in [name for name in manifest["files"] if name.startswith("screen/")]:
        (folder / name).unlink()
        del manifest["files"][name]
    (folder / "artifact.json").write_text(json.dumps(manifest))
    old = pf.load(folder)
    pd.testing.assert_series_equal(old.predict(table(20, 1)), pf.load(run).predict(table(20, 1)))
    with pytest.raises(InputError, match="this model has no screen"):
        old.predict(table(20, 1), screen=True)


def test_the_commands(tmp_path: Path) -> None:
    for name, rows, seed in (("train", 240, 0), ("test", 60, 1)):
        table(rows, seed).to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "recipe.yaml").write_text("target: y\nscreen: {neighbours: 4}\n")
    fit = ["fit", "train.csv", "--out", "run", "--set", "fusion=linear", "--recipe", "recipe.yaml"]
    polyfuse(*fit, "--screen", "--set", "screen.rate=0.1", cwd=tmp_path)
    predictor = pf.load(tmp_path / "run")
    assert predictor.recipe.as_data()["screen"] == {"rate": 0.1, "neighbours": 4}
    polyfuse("predict", "run", "test.csv", "--screen", "--out", "out.csv", cwd=tmp_path)
    written = pd.read_csv(tmp_path / "out.csv")
    assert list(written.columns) == ["y", "suspicion", "suspicious", "nothing_present"]
    found = predictor.predict(tmp_path / "test.csv", screen=True)
    np.testing.assert_allclose(written["suspicion"], found["suspicion"], rtol=1e-6)
    assert written["suspicious"].tolist() == found["suspicious"].tolist()
    call = ["detect", "run", "test.csv", "--budget", "table=ranges:0.3", "--fast", "--rows", "12", "--json"]
    report = json.loads(polyfuse(*call, cwd=tmp_path)[0])
    assert report["rows"] == 12
    assert report["rate"] == 0.1
    assert report["attack"] == {"name": "ensemble", "steps": 20, "rivals": 2, "queries": 50}
