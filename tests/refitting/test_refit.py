"""A refit wins where the world has moved, and only there; it forgets little, changes nothing, and tells where from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import polyfuse as pf
from polyfuse.cli.app import app
from polyfuse.core.errors import DataError, InputError
from polyfuse.fitting.start import warm
from polyfuse.model import FusionModel
from polyfuse.recipe import build
from polyfuse.serving.card import card_of

Make = Callable[..., pd.DataFrame]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_command(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("kind", ["whole", "found"])
def test_where_the_world_has_moved_it_wins_and_is_saved_beside(
    runs: dict[str, Path], table: Make, tmp_path: Path, kind: str
) -> None:
    before = digest(runs[kind])
    new, later = table(300, 1, now=True), table(300, 2, now=True)
    link = tmp_path / "current"
    old = pf.load(runs[kind])
    found = old.refit(new, out=tmp_path / "next", promote=link, progress=False)
    assert found.promoted, found.reason
    assert found.new.gain.low > 0
    assert found.old.gain.high >= 0
    assert digest(runs[kind]) == before
    assert not link.readlink().is_absolute()
    served = pf.load(link)
    assert served.evaluate(later)["log_loss"] < old.evaluate(later)["log_loss"]
    pd.testing.assert_frame_equal(served.predict_proba(later), found.predictor.predict_proba(later), atol=1e-6)


@pytest.mark.parametrize("kind", ["whole", "found"])
def test_answers_that_are_noise_are_not_promoted(runs: dict[str, Path], table: Make, tmp_path: Path, kind: str) -> None:
    before = digest(runs[kind])
    new = table(300, 3)
    new["said"] = np.random.default_rng(0).permutation(new["said"])
    found = pf.load(runs[kind]).refit(new, out=tmp_path / "next", promote=tmp_path / "current", progress=False)
    assert not found.promoted
    assert "look at their answers" in found.reason
    assert found.saved is None
    assert not list(tmp_path.iterdir())
    assert digest(runs[kind]) == before


def test_replay_keeps_what_new_rows_do_not_show(runs: dict[str, Path], table: Make) -> None:
    every = table(900, 5)
    one = every[every["a"] > 0.5]  # where nearly all say yes, as ever
    old = pf.load(runs["whole"])
    forgetful, mindful = (old.refit(one, replay=replay, progress=False) for replay in (False, True))
    assert forgetful.old.gain.high < 0
    assert not forgetful.promoted
    assert mindful.old.gain.high >= 0
    assert mindful.old.new < forgetful.old.new


def test_it_begins_with_the_weights_that_were_there(runs: dict[str, Path], table: Make) -> None:
    old = pf.load(runs["whole"])
    new = table(300, 6)
    fresh = build(old.recipe, old.schema, torch.device("cpu")).model
    assert isinstance(fresh, FusionModel)
    assert warm(fresh, old.model)
    known = old.model.state_dict()
    assert all(torch.equal(weight, known[name]) for name, weight in fresh.state_dict().items())
    first = old.refit(new, progress=False).predictor.metrics["training"]["history"][0]["loss"]
    both = pd.concat([pd.read_csv(runs["train"]), new])
    afresh = pf.Predictor(recipe=old.recipe).fit(both, progress=False).metrics["training"]["history"][0]["loss"]
    assert first < 0.9 * afresh


def test_lineage_over_two_generations(runs: dict[str, Path], table: Make, tmp_path: Path) -> None:
    from polyfuse.artifact import summary

    first = pf.load(runs["whole"]).refit(table(300, 1, now=True), out=tmp_path / "one", progress=False)
    child = pf.load(tmp_path / "one")
    moved = table(400, 7, now=True)
    moved["said"] = np.where(moved["b"] > 0, "yes", "no")  # another rule: a third model has to be another one
    second = child.refit(moved, progress=False).predictor.save(tmp_path / "two")
    ids = [summary(run)["lineage"]["id"] for run in (runs["whole"], tmp_path / "one", second)]
    about = summary(second)["lineage"]
    assert len(set(ids)) == 3
    assert [ancestor["id"] for ancestor in about["ancestors"]] == ids[1::-1]
    assert [source["rows"] for source in about["sources"]] == [500, 300, 400]
    assert about["ancestors"][0]["verdict"] == first.reason
    card = (second / "README.md").read_text()
    assert ids[0][:12] in card
    assert ids[1][:12] in card
    told = card_of(pf.load(second))
    assert (told.id, told.ancestors) == (ids[2], ids[1::-1])
    kept = child._kept
    assert kept is not None
    assert {0, 1} == set(np.digitize(kept.learned.positions, [500]).tolist())  # of both tables


def test_rows_that_it_was_measured_on_are_not_learned_from(runs: dict[str, Path], table: Make) -> None:
    for kind in ("whole", "found"):
        old = pf.load(runs[kind])
        found = old.refit(table(300, 1, now=True), progress=False).predictor
        assert found._kept is not None
        assert old._kept is not None
        assert not set(found._kept.learned.positions) & set(found._kept.held.positions)
        if kind == "whole":  # of what was found, rows are measured on by folds, too
            before = found._kept.held.positions[found._kept.held.positions < 500]
            assert set(before) <= set(old._kept.held.positions)


def test_the_whole_table_is_replayed_where_it_is_the_very_one(runs: dict[str, Path], table: Make) -> None:
    old, new = pf.load(runs["found"]), table(200, 1, now=True)
    found = old.refit(new, old=runs["train"], progress=False)
    assert found.rows["old"] + found.old.rows == 500
    changed = pd.read_csv(runs["train"])
    changed.loc[7, "a"] += 1e-6
    with pytest.raises(InputError, match="not a table that the model learned from"):
        old.refit(new, old=changed, progress=False)
    child = old.refit(new, progress=False).predictor
    with pytest.raises(InputError, match=r"learned from a table in memory .* too"):
        child.refit(new, old=runs["train"], progress=False)
    assert child.refit(new, old=[new, runs["train"]], progress=False).rows["old"] > 500


def test_a_model_that_keeps_no_rows_asks_for_its_table(table: Make, tmp_path: Path) -> None:
    old, new = table(300, 0), table(200, 1, now=True)
    predictor = pf.Predictor("said", fusion="concat", keep="none", training={"epochs": 4}).fit(old, progress=False)
    with pytest.raises(InputError, match=r"keep: none.*--old"):
        predictor.refit(new, progress=False)
    found = predictor.refit(new, old=old, progress=False)
    assert found.old.about == "not learned from"
    assert found.old.rows == 30
    assert found.predictor._kept is not None
    assert found.predictor._kept.learned.table is None
    predictor._kept = predictor._lineage = None  # as in an artifact of an earlier version
    with pytest.raises(InputError, match=r"kept no rows.*--old"):
        predictor.refit(new, progress=False)
    with pytest.raises(InputError, match="--test"):
        predictor.refit(new, old=old, progress=False)
    given = predictor.refit(new, old=old, test=table(150, 8), progress=False)
    assert (given.old.rows, given.old.about, given.rows["old"]) == (150, "as given", 300)


def test_what_is_wrong_with_the_call_is_told_before_work(runs: dict[str, Path], table: Make, tmp_path: Path) -> None:
    old, new = pf.load(runs["whole"]), table(100, 1)
    with pytest.raises(InputError, match="40 rows with an answer: a refit needs at least 60"):
        old.refit(new.head(40), progress=False)
    with pytest.raises(InputError, match="never changed"):
        old.refit(new, out=runs["whole"], overwrite=True, progress=False)
    with pytest.raises(InputError, match="no symbolic link"):
        old.refit(new, out=tmp_path / "next", promote=runs["train"], progress=False)
    with pytest.raises(InputError, match="--out"):
        old.refit(new, promote=tmp_path / "current", progress=False)
    with pytest.raises(DataError, match="maybe"):
        old.refit(new.assign(said="maybe"), progress=False)


def test_values_that_the_model_does_not_know_are_told(runs: dict[str, Path], table: Make) -> None:
    new = table(100, 1)
    new.loc[:19, "city"] = "Lima"
    (note,) = pf.load(runs["found"]).refit(new, progress=False).notes
    assert "20 of 100 new rows" in note
    assert "'Lima'" in note


def test_the_command(runs: dict[str, Path], table: Make, tmp_path: Path) -> None:
    table(300, 1, now=True).to_csv(tmp_path / "new.csv", index=False)
    call = ["refit", str(runs["found"]), str(tmp_path / "new.csv"), "--out", str(tmp_path / "next"), "--json"]
    done = run_command(*call, "--promote", str(tmp_path / "current"))
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["promoted"]
    assert found["new"]["gain"]["low"] > 0
    assert (tmp_path / "current").resolve() == (tmp_path / "next").resolve()
    told = run_command("info", str(tmp_path / "next"))
    assert "Refitted from" in told.stdout
    noise = pd.read_csv(tmp_path / "new.csv")
    noise["said"] = np.random.default_rng(0).permutation(noise["said"])
    noise.to_csv(tmp_path / "noise.csv", index=False)
    other = run_command("refit", str(runs["found"]), str(tmp_path / "noise.csv"), "--out", str(tmp_path / "other"))
    assert other.exit_code == 3
    assert "not promoted" in other.stdout
    assert not (tmp_path / "other").exists()
