"""`polyfuse tune` as a person uses it: real processes, real files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

import polyfuse as pf
from cli_runner import polyfuse


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tune")
    rng = np.random.default_rng(0)
    x, place = rng.normal(size=80), rng.choice(["north", "south"], 80)
    y = np.where(x + (place == "north") + rng.normal(0, 0.3, 80) > 0.4, "yes", "no")
    pd.DataFrame({"x": x, "place": place, "y": y}).to_csv(made / "train.csv", index=False)
    return made


CALL = ("tune", "train.csv", "--target", "y", "--out", "runs/y", "--set", "training.epochs=2")
SPACE = ("--space", "fusion=concat,deep", "--space", "training.learning_rate=1e-3..1e-1", "--seed", "3")


def test_from_a_table_to_the_best_recipe_and_on(folder: Path) -> None:
    out, told = polyfuse(*CALL, *SPACE, "--trials", "3", "--json", cwd=folder)
    document = json.loads(out)
    about = document["tuning"]
    assert document["run"] == "runs/y"
    assert [line["trial"] for line in about["trials"]] == [0, 1, 2]
    assert about["metric"] == "log_loss"
    assert about["space"]["training.learning_rate"] == "0.001..0.1 by its logarithm"
    assert "[I " not in told, "that is how Optuna speaks"
    assert "fitting the recipe of trial" in told
    file = folder / "runs" / "y.study.db"
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{file}")
    assert [trial.params for trial in study.trials] == [line["params"] for line in about["trials"]]
    best = pf.load(folder / "runs" / "y")
    assert best.recipe.training.seed == 3
    assert best.recipe.fusion.name == about["trials"][about["best"]]["params"]["fusion"]
    # The same command goes on, and shows what was tried.
    _, told = polyfuse(*CALL, *SPACE, "--trials", "5", cwd=folder, code=2)
    assert "overwrite" in told
    out, _ = polyfuse(*CALL, *SPACE, "--trials", "5", "--overwrite", cwd=folder)
    assert "Tried, by log_loss" in out
    assert "learning_rate" in out
    assert len(optuna.load_study(study_name=None, storage=f"sqlite:///{file}").trials) == 5
    assert "Tried, by log_loss" in polyfuse("info", "runs/y", cwd=folder)[0]
    _, told = polyfuse(*CALL, *SPACE, "--trials", "6", "--overwrite", "--set", "training.clip=2", cwd=folder, code=2)
    assert "recipe.training.clip is 1.0 there and 2" in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--trials", "0"), "--trials"),
        (("--time-limit", "soon"), "time_limit"),
        (("--space", "fusoin=concat"), "did you mean 'fusion'"),
        (("--space", "training.epochs=1..3"), "is set, and to be searched"),
        (("--space", "fusion.depth=3..1"), "from the lesser number to the greater"),
        (("--study", "train.csv"), "cannot be opened as a study"),
        (("--set", "fusion=conkat"), "did you mean 'concat'"),
        (("--target", "why"), "why"),
    ],
)
def test_wrong_calls_end_with_2_and_leave_nothing(folder: Path, arguments: tuple[str, ...], expected: str) -> None:
    before = {path: path.stat().st_size for path in folder.rglob("*")}
    out, told = polyfuse(*CALL, "--out", "runs/wrong", *arguments, cwd=folder, code=2)
    assert expected in " ".join(told.split())
    assert out == ""
    assert {path: path.stat().st_size for path in folder.rglob("*")} == before


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys, polyfuse, polyfuse.predictor, polyfuse.cli.app; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
