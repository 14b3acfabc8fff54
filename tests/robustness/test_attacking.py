"""Attacks on fitted models of an image and a recording: real encoders, real files, the command line."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.attacks import build_attack, build_threat
from polyfuse.attacks.regions import Box
from polyfuse.attacks.threat import Sample
from polyfuse.core.errors import InputError, PolyfuseError
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Column
from polyfuse.robustness import attack_model, threats_of
from polyfuse.robustness.audit import audit
from polyfuse.robustness.joint import attacked, subsets
from polyfuse.robustness.scene import Scene

SMALL = {"steps": 8, "rivals": 1, "queries": 5}
BUDGETS = {"image": "linf:40/255", "audio": "snr:10"}


def write(folder: Path, rows: int) -> pd.DataFrame:
    """Write pictures and tones of three kinds, some of either missing."""
    drawn = np.random.default_rng(0)
    made = []
    for i in range(rows):
        label = i % 3
        pixels = drawn.integers(60, 160, (8, 8, 3))
        pixels[:, 2 * label : 2 * label + 3] += 60
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        time = np.arange(1600) / 8000
        wave = 0.3 * np.sin(2 * np.pi * (400 + 300 * label) * time) + 0.1 * drawn.standard_normal(1600)
        soundfile.write(folder / f"{i}.wav", wave.clip(-1, 1), 8000)
        row = {"photo": f"{i}.png", "sound": f"{i}.wav", "kind": "abc"[label]}
        if i % 10 == 9:
            row["photo" if i % 20 == 9 else "sound"] = None
        made.append(row)
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with train.csv, test.csv and a model in `run`."""
    folder = tmp_path_factory.mktemp("attacked")
    table = write(folder, 150)
    table[:120].to_csv(folder / "train.csv", index=False)
    table[120:].to_csv(folder / "test.csv", index=False)
    settings: dict[str, Any] = {"fusion": "concat", "training": {"epochs": 14, "trackers": []}}
    pf.Predictor("kind", **settings).fit(folder / "train.csv", out=folder / "run", progress=False)
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> pf.Predictor:
    return pf.load(folder / "run")


def rows_of(predictor: pf.Predictor, folder: Path, count: int = 12) -> Rows:
    table = read_table(folder / "test.csv", media_root=None)
    return read_rows(table, predictor.schema, training=False, answers=True).subset(range(count))


def test_the_joint_attack_is_at_least_as_bad_as_each(predictor: pf.Predictor, folder: Path) -> None:
    report = predictor.attack(folder / "test.csv", budgets=BUDGETS, options=SMALL, factors=[0.25, 4], progress=False)
    assert report.clean.value > 0.85
    assert set(report.subsets) == {"image", "audio", "image + audio"}
    alone = min(report.subsets["image"].value, report.subsets["audio"].value)
    assert report.worst.value <= report.subsets["image + audio"].value <= alone <= report.clean.value
    assert report.worst.value < 0.7
    assert list(report.curve) == [0.0, 0.25, 1.0, 4.0]
    assert all(less <= more for more, less in pairwise(report.curve.values()))
    assert report.curve[4.0] < 0.35
    assert all(0.9 < budget.used <= 1 for budget in report.budgets.values())
    assert report.budgets["image"].norm == "L∞"
    assert "worst case" in str(report)
    assert json.loads(report.to_json())["subsets"]["image"]["value"] == report.subsets["image"].value


def test_what_is_reported_is_what_the_model_says_of_the_values(predictor: pf.Predictor, folder: Path) -> None:
    rows = rows_of(predictor, folder)
    device = torch.device("cpu")
    threats = threats_of(predictor.model, predictor.schema, None, BUDGETS)
    scene = Scene.of(predictor.model, rows, list(threats), device)
    damage, _ = scene.damage()
    problem = scene.problem(threats, scene)
    torch.testing.assert_close(problem.goal.damage(problem.at_clean), damage, rtol=1e-4, atol=1e-5)
    moved = {name: region.start(torch.Generator().manual_seed(0)) for name, region in problem.regions.items()}
    real = {name: region.finished(moved[name]) for name, region in problem.regions.items()}
    after = scene.moved(real, threats, scene)
    # The values went through a picture and a recording, and are prepared anew.
    torch.testing.assert_close(after.damage()[0], problem.goal.damage(problem.output(real)), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(after.damage()[0], damage)
    absent = [value is None for value in scene.values["image"]]
    assert any(absent)
    assert [value is None for value in after.values["image"]] == absent


def test_rows_that_are_left_alone_stay_what_they_are(predictor: pf.Predictor, folder: Path) -> None:
    rows = rows_of(predictor, folder)
    threats = threats_of(predictor.model, predictor.schema, ["image"], BUDGETS)
    scene = Scene.of(predictor.model, rows, list(threats), torch.device("cpu"))
    problem = scene.problem(threats, scene)
    still = scene.moved(problem.clean, threats, scene)
    assert all(one is other for one, other in zip(still.values["image"], scene.values["image"], strict=True))


def test_a_value_beyond_its_budget_fails_the_run(
    predictor: pf.Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(predictor, folder, 4)
    threats = threats_of(predictor.model, predictor.schema, ["image"], {"image": "linf:0.1"})
    monkeypatch.setattr(Box, "project", lambda self, x: self.clean + 1.2 * (x - self.clean).clamp(-0.1, 0.1))
    with pytest.raises(PolyfuseError, match="allows: nothing of this attack can be reported"):
        attack_model(predictor.model, rows, torch.device("cpu"), threats, "fgsm")


@pytest.mark.parametrize(
    ("name", "type", "options"),
    [
        ("linf", "image", {"radius": 0.1}),
        ("l2", "image", {"radius": 0.5}),
        ("patch", "image", {"share": 0.1}),
        ("linf", "audio", {"radius": 0.01}),
        ("snr", "audio", {"decibels": 20.0}),
        ("l2", "audio", {}),
    ],
)
def test_excess_is_measured_by_the_definition(name: str, type: Any, options: dict[str, float]) -> None:
    threat = build_threat({"name": name, **options}, "m", [Column(name="c", type=type)])
    shape = (1, 3, 10, 10) if type == "image" else (500,)
    drawn = np.random.default_rng(0)
    clean = drawn.uniform(0.4, 0.6, shape)
    direction = drawn.standard_normal(shape)
    if name == "patch":  # ten pixels are allowed; a pixel counts once, in however many channels it changes
        for pixels, expected in ((10, 0.0), (20, 1.0)):
            found = clean.copy()
            found.reshape(1, 3, 100)[:, :2, :pixels] += 0.1
            assert threat.excess(Sample((), clean), Sample((), found)) == pytest.approx(expected, abs=1e-4)
        return
    length = np.linalg.norm(direction)
    radius = {
        "linf": options.get("radius", 0) / np.abs(direction).max(),
        "l2": options.get("radius", 0.1 * np.linalg.norm(clean)) / length,
        "snr": np.linalg.norm(clean) / 10 / length,
    }[name]
    for factor in (0.5, 0.999, 1.5):
        found = clean + factor * radius * direction
        assert threat.excess(Sample((), clean), Sample((), found)) == pytest.approx(factor - 1, abs=1e-4)
        twice = threat.scaled(2).excess(Sample((), clean), Sample((), found))
        assert twice == pytest.approx(factor / 2 - 1, abs=1e-4)


def test_audit_of_what_was_not_changed(predictor: pf.Predictor, folder: Path) -> None:
    rows = rows_of(predictor, folder)
    threats = threats_of(predictor.model, predictor.schema, ["image"], {})
    values = [rows.value("image", row) for row in range(len(rows))]
    assert audit(threats["image"], predictor.model.encoder("image"), values, values, "image") == 0


def test_an_adversary_who_wants_one_label(predictor: pf.Predictor, folder: Path, tmp_path: Path) -> None:
    data = pd.read_csv(folder / "test.csv")
    call: dict[str, Any] = {"budgets": BUDGETS, "options": SMALL, "progress": False}
    seen = tmp_path / "seen"
    report = predictor.attack(folder / "test.csv", towards="b", examples=seen, **call)
    others = data[data["kind"] != "b"]
    assert report.rows == len(others) < len(data)
    assert report.metric == "kept"
    answers = predictor.predict(folder / "test.csv")[others.index]
    assert report.clean.value == pytest.approx((answers != "b").mean())
    assert report.clean.low <= report.clean.value <= report.clean.high
    assert report.worst.value <= min(at.value for at in report.subsets.values()) < report.clean.value
    reached = [line for line in json.loads((seen / "examples.json").read_text()) if line["after"] == "b"]
    assert all(line["truth"] != "b" for line in reached)
    assert len(reached) == round(len(others) * (1 - report.worst.value)) - (answers == "b").sum()
    # Going for one label only is never easier than for any.
    free = predictor.attack(folder / "test.csv", rows=None, checked=False, **call)
    wrong = len(data) * (1 - free.worst.value)
    assert len(others) * (1 - report.worst.value) <= wrong + 1e-6
    assert "towards 'b'" in str(report)
    far = predictor.attack(folder / "test.csv", towards="b", checked=False, **{**call, "budgets": {"image": "linf:1"}})
    assert far.worst.value < 0.2


@pytest.mark.filterwarnings("ignore:rows with no modality")
def test_what_is_taken_away_is_the_worst_of_what_can_be(predictor: pf.Predictor, folder: Path) -> None:
    data = folder / "test.csv"
    report = predictor.attack(data, modalities=[], absent=["image", "audio"], checked=False, progress=False)
    truth = pd.read_csv(data)["kind"]
    both = pd.read_csv(data)[["photo", "sound"]].notna().all(axis=1)
    assert 0 < (~both).sum() < len(truth)
    right = {"": predictor.predict(data) == truth}
    for name in ("image", "audio"):
        # Where it is all that a row has, it stays.
        right[name] = right[""].where(~both, predictor.predict(data, without=[name]) == truth)
        assert report.subsets[name].value == pytest.approx((right[""] & right[name]).mean())
    worst = (right[""] & right["image"] & right["audio"]).mean()
    assert report.worst.value == report.subsets["image + audio"].value == pytest.approx(worst)
    assert worst < right[""].mean()
    assert report.budgets == {}
    assert report.absent == ["image", "audio"]
    assert "audio: may be taken away" in str(report)


def test_what_is_left_is_changed_where_another_is_taken_away(
    predictor: pf.Predictor, folder: Path, tmp_path: Path
) -> None:
    call: dict[str, Any] = {"budgets": {"image": "linf:6/255"}, "options": SMALL, "checked": False, "progress": False}
    alone = predictor.attack(folder / "test.csv", **call)
    away = predictor.attack(folder / "test.csv", modalities=[], absent=["audio"], checked=False, progress=False)
    report = predictor.attack(folder / "test.csv", absent=["audio"], examples=tmp_path / "seen", **call)
    assert list(report.subsets) == ["image", "audio", "image + audio"]
    assert report.subsets["image"].value == alone.worst.value
    assert report.subsets["audio"].value == away.worst.value
    assert report.worst.value < min(alone.worst.value, away.worst.value)
    changes = [line["changed"] for line in json.loads((tmp_path / "seen" / "examples.json").read_text())]
    assert any(set(change) == {"photo", "sound"} and change["sound"] == "taken away" for change in changes)


def test_what_is_only_taken_away_is_encoded_once(predictor: pf.Predictor, folder: Path) -> None:
    rows, model = rows_of(predictor, folder), predictor.model
    threats = threats_of(model, predictor.schema, ["image"], {"image": "linf:6/255"})
    calls: list[int] = []
    handle = model.encoder("audio").register_forward_hook(lambda *_: calls.append(1))
    scene = Scene.of(model, rows, ["image"], torch.device("cpu"), absent=["audio"])
    hand = ["image", "audio"]
    found = dict(attacked(scene, threats, build_attack("pgd", {"steps": 3}), subsets(hand, 0), 0, ["audio"]))
    handle.remove()
    assert len(calls) == 1
    every = Scene.of(model, rows, hand, torch.device("cpu"))
    same = dict(attacked(every, threats, build_attack("pgd", {"steps": 3}), subsets(hand, 0), 0, ["audio"]))
    for some, worst in found.items():
        torch.testing.assert_close(worst.damage, same[some].damage, rtol=1e-4, atol=1e-5)
    gone = [value is None for value in found[frozenset(hand)].scene.values["audio"]]
    assert sum(gone) > sum(value is None for value in scene.values["audio"])


def test_what_no_budget_allows_fails_the_run(predictor: pf.Predictor, folder: Path) -> None:
    rows = rows_of(predictor, folder)
    threats = threats_of(predictor.model, predictor.schema, ["image"], {})
    encoder = predictor.model.encoder("image")
    values = [rows.value("image", row) for row in range(len(rows))]
    gone = [None, *values[1:]]
    assert values[0] is not None
    with pytest.raises(PolyfuseError, match="row 0 was taken away, which no budget allows"):
        audit(threats["image"], encoder, values, gone, "image")
    assert audit(threats["image"], encoder, values, gone, "image", absent=True) == 0
    other = [values[1], *values[1:]]
    with pytest.raises(PolyfuseError, match="row 0 was changed, which no budget allows"):
        audit(None, encoder, values, other, "image", absent=True)


def test_subsets() -> None:
    assert [len(some) for some in subsets(list("abc"), 0)] == [1, 1, 1, 2, 2, 2, 3]
    many = subsets(list("abcdefgh"), 0)
    assert frozenset("abcdefgh") in many
    assert all(frozenset(name) in many for name in "abcdefgh")
    assert len(many) == len(set(many)) == 8 + 1 + 31
    assert many == subsets(list("abcdefgh"), 0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"modalities": ["imag"]}, "image"),
        ({"budgets": {"photo": "linf"}}, "no modality 'photo'"),
        ({"budgets": {"image": "lin"}}, "linf"),
        ({"absent": ["sound"]}, "no modality 'sound'"),
        ({"modalities": []}, "none of the modalities"),
        ({"towards": "d"}, "no label 'd'"),
        ({"budgets": {"image": "snr:20"}}, "changes audio"),
        ({"budgets": {"image": "linf:much"}}, "fraction"),
        ({"budgets": {"image": "linf:-1"}}, "greater than 0"),
        ({"budgets": {"image": {"name": "linf", "width": 1}}}, "no option 'width'"),
        ({"budgets": {"image": {"radius": 1}}}, "needs a name"),
        ({"attack": "ensembl"}, "ensemble"),
        ({"options": {"step": 3}}, "steps"),
        ({"options": {"steps": "many"}}, "valid integer"),
        ({"options": {"steps": 0}}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(
    predictor: pf.Predictor, folder: Path, call: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        predictor.attack(folder / "test.csv", progress=False, **call)


def test_the_command_writes_examples_and_json(folder: Path, tmp_path: Path) -> None:
    call = ["attack", folder / "run", folder / "test.csv", "--budget", "image=linf:0.2", "--fast"]
    shown, _ = polyfuse(*call, "--rows", "10", "--examples", tmp_path / "seen", "--json", cwd=tmp_path)
    report = json.loads(shown)
    assert report["rows"] == 10
    assert list(report["subsets"]) == ["image"]
    also = polyfuse(*call, "--rows", "10", "--absent", "audio", "--json", cwd=tmp_path)[0]
    assert list(json.loads(also)["subsets"]) == ["image", "audio", "image + audio"]
    wanted = json.loads(polyfuse(*call, "--towards", "a", "--json", cwd=tmp_path)[0])
    assert (wanted["metric"], wanted["towards"], wanted["rows"]) == ("kept", "a", 20)
    examples = json.loads((tmp_path / "seen" / "examples.json").read_text())
    turned = round(10 * (report["clean"]["value"] - report["worst"]["value"]))
    assert len(examples) >= turned > 0
    model = pf.load(folder / "run")
    table = pd.read_csv(folder / "test.csv")
    for example in examples:
        assert example["before"] != example["after"]
        (file,) = example["changed"]["photo"]
        assert (tmp_path / "seen" / file).is_file()
        row = table.loc[int(example["row"])].to_dict()
        row["photo"] = str(tmp_path / "seen" / file.replace(".png", "-after.png"))
        row["sound"] = str(folder / row["sound"]) if isinstance(row["sound"], str) else None
        assert model.predict(row).tolist() == [example["after"]]
    assert "exists" in polyfuse(*call, "--examples", tmp_path / "seen", cwd=tmp_path, code=2)[1]
    polyfuse("attack", folder / "run", folder / "test.csv", "--budget", "image", cwd=tmp_path, code=2)


def test_the_least_change_of_each_subset_and_the_curve_from_one_run(predictor: pf.Predictor, folder: Path) -> None:
    call: dict[str, Any] = {
        "attack": "minimal",
        "options": {"steps": 40},
        "checked": False,
        "rows": 12,
        "progress": False,
    }
    report = predictor.attack(folder / "test.csv", budgets=BUDGETS, **call)
    assert list(report.least) == ["image", "audio", "image + audio"]
    alone, both = (report.least["image"], report.least["audio"]), report.least["image + audio"]
    assert both.median <= 1.02 * min(one.median for one in alone)
    assert alone[0].norm == pytest.approx(alone[0].median * 40 / 255)
    assert alone[1].norm is None  # decibels
    for at in report.least.values():
        assert all(less <= more for more, less in pairwise(at.curve.values()))
    # What is found without a limit turns as much within it as the search inside does, rounding aside; audits pass.
    for name, at in report.least.items():
        assert abs(report.subsets[name].value - at.curve[1.0]) <= 0.1
    assert "least change of image: median" in str(report)
    assert json.loads(report.to_json())["least"]["image"]["median"] == alone[0].median
    with pytest.raises(InputError, match="no radius that could grow"):
        predictor.attack(folder / "test.csv", budgets={"image": "patch"}, **call)
