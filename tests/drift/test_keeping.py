"""A reference is kept with its model, and believed only when it is whole and the model's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import polyfuse as pf
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.drift import LEAST, MOST

Damage = Callable[[Path], object]


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    secret = np.array(["alice", "bob"])[drawn.integers(0, 2, rows)]
    return pd.DataFrame({"a": drawn.normal(size=rows) + y, "who": secret, "y": np.array(["no", "yes"])[y]})


def fitted(rows: int = 400, **settings: Any) -> pf.Predictor:
    chosen: dict[str, Any] = {"fusion": "concat", "training": {"epochs": 2, "trackers": []}, **settings}
    return pf.Predictor("y", **chosen).fit(table(rows), progress=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted().save(tmp_path_factory.mktemp("kept") / "run")


def sized(folder: Path, file: str) -> None:
    """Write the size that a file has now into the manifest: what is left is for the reference's own checks."""
    path = folder / "artifact.json"
    manifest = json.loads(path.read_text())
    manifest["files"][f"reference/{file}"] = (folder / "reference" / file).stat().st_size
    path.write_text(json.dumps(manifest))


def about(**values: Any) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / "reference" / "reference.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        sized(folder, path.name)

    return apply


def tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / "reference" / "reference.safetensors"
        found = dict(load_file(path))
        change(found)
        save_file(found, path)
        sized(folder, path.name)

    return apply


def test_what_is_read_says_what_was_written(run: Path) -> None:
    kept, new = pf.load(run), table(200, seed=1)
    assert dict(kept.drift(new, progress=False)) == dict(fitted().drift(new, progress=False))


def test_the_rows_are_those_that_the_model_was_not_trained_on(run: Path) -> None:
    predictor = pf.load(run)
    assert predictor.drift(table(200, 1), progress=False).reference == predictor.metrics["validation"]["rows"] == 60
    values = load_file(run / "reference" / "reference.safetensors")["columns.0.0"]
    assert set(values.tolist()) <= set(table(400)["a"].tolist())


def test_names_of_levels_are_not_kept_with_the_rows(run: Path) -> None:
    kept = b"".join(path.read_bytes() for path in (run / "reference").iterdir())
    assert b"alice" not in kept


def test_a_model_that_learned_from_all_rows_says_so() -> None:
    report = fitted(fusion="linear").drift(table(200, 1), progress=False)
    assert "has learned from the reference" in report.left_out["confidence in y"]
    assert "y: confidence" not in report
    assert "y: answers" in report


def test_no_more_rows_are_kept_than_are_wanted() -> None:
    predictor = fitted(6000, fusion="linear")
    assert predictor.drift(table(100, 1), progress=False).reference == MOST


def test_nothing_is_kept_where_the_recipe_says_so(tmp_path: Path) -> None:
    folder = fitted(reference="none").save(tmp_path / "run")
    assert not (folder / "reference").exists()
    predictor = pf.load(folder)
    with pytest.raises(InputError, match="keeps no rows to compare with"):
        predictor.drift(table(100, 1), progress=False)
    assert not predictor.drift(table(100, 1), reference=table(100, 2), progress=False).found
    predictor.fit_reference(table(150, 3), progress=False).save(tmp_path / "again")
    assert pf.load(tmp_path / "again").drift(table(100, 1), progress=False).reference == 150


def test_few_rows_keep_nothing_and_say_so() -> None:
    predictor = fitted(150)
    assert predictor.metrics["validation"]["rows"] < LEAST
    with pytest.raises(InputError, match="fewer than 30 rows"):
        predictor.drift(table(100, 1), progress=False)


@pytest.mark.parametrize(
    "damage",
    [
        about(rows=MOST + 1),
        about(rows=59),
        about(columns=["a"]),
        about(format=99),
        about(surprise=1),
        tensors(lambda found: found.pop("scores")),
        tensors(lambda found: found.update(more=np.zeros(3))),
        tensors(lambda found: found.update(scores=found["scores"][:, :1])),
        tensors(lambda found: found.update(scores=found["scores"].astype(np.float32))),
        tensors(lambda found: found["scores"].fill(np.nan)),
        tensors(lambda found: found["columns.0.0"].fill(np.inf)),
        tensors(lambda found: found["columns.0.missing"].fill(2)),
        tensors(lambda found: found["columns.1.codes"].fill(-2)),
        lambda folder: (
            (folder / "reference" / "reference.safetensors").write_bytes(b"\x00" * 40)
            and sized(folder, "reference.safetensors")
        ),
        lambda folder: (folder / "reference" / "reference.json").write_text("{") and sized(folder, "reference.json"),
    ],
)
def test_what_is_damaged_is_refused(run: Path, tmp_path: Path, damage: Damage) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    damage(folder)
    with pytest.raises(ArtifactError, match="reference is damaged"):
        pf.load(folder)
