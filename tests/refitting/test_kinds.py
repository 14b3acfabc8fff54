"""Every kind of model is refitted: encoders that rest, are tuned or begin at random, groups, a screen, many targets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
from polyfuse.core.errors import InputError
from polyfuse.data.reading import read_table
from polyfuse.refitting import divide


def notes(rows: int, seed: int, **columns: Any) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    cat = random.random(rows) < 0.5
    words = [f"a {'cat' if some else 'dog'} in the {random.choice(['house', 'garden'])}" for some in cat]
    return pd.DataFrame(
        {"note": words, "x": cat + random.normal(size=rows), "animal": np.where(cat, "cat", "dog"), **columns}
    )


FEW: dict[str, Any] = {"epochs": 2, "trackers": [], "batch_size": 32}


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
@pytest.mark.parametrize("fusion", ["concat", "auto"])
def test_pretrained_encoders(tiny_model: Callable[[str], str], tmp_path: Path, tuning: str, fusion: str) -> None:
    combine: Any = {"name": "ensemble", "members": [{"combine": "linear"}, {"combine": "concat", "tuned": True}]}
    if (tuning, fusion) != ("lora", "auto"):
        combine = {"name": "auto", "candidates": ["linear", "concat"], "folds": 2} if fusion == "auto" else fusion
    shutil.copytree(tiny_model("bert"), tmp_path / "bert")
    encoder = {"name": "transformer", "checkpoint": str(tmp_path / "bert")}
    predictor = pf.Predictor(
        "animal",
        modalities={"text": {"columns": ["note"], "encoder": encoder}, "table": {"columns": ["x"]}},
        columns={"note": "text"},
        fusion=combine,
        tuning={"text": tuning},
        training=FEW,
    )
    predictor.fit(notes(120, 0), out=tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "bert")  # an artifact stands alone
    old = pf.load(tmp_path / "run")
    found = old.refit(notes(80, 1), progress=False)
    assert found.predictor.recipe.as_data()["modalities"] == old.recipe.as_data()["modalities"]
    assert found.predictor.recipe.training.epochs == 2
    again = pf.load(found.predictor.save(tmp_path / "next"))
    test = notes(20, 2)
    pd.testing.assert_frame_equal(again.predict_proba(test), found.predictor.predict_proba(test), atol=1e-5)


def pictures(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, rows)
    cells = [random.integers(0, 128, (8, 8), dtype=np.uint8) + np.uint8(100 * one) for one in label]
    return pd.DataFrame({"image": cells, "x": random.normal(size=rows), "y": label})


@pytest.mark.parametrize(("candidate", "screen"), [("film", None), ("linear", {"rate": 0.1})])
def test_what_was_found_goes_on_as_it_is(candidate: str, screen: dict[str, float] | None) -> None:
    way = {"name": "auto", "candidates": [candidate], "folds": 2}
    old = pf.Predictor("y", fusion=way, training=FEW, augmentation="none", screen=screen)
    old.fit(pictures(150), progress=False)
    found = old.refit(pictures(80, 1), progress=False).predictor
    assert found.recipe.fusion == old.recipe.fusion
    assert found.evaluate(pictures(60, 2), progress=False)["accuracy"] > 0.8
    assert (found._screen is not None) is (screen is not None)


def test_encoders_that_began_at_random_go_on_from_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    way = {"name": "auto", "candidates": ["linear"], "folds": 2}
    old = pf.Predictor("y", fusion=way, training=FEW, augmentation="none").fit(pictures(150), progress=False)
    weights = old.model.encoder("image").state_dict()
    assert weights
    seen = []

    def note(model: Any, start: Any) -> bool:
        from polyfuse.fitting.start import warm

        done = warm(model, start)
        seen.append({key: tensor.clone() for key, tensor in model.encoder("image").state_dict().items()})
        return done

    monkeypatch.setattr("polyfuse.fitting.whole.warm", note)
    old.refit(pictures(80, 1), progress=False)
    (begun,) = seen
    assert all(torch.equal(begun[key], tensor) for key, tensor in weights.items())


def test_groups_are_never_on_two_sides() -> None:
    settings: dict[str, Any] = {"training": FEW, "fusion": "concat", "data": {"group": "who", "validation_share": 0.3}}
    old = pf.Predictor("animal", columns={"note": "ignore"}, **settings)
    old.fit(notes(120, 0, who=[f"old {i // 6}" for i in range(120)]), progress=False)
    new = notes(90, 1, who=[f"new {i // 5}" for i in range(90)])
    parts = divide(old.recipe, old.schema, old._kept, read_table(new))
    sides = [parts.replayed, parts.deciding_old, parts.learned, parts.deciding, parts.new, parts.old]
    groups = [set(some.others["who"]) for some in sides]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert old.refit(new, progress=False).predictor.recipe.data.group == "who"
    with pytest.raises(InputError, match="no column 'who'"):
        old.refit(notes(90, 1), progress=False)


def test_a_screen_and_fairness_are_fitted_anew() -> None:
    old = pf.Predictor(
        "animal",
        columns={"note": "ignore"},
        training=FEW,
        fusion="concat",
        screen={"rate": 0.1},
        fairness={"column": "who"},
    )
    who = [["a", "b"][i % 2] for i in range(300)]
    old.fit(notes(300, 0, who=who), progress=False)
    found = old.refit(notes(120, 1, who=who[:120]), progress=False).predictor
    assert "suspicion" in found.predict(notes(5, 2), screen=True)
    assert found.recipe.fairness == old.recipe.fairness


def test_several_targets_and_a_regression() -> None:
    random = np.random.default_rng(0)

    def both(rows: int, now: float = 0.0) -> pd.DataFrame:
        x = random.normal(size=rows)
        return pd.DataFrame({"x": x, "y": 3 * x + now + random.normal(size=rows), "sign": np.where(x > 0, "+", "-")})

    settings: dict[str, Any] = {"training": {**FEW, "epochs": 6}, "fusion": "concat"}
    alone = pf.Predictor("y", columns={"sign": "ignore"}, **settings).fit(both(200), progress=False)
    found = alone.refit(both(150, now=5.0), replay=False, progress=False)
    assert found.new.metric == "rmse"
    assert found.new.gain.low > 0
    assert found.old.gain.high < 0
    several = pf.Predictor(["y", "sign"], **settings).fit(both(200), progress=False)
    told = several.refit(both(150), progress=False)
    assert told.new.metric == "relative_loss"
    assert np.isfinite(told.new.gain.value)
    assert several.refit(both(150).drop(columns="sign"), progress=False).new.rows == 45
