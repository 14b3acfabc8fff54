"""The search on real models: it finds, goes on, ends early, survives failures, and leaves a study and a model."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.core.errors import InputError, MissingExtra, PolyfuseError
from polyfuse.core.progress import Silent
from polyfuse.fitting.found import fit_found
from polyfuse.fitting.whole import fit_whole
from polyfuse.fusion import FUSIONS
from polyfuse.study.keeping import STUDY


def table(rows: int = 90, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    place = rng.choice(["north", "south"], rows)
    price = x + (place == "north") + rng.normal(0, 0.2, rows)
    return pd.DataFrame(
        {
            "x": x,
            "z": z,
            "place": place,
            "label": np.where(price > 0.4, "yes", "no"),
            "price": price,
            "tags": [["a"] * int(one > 0) + ["b"] * int(two > 0) for one, two in zip(price, z, strict=True)],
        }
    )


def named(target: str) -> dict[str, str]:
    return {name: "ignore" for name in ("label", "price", "tags") if name != target}


MODALITIES = {"numbers": {"columns": ["x", "z"]}, "places": {"columns": ["place"]}}
SMALL = {"encoder": {"name": "mlp", "dim": 16, "depth": 1}}
RECIPE: dict[str, Any] = {
    "target": "label",
    "columns": named("label"),
    "modalities": {name: {**modality, **SMALL} for name, modality in MODALITIES.items()},
    "training": {"epochs": 4, "batch_size": 16},
}
#: All but the learning rate is set.
ALL_BUT_RATE: dict[str, Any] = {
    "fusion": {"name": "concat", "dim": 16, "dropout": 0.0},
    "head": {"name": "classification", "label_smoothing": 0.0, "class_weights": "none", "dropout": 0.0},
    "training.weight_decay": 0.0,
    "training.batch_size": 8,
    "training.modality_dropout": 0.0,
    "training.mixup": 0.0,
}


def predictor(**settings: Any) -> pf.Predictor:
    return pf.Predictor(recipe=RECIPE, **settings)


def opened(file: Path) -> optuna.Study:
    return optuna.load_study(study_name=STUDY, storage=f"sqlite:///{file}")


def tried(found: pf.Predictor) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = found.metrics["tuning"]["trials"]
    return lines


def without_seconds(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[pf.Predictor, Path]:
    folder = tmp_path_factory.mktemp("tuned")
    found = predictor().tune(table(), trials=8, out=folder / "run", progress=False)
    return found, folder


def test_the_best_recipe_is_fitted_and_saved(tuned: tuple[pf.Predictor, Path]) -> None:
    found, folder = tuned
    about = found.metrics["tuning"]
    assert sorted(path.name for path in folder.iterdir()) == ["run", "run.study.db"]
    assert len(about["trials"]) == 8
    assert about["reason"] == "all trials done"
    assert about["metric"] == "log_loss"
    best = next(line for line in about["trials"] if line["trial"] == about["best"])
    complete = [line for line in about["trials"] if line["state"] == "complete"]
    assert best["value"] == about["value"] == min(line["value"] for line in complete)
    # A learner is kept as an ensemble of one.
    name = best["params"]["fusion"]
    assert found.recipe.fusion.name == (name if name in FUSIONS else "ensemble")
    assert found.recipe.training.metric == "log_loss"
    assert found.recipe.training.time_limit is None
    again = pf.load(folder / "run")
    assert again.recipe.as_data() == found.recipe.as_data()
    assert again.metrics["tuning"] == about
    pd.testing.assert_frame_equal(again.predict_proba(table(20, 5)), found.predict_proba(table(20, 5)), atol=1e-5)
    # As any other fit of that recipe.
    repeated = pf.Predictor(recipe=folder / "run" / "recipe.yaml").fit(table(), progress=False)
    pd.testing.assert_frame_equal(repeated.predict_proba(table(9, 5)), found.predict_proba(table(9, 5)), atol=1e-5)


def test_the_first_trial_is_the_recipe_as_it_stands(tuned: tuple[pf.Predictor, Path]) -> None:
    first = tried(tuned[0])[0]
    assert first["params"]["fusion"] == "concat"
    assert first["params"]["training.learning_rate"] == 1e-3
    assert first["params"]["training.batch_size"] == 16


def test_the_value_is_that_of_the_fitted_model() -> None:
    found = predictor(fusion="concat").tune(table(), trials=3, progress=False)
    measured = found.metrics["validation"]["metrics"]["log_loss"]["value"]
    assert found.metrics["tuning"]["value"] == pytest.approx(measured, rel=1e-4)


def test_optuna_reads_the_study(tuned: tuple[pf.Predictor, Path]) -> None:
    found, folder = tuned
    study = opened(folder / "run.study.db")
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert len(study.trials) == 8
    lines = {line["trial"]: line for line in tried(found)}
    for trial in study.trials:
        line = lines[trial.number]
        assert trial.params == line["params"]
        assert trial.state.name.lower().startswith(line["state"][:4])
        assert len(trial.intermediate_values) == line["epochs"]
    assert study.best_trial.number == found.metrics["tuning"]["best"]
    frame = study.trials_dataframe()
    assert len(frame) == 8
    assert {"number", "value", "state", "params_fusion", "params_training.learning_rate", "user_attrs_seconds"} <= set(
        frame.columns
    )
    assert optuna.study.get_all_study_names(f"sqlite:///{folder / 'run.study.db'}") == [STUDY]


@pytest.mark.parametrize(
    ("target", "metric", "direction"),
    [("price", "rmse", "MINIMIZE"), ("tags", "mean_average_precision", "MAXIMIZE"), ("label", "accuracy", "MAXIMIZE")],
)
def test_the_direction_is_that_of_the_metric(tmp_path: Path, target: str, metric: str, direction: str) -> None:
    recipe = {**RECIPE, "target": target, "columns": named(target)}
    settings = {"training.metric": "accuracy"} if metric == "accuracy" else {}
    found = pf.Predictor(recipe=recipe, **settings)
    found.tune(table(), trials=3, study=tmp_path / "s.db", space=["fusion=concat,linear"], progress=False)
    assert opened(tmp_path / "s.db").direction.name == direction
    about = found.metrics["tuning"]
    values = [line["value"] for line in about["trials"] if line["state"] == "complete"]
    assert about["metric"] == metric
    assert about["value"] == (max(values) if direction == "MAXIMIZE" else min(values))


def test_a_better_option_is_found_and_the_same_seed_finds_the_same() -> None:
    useless = {**RECIPE, "training": {"epochs": 4, "learning_rate": 1e-6}}
    found = [
        pf.Predictor(recipe=useless, **ALL_BUT_RATE, **{"training.seed": seed}).tune(
            table(), trials=14, space={"training.learning_rate": (1e-6, 0.1)}, progress=False
        )
        for seed in (0, 0, 1)
    ]
    about = found[0].metrics["tuning"]
    assert set(about["trials"][0]["params"]) == {"training.learning_rate"}
    assert about["trials"][0]["params"]["training.learning_rate"] == 1e-6
    assert about["value"] < 0.7 * about["trials"][0]["value"]
    assert found[0].recipe.training.learning_rate > 1e-3
    # It learns where to look: what was drawn with a look at the trials before is better than what was drawn without.
    values = [line["value"] for line in about["trials"]]
    assert np.median(values[8:]) < np.median(values[:8])
    assert without_seconds(tried(found[0])) == without_seconds(tried(found[1]))
    assert without_seconds(tried(found[0])) != without_seconds(tried(found[2]))


def test_what_is_behind_ends_early(tmp_path: Path) -> None:
    good, useless = [0.01, 0.012, 0.014, 0.016, 0.018, 0.02], [1e-7, 2e-7, 3e-7, 4e-7, 5e-7, 6e-7]
    rates = {"training.learning_rate": [*good, *useless]}
    found = predictor(**ALL_BUT_RATE, **{"training.epochs": 8, "training.patience": 50})
    found.tune(table(), trials=12, space=rates, study=tmp_path / "s.db", progress=False)
    pruned = [line for line in tried(found) if line["state"] == "pruned"]
    assert pruned
    assert sum(line["params"]["training.learning_rate"] in useless for line in pruned) >= len(pruned) / 2
    assert all(2 <= line["epochs"] < 8 for line in pruned)
    trials = opened(tmp_path / "s.db").trials
    assert sum(trial.state == optuna.trial.TrialState.PRUNED for trial in trials) == len(pruned)
    assert {len(trial.intermediate_values) for trial in trials if trial.state.name == "COMPLETE"} == {8}


QUICK: dict[str, Any] = {"fusion": "concat", "training.epochs": 2}


def test_the_same_call_goes_on(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
    expected = predictor(**QUICK).tune(table(), trials=6, study=whole, progress=False)
    first = predictor(**QUICK).tune(table(), trials=3, study=parts, progress=False)
    # A process that was killed leaves a trial that runs for ever.
    opened(parts).ask()
    second = predictor(**QUICK).tune(table(), trials=6, study=parts, progress=False)
    assert without_seconds(tried(second))[:3] == without_seconds(tried(first))
    drawn = [[line["params"] for line in tried(made)] for made in (expected, second)]
    assert drawn[0] == drawn[1], "as if it had never stopped"
    assert not any(trial.state.name == "RUNNING" for trial in opened(parts).trials)
    # There are as many as are wanted: nothing is tried, the best is fitted.
    third = predictor(**QUICK).tune(table(), trials=5, study=parts, progress=False)
    assert tried(third) == tried(second)
    pd.testing.assert_frame_equal(third.predict_proba(table(9, 5)), second.predict_proba(table(9, 5)), atol=1e-6)


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    predictor(**QUICK).tune(table(), trials=1, study=file, progress=False)

    def told(made: pf.Predictor, data: pd.DataFrame, **more: Any) -> str:
        with pytest.raises(InputError, match="about something else") as caught:
            made.tune(data, trials=1, study=file, progress=False, **more)
        return str(caught.value)

    assert "the table is another one" in told(predictor(**QUICK), table(seed=1))
    assert "recipe.training.epochs is 2 there and 3 here" in told(predictor(**{**QUICK, "training.epochs": 3}), table())
    assert "recipe.target is 'label' there" in told(
        pf.Predictor(recipe={**RECIPE, "target": "price", "columns": named("price")}, **QUICK), table()
    )
    assert "space.training.mixup" in told(predictor(**QUICK), table(), space={"training.mixup": (0, 0.1)})
    assert len(opened(file).trials) == 1
    predictor(**QUICK).tune(table(), trials=1, study=file, progress=False)


def test_another_file_is_no_study(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "train.csv")
    before = (tmp_path / "train.csv").read_bytes()
    with pytest.raises(InputError, match="cannot be opened as a study"):
        predictor(**QUICK).tune(table(), study=tmp_path / "train.csv", progress=False)
    assert (tmp_path / "train.csv").read_bytes() == before
    with pytest.raises(InputError, match="is a folder"):
        predictor(**QUICK).tune(table(), study=tmp_path, progress=False)
    other = tmp_path / "other.db"
    optuna.create_study(storage=f"sqlite:///{other}", study_name=STUDY, direction="maximize")
    with pytest.raises(InputError, match="another metric"):
        predictor(**QUICK).tune(table(), study=other, progress=False)
    odd = tmp_path / "a {b} c" / "s.db"
    predictor(**QUICK).tune(table(), trials=1, study=odd, progress=False)
    assert odd.is_file()


def test_a_trial_that_fails_is_told_and_the_search_goes_on() -> None:
    # Attention wants a width that its heads divide.
    asked = {"fusion": ["attention"], "fusion.attention.heads": [4, 3], "fusion.attention.dim": [16]}
    found = predictor(**{"training.epochs": 1}).tune(table(), trials=5, space=asked, progress=False)
    states = {line["params"]["fusion.attention.heads"]: line["state"] for line in tried(found)}
    assert states[3] == "failed"
    assert states[4] in ("complete", "pruned")
    failed = next(line for line in tried(found) if line["state"] == "failed")
    assert "heads" in failed["note"]
    assert failed["value"] is None
    with pytest.raises(PolyfuseError, match=r"no trial came to an end; .*heads"):
        predictor().tune(table(), trials=2, space={**asked, "fusion.attention.heads": [3, 5]}, progress=False)


def test_a_loss_that_is_no_number_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(job: Any, recipe: Any, **more: Any) -> Any:
        if recipe.training.mixup > 0:
            raise PolyfuseError("the loss is not a number in epoch 1")
        return fit_whole(job, recipe, **more)

    monkeypatch.setattr("polyfuse.study.running.fit_whole", diverging)
    found = predictor(**QUICK).tune(table(), trials=4, progress=False)
    lines = tried(found)
    assert [line["state"] == "failed" for line in lines] == [line["params"]["training.mixup"] > 0 for line in lines]
    assert {line["note"] for line in lines if line["state"] == "failed"} == {"the loss is not a number in epoch 1"}


def test_frozen_features_learners_and_fusions_side_by_side(tiny_model: Callable[[str], str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = table(60).assign(note=[" ".join(rng.choice(["one", "two", "cat"], 4)) for _ in range(60)])
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    text = {"text": {"columns": ["note"], "encoder": encoder}, "numbers": RECIPE["modalities"]["numbers"]}
    made = pf.Predictor("label", columns={**named("label"), "note": "text"}, modalities=text, training={"epochs": 2})
    space = ["fusion=linear,boosting,concat,attention", "tuning.text=frozen,last"]
    made.tune(data, trials=9, space=space, out=tmp_path / "run", progress=False)
    lines = tried(made)
    assert all(line["state"] != "failed" for line in lines), lines
    assert len({line["params"]["fusion"] for line in lines}) >= 3
    learned = [line for line in lines if line["params"]["fusion"] in ("linear", "boosting")]
    assert learned
    assert all(line["epochs"] == 0 and np.isfinite(line["value"]) for line in learned)
    again = pf.load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.predict_proba(data), made.predict_proba(data), atol=1e-5)


def test_learners_and_fusions_are_measured_on_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def watching(job: Any, recipe: Any = None, **more: Any) -> Any:
        made = fit_found(job, **more) if recipe is None else fit_whole(job, recipe, **more)
        measured = made.measured if recipe is None else made.rows.subset(made.held.tolist())
        seen.append(measured.positions.tolist())
        return made

    monkeypatch.setattr("polyfuse.study.running.fit_whole", watching)
    monkeypatch.setattr("polyfuse.study.running.fit_found", watching)
    asked = {"fusion": ["concat", "linear", "boosting"]}
    found = predictor(**{"training.epochs": 1}).tune(table(), trials=5, space=asked, progress=False)
    assert len({line["params"]["fusion"] for line in tried(found)}) > 1
    assert len(seen) == 5
    assert all(rows == seen[0] for rows in seen)
    assert len(seen[0]) == 14, "15 of 100, of 90 rows"


def test_nothing_is_tried_twice(tmp_path: Path) -> None:
    # A linear learner has nothing to draw, and is the best here: a sampler is drawn to it again and again.
    asked = ["fusion=linear,concat", "training.learning_rate=1e-7,1e-6"]
    settings = {key: value for key, value in ALL_BUT_RATE.items() if key != "fusion"}
    recipe = {**RECIPE, "training": {"epochs": 1}}
    made = pf.Predictor(recipe=recipe, **settings, **{"fusion": "auto"})
    made.tune(table(), trials=50, space=[*asked, "fusion.dim=16,32", "fusion.dropout=0"], study=tmp_path / "s.db")
    about = made.metrics["tuning"]
    params = [tuple(sorted(line["params"].items())) for line in about["trials"]]
    assert len(set(params)) == len(params) == 5, "linear, and concat with two widths and two rates"
    assert about["reason"] == "nothing new to try"
    assert len(opened(tmp_path / "s.db").trials) == 5


def test_only_tunings_that_an_encoder_takes_are_drawn(tiny_model: Callable[[str], str]) -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(40)]
    notes = [" ".join(rng.choice(["one", "two", "cat"], 4)) for _ in range(40)]
    data = table(40).assign(photo=photos, note=notes)
    modalities = {
        "text": {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": tiny_model("bert")}},
        "image": {"columns": ["photo"], "encoder": {"name": "image_transformer", "checkpoint": tiny_model("resnet")}},
    }
    columns = {**named("label"), "note": "text", "photo": "image", "x": "ignore", "z": "ignore", "place": "ignore"}
    made = pf.Predictor("label", columns=columns, modalities=modalities, preset="best", training={"epochs": 1})
    made.tune(data, trials=4, space=["fusion=concat"], progress=False)
    space = made.metrics["tuning"]["space"]
    assert space["tuning.image"] == "bias, frozen, full, last"
    assert {"lora", "adalora", "adapter", "bias", "frozen", "full", "ia3", "last"} <= set(
        space["tuning.text"].split(", ")
    )
    assert not any(name.startswith("tuning.image.lora") for name in space)
    assert all(line["state"] != "failed" for line in tried(made)), tried(made)
    assert {line["params"]["tuning.text"] for line in tried(made)} > {"last"}


class Shown(Silent):
    """Notes what is shown."""

    tables: ClassVar[list[list[list[str]]]] = []
    said: ClassVar[list[str]] = []

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        assert all(len(line) == len(headings) for line in lines)
        self.tables.append([list(line) for line in lines])

    def say(self, text: str) -> None:
        self.said.append(text)


def test_it_is_shown_as_it_goes_and_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    predictor(**QUICK).tune(table(), trials=3, progress=Shown())
    assert [len(lines) for lines in Shown.tables] == [1, 2, 3]
    assert any("fitting the recipe of trial" in text for text in Shown.said)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_ctrl_c_ends_the_search_and_fits_the_best_so_far(tmp_path: Path) -> None:
    file, done = tmp_path / "s.db", threading.Event()

    class Pressing(Silent):
        def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
            if len(lines) == 2 and not done.is_set():
                done.set()
                os.kill(os.getpid(), signal.SIGINT)

    found = predictor(**QUICK).tune(table(), trials=1000, study=file, progress=Pressing())
    about = found.metrics["tuning"]
    assert about["reason"] == "interrupted"
    assert len(about["trials"]) == 2
    assert len(found.predict(table(10))) == 10
    assert len(opened(file).trials) == 2


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_a_trial_that_was_interrupted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, calls = tmp_path / "s.db", []

    def pressing(job: Any, recipe: Any, **more: Any) -> Any:
        calls.append(recipe)
        if len(calls) == 2:
            log = job.log

            def press(figures: Any, step: int) -> None:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
                log(figures, step)

            job = replace(job, log=press)
        return fit_whole(job, recipe, **more)

    monkeypatch.setattr("polyfuse.study.running.fit_whole", pressing)
    settings = {"fusion": "concat", "training.epochs": 3}
    found = predictor(**settings).tune(table(), trials=3, study=file, progress=False)
    assert found.metrics["tuning"]["reason"] == "interrupted"
    assert len(tried(found)) == 1
    lost = opened(file).trials[1]
    assert lost.state.name == "FAIL"
    found = predictor(**settings).tune(table(), trials=3, study=file, progress=False)
    assert found.metrics["tuning"]["reason"] == "all trials done"
    assert len(tried(found)) == 3
    assert tried(found)[1]["params"] == lost.params


def test_the_time_limit_is_kept() -> None:
    begun = time.monotonic()
    found = predictor().tune(table(), trials=10_000, time_limit="5s", progress=False)
    assert time.monotonic() - begun < 15
    assert found.metrics["tuning"]["reason"] == "time limit"
    assert tried(found)
    assert found.recipe.training.time_limit is None
    # The very first trial is longer than there is time for: it counts as far as it came.
    long = predictor(**{"training.epochs": 100_000, "training.patience": 100_000})
    begun = time.monotonic()
    long.tune(table(), trials=10_000, time_limit=4, progress=False)
    assert time.monotonic() - begun < 15
    assert long.metrics["tuning"]["trials"][0]["note"] == "time limit"


def test_where_encoders_take_too_long_all_trials_see_the_same_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyfuse.study.encoding_seconds", lambda *_: 1000.0)
    file, seen = tmp_path / "s.db", []

    def watching(job: Any, recipe: Any, **more: Any) -> Any:
        seen.append(job.rows.positions.tolist())
        return fit_whole(job, recipe, **more)

    monkeypatch.setattr("polyfuse.study.running.fit_whole", watching)
    data = table(600)
    predictor(**QUICK).tune(data, trials=1, time_limit=400, study=file, progress=False)
    # No time limit any more, yet the rows are those of the trials before.
    found = predictor(**QUICK).tune(data, trials=2, study=file, progress=False)
    assert seen[0] == seen[1]
    assert 100 <= len(seen[0]) <= 125
    assert found.metrics["training"]["rows"] == len(seen[0])


def test_augmentation_is_decided_at_the_end_where_it_was_set() -> None:
    found = predictor(augmentation="auto", **QUICK).tune(table(), trials=1, progress=False)
    assert found.recipe.augmentation != "auto"
    assert isinstance(found.recipe.augmentation, dict) or found.recipe.augmentation == "none"
    assert predictor(**QUICK).tune(table(), trials=1, progress=False).recipe.augmentation == "none"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"trials": 0}, "at least one"),
        ({"time_limit": "soon"}, "time_limit: 'soon'"),
        ({"time_limit": -1}, "time_limit"),
        ({"space": ["fusoin=concat"]}, "did you mean 'fusion'"),
        ({"space": {"fusion": 3}}, "space: fusion"),
    ],
)
def test_a_wrong_call_leaves_nothing(tmp_path: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        predictor().tune(table(), out=tmp_path / "run", progress=False, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_not_replaced_unasked(tmp_path: Path) -> None:
    predictor(**QUICK).tune(table(), trials=1, out=tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="overwrite"):
        predictor(**QUICK).tune(table(), trials=2, out=tmp_path / "run", progress=False)
    assert len(opened(tmp_path / "run.study.db").trials) == 1
    predictor(**QUICK).tune(table(), trials=2, out=tmp_path / "run", overwrite=True, progress=False)
    assert len(opened(tmp_path / "run.study.db").trials) == 2
    assert len(pf.load(tmp_path / "run").metrics["tuning"]["trials"]) == 2


def test_a_search_runs_in_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("polyfuse.core.processes.started", lambda: 2)
    with pytest.raises(InputError, match="2 processes were started"):
        predictor().tune(table(), out=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"polyfuse\[tune\]"):
        predictor().tune(table(), out=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []
