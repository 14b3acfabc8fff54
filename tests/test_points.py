"""Point clouds beside a table, from files to a model that is measured, attacked, saved and asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
import shapes
from cli_runner import polyfuse
from polyfuse.core.errors import DataError, InputError
from polyfuse.data.corruption import corruptions_for
from polyfuse.data.media import MediaFolder, load
from polyfuse.data.points import decode_points

SETTINGS: dict[str, Any] = {"fusion": "concat", "training": {"epochs": 10, "trackers": []}}
SMALL = {"steps": 8, "rivals": 1, "queries": 10}


def written(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write clouds as files of three kinds, one of them missing, and the table that names them."""
    paths: list[str | None] = []
    for row, cloud in enumerate(frame["cloud"]):
        files = {"ply": shapes.ply(cloud, "x y z"), "npy": shapes.npy(cloud), "xyz": shapes.xyz(cloud)}
        ending = ["ply", "npy", "xyz"][row % 3]
        paths.append(f"{name}-{row}.{ending}")
        (folder / f"{name}-{row}.{ending}").write_bytes(files[ending])
    paths[5] = None
    frame.assign(cloud=paths).to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with train.csv, test.csv, and a model in `run` that the command line made of them."""
    folder = tmp_path_factory.mktemp("solids")
    written(shapes.solids(160), folder, "train")
    written(shapes.solids(40, seed=1), folder, "test")
    call = ["--target", "solid", "--out", "run", "--set", "fusion=concat", "--set", "training.epochs=10"]
    polyfuse("fit", "train.csv", *call, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> pf.Predictor:
    return pf.load(folder / "run")


def test_the_command_line_fits_evaluates_and_predicts(folder: Path, predictor: pf.Predictor) -> None:
    assert predictor.schema.modalities == {"points": ["cloud"], "table": ["weight"]}
    report = json.loads(polyfuse("evaluate", "run", "test.csv", "--json", cwd=folder)[0])
    accuracy = report["metrics"]["accuracy"]["value"]
    assert accuracy > 0.8
    polyfuse("predict", "run", "test.csv", "--out", "answers.csv", cwd=folder)
    answers = pd.read_csv(folder / "answers.csv")["solid"]
    assert (answers == pd.read_csv(folder / "test.csv")["solid"]).mean() == pytest.approx(accuracy)
    assert predictor.predict(folder / "test.csv").tolist() == answers.tolist()
    # In memory, the same.
    frame = shapes.solids(40, seed=1)
    frame.loc[5, "cloud"] = None
    assert predictor.predict(frame).tolist() == answers.tolist()
    assert predictor.predict({"cloud": frame["cloud"][0].tolist(), "weight": frame["weight"][0]}).iloc[0] == answers[0]


def test_what_is_wrong_with_clouds_is_told_with_their_rows(folder: Path, predictor: pf.Predictor) -> None:
    rows = pd.read_csv(folder / "test.csv")
    rows.loc[3, "cloud"], rows.loc[4, "cloud"] = "nowhere.ply", "flat.xyz"
    (folder / "flat.xyz").write_text("1 2\n3 4\n")
    rows.to_csv(folder / "wrong.csv", index=False)
    with pytest.raises(DataError) as error:
        predictor.evaluate(folder / "wrong.csv")
    assert "there is no such file" in str(error.value)
    assert "a cloud of 3 numbers a point is expected: one of 2" in str(error.value)


def test_the_command_attacks_and_writes_what_it_found(folder: Path) -> None:
    call = ["--budget", "points=displace:0.1", "--fast", "--examples", "seen", "--json"]
    told = json.loads(polyfuse("attack", "run", "test.csv", *call, cwd=folder)[0])
    assert told["subsets"]["points"]["value"] < told["clean"]["value"] - 0.2
    assert 0.9 < told["budgets"]["points"]["used"] <= 1
    for one in json.loads((folder / "seen" / "examples.json").read_text()):
        files = one["changed"]["cloud"]
        before, after = (np.load(folder / "seen" / file, allow_pickle=False) for file in files[::2])
        middle = (before.min(0).astype(float) + before.max(0)) / 2
        radius = np.linalg.norm(before - middle, axis=1).max()
        moved = np.linalg.norm(after.astype(float) - before, axis=1)
        assert 0 < moved.max() <= 0.1 * radius * (1 + 1e-4)
        seen = decode_points(load((folder / "seen" / files[3]).read_bytes(), "points", MediaFolder(folder)))
        assert np.allclose(seen[:, :3], after)
        assert np.array_equal(seen[:, 3] > 0.8, moved > 0)


@pytest.mark.parametrize("budget", ["drop:0.2", "add:0.1"])
def test_points_that_come_or_go(predictor: pf.Predictor, folder: Path, budget: str) -> None:
    call: dict[str, Any] = {"budgets": {"points": budget}, "options": SMALL, "factors": [0.5]}
    report = predictor.attack(folder / "test.csv", **call, rows=24, progress=False)
    harm = list(report.curve.values())
    assert harm == sorted(harm, reverse=True)
    assert harm[-1] < harm[0] - 0.05
    assert 0 < report.budgets["points"].used <= 1


def test_the_joint_attack_is_at_least_as_bad_as_each(predictor: pf.Predictor, folder: Path) -> None:
    call: dict[str, Any] = {"options": SMALL, "rows": 16, "checked": False, "progress": False}
    report = predictor.attack(
        folder / "test.csv", budgets={"points": "displace:0.05", "table": "ranges:0.5"}, absent=["points"], **call
    )
    alone = {name: report.subsets[name].value for name in ("points", "table")}
    assert report.subsets["points + table"].value <= min(alone.values())
    assert report.worst.value <= min(one.value for one in report.subsets.values())
    defaults = predictor.attack(folder / "test.csv", **call)
    assert {key: budget.threat for key, budget in defaults.budgets.items()} == {"points": "displace", "table": "ranges"}


def test_training_against_displacement_helps() -> None:
    train, test = shapes.solids(120), shapes.solids(24, seed=1)
    modalities = {"points": {"columns": ["cloud"], "encoder": {"name": "pointnet", "width": 24}}}
    adversarial = {"method": "pgd", "steps": 2, "budgets": {"points": "displace:0.1"}}
    settings: dict[str, Any] = {"modalities": modalities, "fusion": "concat", "augmentation": "none"}
    settings |= {"training": {"epochs": 16, "trackers": []}}
    plain = pf.Predictor("solid", **settings).fit(train, progress=False)
    firm = pf.Predictor("solid", **settings, adversarial=adversarial).fit(train, progress=False)
    worst = [
        one.attack(test, budgets={"points": "displace:0.1"}, options=SMALL, checked=False, progress=False).worst.value
        for one in (plain, firm)
    ]
    assert worst[1] > worst[0] + 0.1
    with pytest.raises(InputError, match="images, recordings, clouds and vectors; leave it out"):
        pf.Predictor("solid", **settings, adversarial={"budgets": {"points": "drop"}}).fit(train, progress=False)


def test_an_ensemble_is_attacked_too() -> None:
    train, test = shapes.solids(100), shapes.solids(16, seed=1)
    fusion = {"name": "ensemble", "members": [{"combine": "concat"}, {"combine": "boosting", "modalities": ["table"]}]}
    several = pf.Predictor("solid", fusion=fusion, training={"epochs": 8, "trackers": []}).fit(train, progress=False)
    report = several.attack(test, budgets={"points": "displace:0.2"}, options=SMALL, checked=False, progress=False)
    assert report.worst.value < report.clean.value - 0.2


def test_damage_and_noise(predictor: pf.Predictor) -> None:
    test = shapes.solids(40, seed=1)
    report = predictor.stress(test, modalities=["points"], severities=[5], seeds=1, progress=False)
    assert all(name in str(report) for name in corruptions_for(predictor.schema.columns[:1]))
    noisy = pf.Predictor("solid", fusion="concat", training={"epochs": 6, "trackers": [], "noise": {"points": 0.05}})
    proven = noisy.fit(shapes.solids(80), progress=False).certify(
        test, noise={"points": 0.05}, samples=100, rows=4, progress=False
    )
    assert proven.units == {"points": "the cloud's own unit"}
    assert len(proven.frame) == 4
