"""A model answers with calibrated scores, keeps what they come from, and says how sure it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import polyfuse as pf
from polyfuse.core.errors import ArtifactError, InputError, MissingExtra, RecipeError

Damage = Callable[[Path], object]
QUICK = {"epochs": 1, "trackers": []}


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Three labels of which a third is wrong, and a number."""
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(rows, 8))
    y = (x[:, :3].argmax(1) + (drawn.random(rows) < 0.3) * drawn.integers(1, 3, rows)) % 3
    frame = pd.DataFrame(x, columns=list("abcdefgh"))
    frame["y"] = np.array(["u", "v", "w"])[y]
    frame["n"] = x[:, 0] + drawn.normal(size=rows)
    frame["shop"] = np.where(drawn.random(rows) < 0.5, "north", "south")
    return frame


LEARNED = {"columns": {"n": "ignore", "shop": "ignore"}, "fusion": "concat"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrated") / "run"


@pytest.fixture(scope="module")
def fitted(folder: Path) -> pf.Predictor:
    # With such steps the network is far too sure in the epoch in which its accuracy is best.
    training = {"epochs": 40, "learning_rate": 0.03, "metric": "accuracy", "trackers": []}
    predictor = pf.Predictor("y", **LEARNED, training=training)
    return predictor.fit(table(300), validation=table(400, 1), out=folder, progress=False)


@pytest.fixture(scope="module")
def regression() -> pf.Predictor:
    columns = {"y": "ignore", "shop": "ignore"}
    return pf.Predictor("n", columns=columns, fusion="linear").fit(table(300), validation=table(200, 1), progress=False)


def raw(predictor: pf.Predictor, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    rows = predictor._rows_to_answer(frame)
    return predictor._scores_of(rows)[0].numpy()


def test_answers_are_of_scaled_scores(fitted: pf.Predictor) -> None:
    scaling = fitted._calibration.scalings["y"]  # type: ignore[union-attr]
    assert (scaling.method, scaling.rows) == ("temperature", 400)
    assert scaling.temperature > 1.2  # type: ignore[operator]
    assert fitted.metrics["calibration"]["y"]["temperature"] == scaling.temperature
    test = table(1000, 2)
    plain, said = raw(fitted, test), fitted.predict_proba(test).to_numpy()
    np.testing.assert_allclose(said, scaling.apply(plain), rtol=1e-5)
    np.testing.assert_allclose(said.sum(1), 1, atol=1e-5)
    assert fitted.predict(test).tolist() == np.array(["u", "v", "w"])[plain.argmax(1)].tolist()
    true = test["y"].map({"u": 0, "v": 1, "w": 2}).to_numpy()
    losses = [-np.log(some[np.arange(1000), true]).mean() for some in (plain, said)]
    report = fitted.evaluate(test)
    assert report["log_loss"] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1] < losses[0]
    measured = fitted.measure_calibration(test)["y"]
    assert measured.after["calibration_error"].value < measured.before["calibration_error"].value
    assert measured.rows == 1000


def test_the_validation_report_is_of_rows_scaled_by_others(fitted: pf.Predictor) -> None:
    kept, scores = fitted._calibration.kept("y")  # type: ignore[union-attr]
    value = fitted.metrics["validation"]["metrics"]["log_loss"]["value"]
    assert value == pytest.approx(-np.log(scores[np.arange(400), kept]).mean(), rel=1e-5)
    assert value != pytest.approx(fitted.evaluate(table(400, 1))["log_loss"], rel=1e-6)


def test_it_is_kept_with_the_model(fitted: pf.Predictor, folder: Path) -> None:
    test = table(50, 2)
    again = pf.load(folder)
    pd.testing.assert_frame_equal(again.predict_proba(test), fitted.predict_proba(test), atol=1e-6)
    pd.testing.assert_series_equal(again.predict_sets(test), fitted.predict_sets(test))
    names = sorted(path.name for path in (folder / "calibration").iterdir())
    assert names == ["calibration.json", "calibration.safetensors"]
    assert again.recipe.calibration == "auto"
    assert (
        "Probabilities of y are calibrated (temperature) on 400 validation rows." in (folder / "README.md").read_text()
    )
    assert again._calibration.data() == fitted._calibration.data()  # type: ignore[union-attr]


def test_a_row_of_nothing_has_the_prior_and_every_label(fitted: pf.Predictor) -> None:
    nothing = pd.DataFrame({name: [None] for name in "abcdefgh"})
    with pytest.warns(UserWarning, match="no modality"):
        said = fitted.predict_proba(nothing)
    np.testing.assert_allclose(said.to_numpy()[0], fitted.schema.target.frequencies, rtol=1e-6)
    with pytest.warns(UserWarning, match="no modality"):
        assert fitted.predict_sets(nothing, level=0.5).tolist() == [["u", "v", "w"]]
    assert fitted.predict_proba(table(3)[:0]).shape == (0, 3)
    assert fitted.predict_sets(table(3)[:0]).tolist() == []


def test_sets_hold_the_truth(fitted: pf.Predictor) -> None:
    test = table(2000, 3)
    sets = fitted.predict_sets(test, level=0.8)
    assert sets.index.equals(test.index)
    inside = np.mean([one in some for one, some in zip(test["y"], sets, strict=True)])
    report = fitted.measure_coverage(test, levels=(0.8, 0.9), groups=["shop"])["y"]
    assert report.levels[0].coverage.value == pytest.approx(inside)
    assert report.levels[0].expected.low - 0.03 < inside < report.levels[0].expected.high + 0.03
    assert set(report.levels[0].groups["shop"]) == {"north", "south"}
    assert report.levels[1].size.value > report.levels[0].size.value
    larger = fitted.predict_sets(test, level=0.8, method="aps").map(len)
    assert larger.min() >= 1
    with pytest.raises(InputError, match="no column 'shp'"):
        fitted.measure_coverage(test, groups=["shp"])
    with pytest.raises(InputError, match="use  predict_sets"):
        fitted.predict_interval(test)
    with pytest.raises(InputError, match=r"level = 0.9999.*fit_calibration"):
        fitted.predict_sets(test, level=0.9999)


def test_what_is_not_installed_is_told_before_work_starts(
    fitted: pf.Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mapie", None)
    monkeypatch.setattr(fitted, "_rows_to_answer", None)
    with pytest.raises(MissingExtra, match=r"polyfuse\[report\]"):
        fitted.predict_sets(table(10))


def test_intervals_hold_the_truth(regression: pf.Predictor) -> None:
    test = table(2000, 3)
    ends = regression.predict_interval(test, level=0.8)
    assert ends.columns.tolist() == ["low", "high"]
    inside = float(((ends["low"] <= test["n"]) & (test["n"] <= ends["high"])).mean())
    report = regression.measure_coverage(test, levels=(0.8,))["n"].levels[0]
    assert report.coverage.value == pytest.approx(inside, abs=2e-3)
    assert report.expected.low - 0.03 < inside < report.expected.high + 0.03
    np.testing.assert_allclose((ends["low"] + ends["high"]) / 2, regression.predict(test), rtol=1e-5, atol=1e-6)
    assert regression.metrics["calibration"]["n"]["why"] == "a regression has no probabilities"
    with pytest.raises(InputError, match="use  predict_interval"):
        regression.predict_sets(test)
    with pytest.raises(InputError, match="a regression has no probabilities"):
        regression.measure_calibration(test)
    with pytest.warns(UserWarning, match="no modality"):
        assert np.isinf(regression.predict_interval({"a": None}).to_numpy()).all()


def test_it_is_fitted_anew_on_other_rows(folder: Path) -> None:
    predictor = pf.load(folder)
    before = predictor.predict_proba(table(50, 2))
    predictor.fit_calibration(table(600, 5), method="none")
    np.testing.assert_allclose(predictor.predict_proba(table(50, 2)), raw(predictor, table(50, 2)), rtol=1e-6)
    assert predictor.recipe.calibration == predictor.metrics["calibration"]["y"]["method"] == "none"
    predictor.fit_calibration(table(600, 5), method="vector")
    assert predictor._calibration.scalings["y"].method == "vector"  # type: ignore[union-attr]
    assert len(predictor._calibration.truth) == 600  # type: ignore[union-attr]
    kept = predictor.predict_proba(table(50, 2))
    assert not np.allclose(kept, before)
    with pytest.raises(InputError, match="20 rows to fit on, and it needs 50"):
        predictor.fit_calibration(table(20, 5), method="temperature")
    pd.testing.assert_frame_equal(predictor.predict_proba(table(50, 2)), kept)
    nothing = table(60, 5).assign(**dict.fromkeys("abcdefgh"))
    with pytest.raises(InputError, match="in none of the 60 rows anything is present"):
        predictor.fit_calibration(nothing)


def test_several_targets_have_their_own(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"columns": {"shop": "ignore"}, "fusion": "linear", "calibration": "temperature"}
    some, others, test = (tagged(rows, seed) for rows, seed in ((200, 0), (200, 1), (100, 2)))
    predictor = pf.Predictor(["y", "n", "tags"], **settings)
    predictor.fit(some, validation=others, out=tmp_path / "run", progress=False)
    again = pf.load(tmp_path / "run")
    methods = {name: said["method"] for name, said in again.metrics["calibration"].items()}
    assert methods == {"y": "temperature", "n": "none", "tags": "temperature"}
    pd.testing.assert_frame_equal(again.predict_proba(test), predictor.predict_proba(test), atol=1e-6)
    assert again.predict_sets(test).columns.tolist() == ["y"]
    assert again.predict_interval(test).columns.tolist() == [("n", "low"), ("n", "high")]
    assert list(again.measure_coverage(test)) == ["y", "n"]
    measured = again.measure_calibration(test)
    assert {name: (at.task, at.turned) for name, at in measured.items()} == {
        "y": ("classification", 0),
        "tags": ("multilabel", 0),
    }


def tagged(rows: int, seed: int) -> pd.DataFrame:
    frame = table(rows, seed)
    drawn = np.random.default_rng(seed)
    there = frame[["a", "b"]].to_numpy() + drawn.normal(size=(rows, 2)) > 0
    frame["tags"] = [[tag for tag, one in zip("pq", row, strict=True) if one] for row in there]
    return frame


def test_the_recipe_says_what_is_fitted() -> None:
    settings: dict[str, Any] = {**LEARNED, "training": QUICK}
    plain = pf.Predictor("y", **settings, calibration="none").fit(table(500), progress=False)
    assert plain.metrics["calibration"]["y"]["why"] == "none was asked for"
    few = pf.Predictor("y", **settings, calibration="vector").fit(table(100), progress=False)
    assert few.metrics["calibration"]["y"] == {
        "method": "none",
        "temperature": None,
        "rows": 15,
        "why": "15 rows to fit on, and it needs 50",
    }
    assert pf.Predictor(recipe=plain.recipe.as_data()).recipe == plain.recipe
    with pytest.raises(RecipeError, match="calibration"):
        pf.Predictor("y", calibration="platt")


def sized(folder: Path) -> None:
    """Write the sizes that files have now into the manifest: what is left is for the calibration's own checks."""
    path = folder / "artifact.json"
    manifest = json.loads(path.read_text())
    for name in ("calibration.json", "calibration.safetensors"):
        manifest["files"][f"calibration/{name}"] = (folder / "calibration" / name).stat().st_size
    path.write_text(json.dumps(manifest))


def about(change: Callable[[dict[str, Any]], object]) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / "calibration" / "calibration.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return apply


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / "calibration" / "calibration.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "calibration" / "calibration.json").write_text("{"), "fit another"),
        (lambda folder: (folder / "calibration" / "calibration.json").write_text(" " * (2 << 20)), "more than"),
        (lambda folder: (folder / "calibration" / "calibration.safetensors").write_bytes(b"x"), "damaged"),
        (about(lambda found: found.update(format=2)), "format 2.*upgrade"),
        (about(lambda found: found.update(more=1)), "more"),
        (about(lambda found: found["scalings"].append(found["scalings"][0])), "of 2 targets"),
        (about(lambda found: found["scalings"][0].update(method="platt")), "method"),
        (tensors(lambda found: found.pop("truth")), "other tensors"),
        (tensors(lambda found: found.update(truth=torch.zeros(3, 1))), "another type or shape"),
        (tensors(lambda found: found.update({"0.weights": torch.ones(9)})), "another type or shape"),
        (tensors(lambda found: found.update(scores=found["scores"].half())), "another type"),
        (tensors(lambda found: found.update(scores=torch.zeros(5001, 3))), "more than are kept"),
        (tensors(lambda found: found["0.weights"].fill_(0)), "none that a fit makes"),
        (tensors(lambda found: found["0.biases"].fill_(torch.nan)), "none that a fit makes"),
        (tensors(lambda found: found["scores"].fill_(1.5)), "no model makes"),
        (tensors(lambda found: found["truth"].fill_(3)), "no model makes"),
        (tensors(lambda found: found["truth"].fill_(0.5)), "no model makes"),
    ],
)
def test_damage_is_told(fitted: pf.Predictor, tmp_path: Path, damage: Damage, said: str) -> None:
    folder = fitted.save(tmp_path / "run")
    damage(folder)
    sized(folder)
    with pytest.raises(ArtifactError, match=said):
        pf.load(folder)


def test_an_artifact_of_before_answers_as_it_did(fitted: pf.Predictor, tmp_path: Path) -> None:
    folder = fitted.save(tmp_path / "run")
    manifest = json.loads((folder / "artifact.json").read_text())
    for name in [name for name in manifest["files"] if name.startswith("calibration/")]:
        (folder / name).unlink()
        del manifest["files"][name]
    recipe = (folder / "recipe.yaml").read_text()
    assert "calibration: auto\n" in recipe
    (folder / "recipe.yaml").write_text(recipe.replace("calibration: auto\n", ""))
    manifest["files"]["recipe.yaml"] = (folder / "recipe.yaml").stat().st_size
    (folder / "artifact.json").write_text(json.dumps(manifest))
    old, test = pf.load(folder), table(50, 2)
    np.testing.assert_allclose(old.predict_proba(test), raw(fitted, test), rtol=1e-5)
    for ask in (old.predict_sets, old.measure_calibration, old.measure_coverage):
        with pytest.raises(InputError, match="fit_calibration"):
            ask(test)
    old.fit_calibration(table(200, 6))
    assert len(old.predict_sets(test)) == 50
