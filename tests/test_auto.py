"""The way to combine is found: compared, kept, told, saved, and never below the simplest model."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import polyfuse as pf
from polyfuse.core.errors import InputError, RecipeError
from polyfuse.core.progress import Silent
from polyfuse.core.threads import cores
from polyfuse.ensemble import Ensemble
from polyfuse.fitting import found as fitting_found
from polyfuse.fusion import FUSIONS
from polyfuse.learners import LEARNERS
from polyfuse.model import FusionModel
from polyfuse.search import comparison as comparing
from polyfuse.search.candidates import names
from polyfuse.training.loop import Outcome

FEW = {"name": "auto", "candidates": ["alone", "words", "linear", "concat", "attention"], "folds": 3}


def notes(rows: int = 160, seed: int = 0) -> pd.DataFrame:
    """A table whose target is said by a word, a number and a category together."""
    rng = np.random.default_rng(seed)
    word, size = rng.integers(0, 2, rows), rng.normal(size=rows)
    shop = rng.choice(["north", "south"], rows)
    signal = 1.6 * word + size + 1.0 * (shop == "north") + rng.normal(0, 0.4, rows)
    filler = [" ".join(rng.choice(["day", "and", "of", "it", "one", "was"], 4)) for _ in range(rows)]
    said = np.array(["poor", "good"])[word]
    return pd.DataFrame(
        {
            "note": [f"{some} {what}" for some, what in zip(filler, said, strict=True)],
            "size": size,
            "shop": shop,
            "label": np.where(signal > np.median(signal), "yes", "no"),
            "price": signal,
        }
    )


@pytest.fixture(scope="module")
def text(tiny_model: Callable[[str], str]) -> dict[str, Any]:
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    return {"text": {"columns": ["note"], "encoder": encoder}, "table": {"columns": ["size", "shop"]}}


@pytest.fixture(scope="module")
def fitted(text: dict[str, Any]) -> pf.Predictor:
    return pf.Predictor("label", modalities=text).fit(notes(), progress=False)


def test_everything_is_compared_by_default(fitted: pf.Predictor) -> None:
    found = fitted.metrics["comparison"]
    tried = {line["candidate"] for line in found["candidates"]}
    assert set(FUSIONS) | set(LEARNERS) <= tried
    assert {"linear of words (text)", "linear of features (text)", "boosting (table)"} <= tried
    assert found["metric"] == "log_loss"
    assert sum(line["weight"] for line in found["candidates"]) == pytest.approx(1)
    for line in found["candidates"]:
        assert line["folds"] == 5 or line["note"], line
        if line["folds"]:
            assert line["low"] <= line["value"] <= line["high"]
            assert line["rows"] == (160 if line["folds"] == 5 else 32)
    assert found["reason"] in fitted.metrics["training"]["reason"]
    json.dumps(found)


def test_what_was_not_measured_is_not_said_to_be_worse(text: dict[str, Any]) -> None:
    fusion = {"name": "auto", "candidates": ["words", "alone"], "ensemble": False}
    found = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False).metrics["comparison"]
    assert "no model of all was measured" in found["reason"]


def test_it_is_at_least_as_good_as_each_modality_alone(fitted: pf.Predictor) -> None:
    lines = fitted.metrics["comparison"]["candidates"]
    alone = [line["value"] for line in lines if "(" in line["candidate"]]
    assert fitted.metrics["validation"]["metrics"]["log_loss"]["value"] <= min(alone)
    test = notes(400, seed=9)
    assert roc_auc_score(test["label"] == "yes", fitted.predict_proba(test)["yes"]) > 0.9


@pytest.mark.parametrize("chosen", ["linear", "boosting", "ensemble", "tokens", "alone", "part", "parts"])
def test_what_was_found_survives_saving(text: dict[str, Any], chosen: str, tmp_path: Path) -> None:
    members = [
        {"combine": "linear", "weight": 3},
        {"combine": "boosting", "modalities": ["table"]},
        {"combine": "linear", "modalities": ["text"], "parts": ["words"]},
        {"combine": {"name": "attention", "dim": 32, "most_tokens": 4}},
        {"combine": "gated"},
    ]
    ways: dict[str, Any] = {
        "ensemble": {"name": "ensemble", "members": members},
        "tokens": {
            "name": "ensemble",
            "members": [{"combine": {"name": "attention", "dim": 32}}, {"combine": "linear"}],
        },
        "alone": {"name": "ensemble", "members": [members[2]]},
        "part": {"name": "ensemble", "members": [{"combine": "concat", "modalities": ["table"]}]},
        "parts": {
            "name": "ensemble",
            "members": [
                {"combine": "gated", "modalities": ["table"]},
                {"combine": {"name": "attention", "dim": 32}, "modalities": ["text"]},
            ],
        },
    }
    predictor = pf.Predictor("label", modalities=text, fusion=ways.get(chosen, chosen), training={"epochs": 2})
    predictor.fit(notes(80), out=tmp_path / "run", progress=False)
    assert isinstance(predictor.model, Ensemble)
    test = notes(30, seed=5)
    test.loc[3, "note"] = None
    test.loc[4, ["size", "shop"]] = None
    test.loc[5, ["note", "size", "shop"]] = None
    again = pf.load(tmp_path / "run")
    with pytest.warns(UserWarning, match="no modality"):
        expected, found = predictor.predict_proba(test), again.predict_proba(test)
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-6)
    # One row at a time, and through the cache, the answers are the same.
    np.testing.assert_allclose(again.predict_proba(test[:1]).to_numpy(), expected[:1].to_numpy(), atol=1e-4)
    without = again.predict_proba(test, without=["table"])
    assert np.isfinite(without.to_numpy()).all()
    # The recipe of the artifact fits the same again.
    repeated = pf.Predictor(recipe=tmp_path / "run" / "recipe.yaml").fit(notes(80), progress=False)
    pd.testing.assert_frame_equal(repeated.predict_proba(test[:3]), expected[:3], atol=1e-5)
    weights = [member.weight for member in predictor.model.members]
    assert sum(weights) == pytest.approx(1)


def test_a_fusion_reads_what_it_is_told_to(text: dict[str, Any]) -> None:
    fusion = {"name": "ensemble", "members": [{"combine": "concat", "modalities": ["table"]}]}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(120), progress=False)
    test = notes(40, seed=5)
    pd.testing.assert_frame_equal(predictor.predict_proba(test, without=["text"]), predictor.predict_proba(test))
    assert not predictor.predict_proba(test, without=["table"]).equals(predictor.predict_proba(test))


@pytest.mark.parametrize("member", [{"combine": "linear", "parts": ["words"]}, {"combine": "boosting"}])
def test_an_encoder_that_nobody_reads_is_not_run(
    text: dict[str, Any], member: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = "text" if "parts" in member else "table"
    fusion = {"name": "ensemble", "members": [{**member, "modalities": [read]}]}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False)
    test = notes(40, seed=5)
    expected = predictor.predict_proba(test)

    def run(*_: object, **__: object) -> None:
        raise AssertionError("the encoder was run")

    monkeypatch.setattr(type(predictor.model.encoder("text")), "forward", run)
    monkeypatch.setattr(type(predictor.model.encoder("text")), "prepare", run)
    pd.testing.assert_frame_equal(predictor.predict_proba(test), expected)
    assert predictor.evaluate(test)["accuracy"] > 0.5
    assert predictor.model.reads == (frozenset() if read == "text" else {"table"})


def test_the_mean_is_weighted(text: dict[str, Any]) -> None:
    members = [{"combine": "linear", "weight": 1}, {"combine": "boosting", "weight": 3}]
    settings: dict[str, Any] = {"modalities": text, "calibration": "none"}  # which is of each model its own
    both = pf.Predictor("label", **settings, fusion={"name": "ensemble", "members": members})
    both.fit(notes(80), progress=False)
    single = [pf.Predictor("label", **settings, fusion=name).fit(notes(80), progress=False) for name in LEARNERS]
    by_name = dict(zip(LEARNERS, single, strict=True))
    test = notes(20, seed=3)
    expected = 0.25 * by_name["linear"].predict_proba(test) + 0.75 * by_name["boosting"].predict_proba(test)
    pd.testing.assert_frame_equal(both.predict_proba(test), expected, atol=1e-6)


@pytest.mark.parametrize("target", ["label", "price"])
def test_the_same_seed_finds_the_same(text: dict[str, Any], target: str) -> None:
    other = {"label": "price", "price": "label"}[target]
    settings = {"modalities": text, "columns": {other: "ignore"}, "fusion": {**FEW, "seconds": 300}}
    first = pf.Predictor(target, **settings).fit(notes(80), progress=False)
    second = pf.Predictor(target, **settings).fit(notes(80), progress=False)
    assert first.recipe.as_data() == second.recipe.as_data()
    pd.testing.assert_series_equal(first.predict(notes(20, seed=2)), second.predict(notes(20, seed=2)))


def test_candidates_are_the_same_side_by_side_as_one_by_one(
    text: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for count in (1, 4, 4):
        monkeypatch.setattr(comparing, "cores", lambda count=count: count)
        fusion = {"name": "auto", "folds": 2, "seconds": 600}
        predictor = pf.Predictor("label", modalities=text, fusion=fusion, columns={"price": "ignore"})
        lines = predictor.fit(notes(120), progress=False).metrics["comparison"]["candidates"]
        answers = predictor.predict_proba(notes(20, seed=2))
        found.append(({line["candidate"]: (line["value"], line["folds"]) for line in lines}, answers))
    for lines, answers in found[1:]:
        assert lines == found[0][0]
        pd.testing.assert_frame_equal(answers, found[0][1])


def test_what_goes_wrong_in_one_candidate_ends_all(text: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, *_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(LEARNERS["linear"], "fit", fail)
    fusion = {"name": "auto", "candidates": ["linear", "gated", "deep"]}
    with pytest.raises(OSError, match="no space left"):
        pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False)


def test_noise_beside_a_table_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    rows = 200
    size = rng.normal(size=rows)
    table = pd.DataFrame(
        {
            "photo": [rng.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(rows)],
            "size": size,
            "y": (size + rng.normal(0, 0.5, rows) > 0).astype(int),
        }
    )
    settings = {"training": {"epochs": 2}, "fusion": {**FEW, "candidates": ["alone", "linear", "boosting", "concat"]}}
    predictor = pf.Predictor("y", **settings).fit(table[:150], progress=False)
    alone = pf.Predictor("y", modalities={"table": {"columns": ["size"]}}, **settings).fit(table[:150], progress=False)
    # What the table says is chosen by folds over all rows, as if there were no images.
    np.testing.assert_allclose(predictor.predict_proba(table[150:]), alone.predict_proba(table[150:]), atol=1e-5)
    found = predictor.metrics["comparison"]
    assert "to read image too, also trained as a whole, is no better" in found["reason"]
    assert {line["candidate"]: line["rows"] for line in found["candidates"] if line["folds"]} == {
        **{"boosting (table)": 150, "linear (table)": 150, "concat (table)": 50},
        **dict.fromkeys(("linear (image)", "linear", "boosting", "concat"), 22),
    }
    assert sum(line["weight"] for line in found["candidates"] if line["rows"] == 150) == 1


def test_what_rests_is_compared_together_too_where_something_learns(text: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    table = notes(120)
    table["photo"] = [rng.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(len(table))]
    encoder = {"name": "convnet", "width": 8}
    modalities = {**text, "image": {"columns": ["photo"], "encoder": encoder}}
    fusion = {"name": "auto", "candidates": ["alone", "linear"], "folds": 2}
    predictor = pf.Predictor("label", modalities=modalities, fusion=fusion, training={"epochs": 1})
    found = predictor.fit(table, progress=False).metrics["comparison"]
    lines = {line["candidate"]: line for line in found["candidates"]}
    assert lines["linear (text, table)"]["rows"] == 120
    assert lines["linear (text, table)"]["weight"] > 0.5
    assert lines["linear"]["rows"] == lines["linear (image)"]["rows"] == 18


def test_encoders_that_start_at_random_are_learned_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    photos = [np.clip(rng.normal(90 + 70 * label, 30, (10, 10)), 0, 255).astype(np.uint8) for label in y]
    table = pd.DataFrame({"photo": photos, "size": rng.normal(y, 1.0), "y": y})
    encoder = {"name": "convnet", "width": 8}
    modalities = {"image": {"columns": ["photo"], "encoder": encoder}, "table": {"columns": ["size"]}}
    candidates = ["alone", "linear", "concat", "gated", "attention"]
    predictor = pf.Predictor(
        "y", modalities=modalities, fusion={"name": "auto", "candidates": candidates}, training={"epochs": 4}
    )
    predictor.fit(table, out=tmp_path / "run", progress=False)
    found = predictor.metrics["comparison"]
    measured = {line["rows"] for line in found["candidates"] if line["folds"]}
    assert measured == {18}, "on the rows kept aside, which no encoder has seen"
    assert "trained as a whole" in found["reason"]
    assert predictor.metrics["validation"]["metrics"]["accuracy"]["value"] > 0.8
    pd.testing.assert_frame_equal(
        pf.load(tmp_path / "run").predict_proba(table), predictor.predict_proba(table), atol=1e-5
    )


def test_what_is_named_is_read_whether_it_pays_or_not() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    photos = [rng.integers(0, 255, (8, 8), dtype=np.uint8) for _ in y]
    table = pd.DataFrame({"photo": photos, "size": rng.normal(y, 0.5), "y": y})
    members = [{"combine": "linear", "modalities": ["image"]}, {"combine": "linear", "weight": 2}]
    predictor = pf.Predictor("y", fusion={"name": "ensemble", "members": members}, training={"epochs": 1})
    found = predictor.fit(table, progress=False).metrics["comparison"]["candidates"]
    assert {line["candidate"]: round(line["weight"], 3) for line in found} == {"linear (image)": 0.333, "linear": 0.667}


def test_the_best_preset_tunes_the_encoder_too(text: dict[str, Any], tmp_path: Path) -> None:
    fusion = {"name": "auto", "candidates": ["linear", "concat"], "folds": 2}
    predictor = pf.Predictor("label", modalities=text, preset="best", fusion=fusion, training={"epochs": 3})
    assert predictor.plan(notes(80)).recipe.as_data()["tuning"]["text"] == "last"
    predictor.fit(notes(80), out=tmp_path / "run", progress=False)
    assert "concat, trained as a whole" in predictor.metrics["comparison"]["reason"]
    members = [{"combine": "concat", "tuned": True, "weight": 0.5}, {"combine": "linear", "weight": 0.5}]
    given = pf.Predictor(
        "label", modalities=text, preset="best", fusion={"name": "ensemble", "members": members}, training={"epochs": 3}
    )
    given.fit(notes(80), out=tmp_path / "given", progress=False)
    test = notes(20, seed=4)
    for made, place in ((predictor, "run"), (given, "given")):
        pd.testing.assert_frame_equal(
            pf.load(tmp_path / place).predict_proba(test), made.predict_proba(test), atol=1e-5
        )


def test_presets_choose_what_is_compared(text: dict[str, Any]) -> None:
    fast = pf.Predictor("label", modalities=text, preset="fast").plan(notes(40)).recipe
    assert fast.fusion.options == {"candidates": ["alone", "words", "linear", "boosting", "concat"], "folds": 3}
    assert fast.as_data()["tuning"]["text"] == "frozen"
    # What is said beside a preset goes before it.
    given = pf.Predictor("label", modalities=text, preset="fast", fusion="gated").plan(notes(40)).recipe
    assert given.fusion.name == "gated"
    more = pf.Predictor("label", modalities=text, preset="fast", fusion={"name": "auto", "folds": 7})
    assert more.plan(notes(40)).recipe.fusion.options["folds"] == 7
    with pytest.raises(RecipeError, match="preset"):
        pf.Predictor("label", preset="quick")


def test_the_comparison_ends_when_its_time_is_over(text: dict[str, Any]) -> None:
    fusion = {"name": "auto", "seconds": 1e-3}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False)
    lines = predictor.metrics["comparison"]["candidates"]
    assert any("no time" in line["note"] or "too long" in line["note"] for line in lines)
    assert any(line["folds"] for line in lines)
    assert set(predictor.predict(notes(10))) <= {"yes", "no"}


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
@pytest.mark.parametrize("candidates", [None, ["gated"]])
def test_ctrl_c_keeps_the_best_so_far(
    text: dict[str, Any], candidates: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press() -> None:
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    ended: list[str] = []

    class Watched(comparing.Trainer):
        def run(self, *, resume: bool = False) -> Outcome:
            outcome = super().run(resume=resume)
            ended.append(outcome.reason)
            return outcome

    monkeypatch.setattr(comparing, "Trainer", Watched)
    threading.Thread(target=press, daemon=True).start()
    fusion = {"name": "auto", "candidates": candidates, "repeats": 50, "seconds": 600}
    begun = time.monotonic()
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(160), progress=False)
    assert time.monotonic() - begun < 60
    assert len(predictor.predict(notes(10))) == 10
    # What was chosen is fitted to its end.
    assert candidates is None or ended[-1] == "all epochs done"


class Pressing(Silent):
    """Presses Ctrl-C a moment after the chosen ways to combine begin to be fitted on all rows."""

    @contextmanager
    def bar(self, what: str, total: float | None = None) -> Iterator[Silent]:
        if what == "Fitting":
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        yield self


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
@pytest.mark.parametrize("several", [False, True])
def test_ctrl_c_while_the_best_is_fitted_keeps_what_there_is(
    text: dict[str, Any], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting_found, "_LEAST_SECONDS", 1.0)
    members = [{"combine": {"name": name}} for name in ("gated", "attention")[: 1 + several]]
    fusion: Any = {"name": "ensemble", "members": members}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion, training={"epochs": 10**5})
    predictor.fit(notes(80), progress=Pressing())
    assert set(predictor.predict(notes(10))) <= {"yes", "no"}


def test_repeats_deal_the_rows_anew(text: dict[str, Any]) -> None:
    fusion = {"name": "auto", "candidates": ["linear"], "folds": 3, "repeats": 2}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False)
    (line,) = predictor.metrics["comparison"]["candidates"]
    assert (line["folds"], line["rows"]) == (6, 80)


def test_no_ensemble_where_none_is_wanted(text: dict[str, Any]) -> None:
    fusion = {"name": "auto", "candidates": ["linear", "boosting", "alone"], "ensemble": False}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(120), progress=False)
    weights = [line["weight"] for line in predictor.metrics["comparison"]["candidates"]]
    assert sorted(weights)[-1] == 1


def test_a_single_fusion_that_wins_is_a_plain_model(text: dict[str, Any]) -> None:
    fusion = {"name": "auto", "candidates": ["gated"]}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False)
    assert isinstance(predictor.model, FusionModel)
    assert predictor.recipe.fusion.name == "gated"
    assert predictor.fusion_weights(notes(5)).shape == (5, 2)


@pytest.mark.parametrize(
    ("fusion", "told"),
    [
        ("conkat", "there is no way to combine called 'conkat'; did you mean 'concat'"),
        ({"name": "auto", "folds": 1}, "fusion.folds"),
        ({"name": "auto", "fold": 3}, "auto has no such option; did you mean 'folds'"),
        ({"name": "ensemble", "members": [{"combine": "linear", "weight": 0}]}, "fusion.members"),
        ({"name": "ensemble", "members": [{"weight": 1}]}, "fusion.members"),
        (
            {"name": "ensemble", "members": [{"combine": "concat", "modalities": ["table"], "tuned": True}]},
            "a member that is tuned reads all modalities",
        ),
        ({"name": "boosting", "leaves": 1}, "fusion.leaves"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(fusion: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told.replace("(", r"\(")):
        pf.Predictor("label", fusion=fusion)


def test_unknown_candidates_are_told(text: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="did you mean 'boosting'"):
        pf.Predictor("label", modalities=text, fusion={"name": "auto", "candidates": ["bosting"]}).fit(
            notes(40), progress=False
        )
    assert {"alone", "words", "linear", "boosting", *FUSIONS} == set(names())


def test_what_was_trained_is_counted(text: dict[str, Any]) -> None:
    def of(fusion: Any, **more: Any) -> tuple[Any, dict[str, Any]]:
        predictor = pf.Predictor("label", modalities=text, fusion=fusion, training={"epochs": 1}, **more)
        predictor.fit(notes(40), progress=False)
        return predictor, {line["part"]: line for line in predictor.metrics["weights"]}

    predictor, lines = of("concat", tuning={"text": "lora"})
    assert set(lines) == {"text encoder", "table encoder", "fusion", "head"}
    encoder = predictor.model.encoder("text")
    assert lines["text encoder"]["trained"] == sum(w.numel() for w in encoder.parameters() if w.requires_grad)
    assert 0 < lines["text encoder"]["trained"] < lines["text encoder"]["all"]
    assert lines["text encoder"]["tuning"] == "lora"
    assert lines["table encoder"]["trained"] == lines["table encoder"]["all"]
    members = [{"combine": "linear"}, {"combine": "gated"}, {"combine": "concat", "tuned": True}]
    _, lines = of({"name": "ensemble", "members": members}, tuning={"text": "full"})
    assert lines["text encoder"]["trained"] == 0
    tuned = lines["text encoder of concat, trained as a whole"]
    assert tuned["trained"] == tuned["all"] == lines["text encoder"]["all"]
    assert {"fusion of gated", "head of gated", "table encoder of gated"} <= set(lines)


@pytest.mark.parametrize("fusion", ["auto", "concat"])
def test_where_encoders_take_too_long_a_sample_is_used(
    text: dict[str, Any], fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("found", "whole"):
        monkeypatch.setattr(f"polyfuse.fitting.{module}.encoding_seconds", lambda *_: 1000.0)
    settings = {"modalities": text, "training": {"epochs": 2, "time_limit": 400}}
    way = {"name": "auto", "candidates": ["linear"]} if fusion == "auto" else fusion
    predictor = pf.Predictor("label", fusion=way, **settings).fit(notes(600), progress=False)
    training = predictor.metrics["training"]
    assert 100 <= training["rows"] <= 125
    assert any("there was no time to encode more" in note for note in training["notes"])
    measured = predictor.metrics["validation"]["rows"]
    assert measured <= training["rows"]


def test_rows_are_cut_once(text: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was trained as a whole is compared on rows that it has not seen, also where there is little time."""
    for module in ("found", "whole"):
        monkeypatch.setattr(f"polyfuse.fitting.{module}.encoding_seconds", lambda *_: 1000.0)
    seen: list[tuple[Any, Any]] = []
    floor = fitting_found._floor

    def spy(job: Any, comparison: Any, settings: Any, encoders: Any, whole: Any) -> Any:
        seen.append((job.rows.positions[job.halves[1]], whole.rows.positions[whole.held]))
        return floor(job, comparison, settings, encoders, whole)

    monkeypatch.setattr(fitting_found, "_floor", spy)
    table = notes(600)
    random = np.random.default_rng(0)
    table["photo"] = [random.integers(0, 255, (8, 8), dtype=np.uint8) for _ in range(len(table))]
    modalities = {**text, "image": {"columns": ["photo"], "encoder": {"name": "convnet", "width": 8}}}
    settings: dict[str, Any] = {"modalities": modalities, "training": {"epochs": 1, "time_limit": 400}}
    fusion = {"name": "auto", "candidates": ["linear"]}
    predictor = pf.Predictor("label", fusion=fusion, **settings).fit(table, progress=False)
    assert 100 <= predictor.metrics["training"]["rows"] <= 125
    [(compared, held)] = seen
    assert sorted(compared) == sorted(held)


def test_how_long_encoders_take_is_measured_on_a_few_rows(text: dict[str, Any]) -> None:
    class Noted(Silent):
        said: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    fusion = {"name": "auto", "candidates": ["linear"]}
    pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(300, seed=33), progress=Noted())
    told = f"s for the encoders (measured on a few rows), then at most {20 / min(2, cores()):.0f} s to compare 1 ways"
    assert told in " ".join(Noted.said)


def test_when_no_candidate_comes_to_an_end_the_best_begun_one_is_taken(text: dict[str, Any]) -> None:
    fusion = {"name": "auto", "candidates": ["gated", "concat"], "seconds": 1e-3}
    predictor = pf.Predictor("label", modalities=text, fusion=fusion).fit(notes(80), progress=False)
    assert set(predictor.predict(notes(10))) <= {"yes", "no"}
