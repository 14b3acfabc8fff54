"""Screens: each formula derived a second time, what is flagged, and what a screen must not depend on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
from polyfuse import fitting
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.fitting import Fitted, screens
from polyfuse.fitting.job import Job
from polyfuse.screening import Screen, Trace, check_room, damaged, screened
from polyfuse.screening.fitting import _regression, _statistics, fit_screen, threshold_of
from polyfuse.screening.screen import Shape, Space

CPU = torch.device("cpu")
MODALITIES = {"one": {"columns": ["a", "b", "c"]}, "two": {"columns": ["d", "e", "colour"]}}
SETTINGS: dict[str, Any] = {"modalities": MODALITIES, "training": {"epochs": 5, "trackers": []}}


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    """Return two modalities that each tell one of three answers; some rows lack one of them."""
    drawn = np.random.default_rng(seed)
    y = np.arange(rows) % 3
    x = drawn.normal(size=(rows, 5)) + np.outer(y, [2, -2, 1, 2, 0])
    frame = pd.DataFrame(x, columns=list("abcde"))
    frame["colour"] = np.where(drawn.random(rows) < 0.9, np.array(["red", "green", "blue"])[y], "white")
    frame.loc[::17, ["a", "b", "c"]] = None
    frame.loc[5::17, ["d", "e", "colour"]] = None
    frame["y"] = np.array(["u", "v", "w"])[y]
    return frame


def rows_of(predictor: pf.Predictor, frame: pd.DataFrame) -> Rows:
    return read_rows(read_table(frame, media_root=None), predictor.schema, training=False, answers=True)


def screen_of(predictor: pf.Predictor) -> Screen:
    assert predictor._screen is not None
    return predictor._screen


@pytest.fixture(scope="module", params=["concat", "boosting"])
def predictor(request: pytest.FixtureRequest) -> pf.Predictor:
    # What a screen reads are the model's scores as they are.
    settings: dict[str, Any] = {**SETTINGS, "fusion": request.param, "calibration": "none"}
    return pf.Predictor("y", **settings, screen=True).fit(table(1200), progress=False)


@pytest.fixture(scope="module")
def fused() -> pf.Predictor:
    return pf.Predictor("y", **SETTINGS, fusion="concat", screen=True).fit(table(400), progress=False)


def traced(predictor: pf.Predictor, rows: Rows) -> Trace:
    model = predictor.model
    inputs = {n: model.encoder(n).prepare([rows.value(n, row) for row in range(len(rows))]) for n in model.modalities}
    with torch.no_grad():
        return Trace.of(model.eval(), inputs, rows.present, {})


def test_distances_follow_their_definitions() -> None:
    random = np.random.default_rng(0)
    space = Space(Shape(dim=4, groups=3, bank=7), neighbours=2)
    half = random.normal(size=(4, 4))
    parts = random.normal(size=(3, 4)), half @ half.T, random.normal(size=(7, 4)), random.normal(size=(5, 4))
    means, precision, bank, vectors = (part.astype(np.float32) for part in parts)
    for buffer, value in ((space.means, means), (space.precision, precision), (space.bank, bank)):
        buffer.copy_(torch.from_numpy(value))
    found = space(torch.from_numpy(vectors)).numpy()
    for row, v in enumerate(vectors):
        u = v / np.sqrt((v**2).sum())
        assert found[row, 0] == pytest.approx(min((u - m) @ precision @ (u - m) for m in means), rel=1e-4)
        assert found[row, 1] == pytest.approx(sorted(np.sqrt(((u - b) ** 2).sum()) for b in bank)[1], rel=1e-4)


def test_a_row_of_the_bank_is_at_no_distance_from_itself() -> None:
    space = Space(Shape(dim=64, groups=1, bank=200), neighbours=1)
    space.bank.copy_(torch.nn.functional.normalize(torch.randn(200, 64, generator=torch.manual_seed(0)), dim=1))
    assert float(space(space.bank)[:, 1].max()) < 1e-6


def test_the_covariance_is_shrunk_as_ledoit_and_wolf_have_it() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6)) @ random.normal(size=(6, 6))
    groups = np.arange(40) % 4
    means, precision, bank = _statistics(torch.from_numpy(x), torch.from_numpy(groups))
    expected = np.stack([x[groups == code].mean(0) for code in range(4)])
    np.testing.assert_allclose(means, expected)
    within = x - expected[groups]
    sample = within.T @ within / 40
    mean = np.trace(sample) / 6
    spread = ((sample - mean * np.eye(6)) ** 2).sum() / 6
    noise = sum(((np.outer(row, row) - sample) ** 2).sum() for row in within) / 6 / 40**2
    share = min(noise, spread) / spread
    shrunk = (1 - share) * sample + share * mean * np.eye(6)
    np.testing.assert_allclose(precision.numpy(), np.linalg.inv(shrunk), rtol=1e-3, atol=1e-4)
    assert 0 < share < 1
    assert torch.equal(bank, torch.from_numpy(x))


def test_energy_and_disagreement_follow_their_definitions(predictor: pf.Predictor) -> None:
    frame = table(40, seed=3)
    seen = traced(predictor, rows_of(predictor, frame))
    logits = seen.output.numpy().astype(np.float64)
    np.testing.assert_allclose(seen.energy("classification"), -np.log(np.exp(logits).sum(1)), rtol=1e-4, atol=1e-5)
    expected = -np.log1p(np.exp(logits)).sum(1)
    np.testing.assert_allclose(seen.energy("multilabel"), expected, rtol=1e-4, atol=1e-5)
    assert not seen.energy("regression").any()
    full = predictor.predict_proba(frame).to_numpy()
    with pytest.warns(UserWarning, match="no modality"):
        without = [predictor.predict_proba(frame, without=[name]).to_numpy() for name in MODALITIES]
    both = (frame[["a", "d"]].notna().all(axis=1)).to_numpy()
    told = np.max([np.abs(full - some).sum(1) / 2 for some in without], axis=0)
    np.testing.assert_allclose(seen.disagreement.numpy()[both], told[both], atol=1e-5)
    assert not seen.disagreement.numpy()[~both].any()
    np.testing.assert_array_equal(seen.compared.numpy(), both)


def test_signals_are_put_together_as_the_screen_says(fused: pf.Predictor) -> None:
    screen, rows = screen_of(fused), rows_of(fused, table(60, seed=4))
    seen = traced(fused, rows)
    signals = screen.signals(seen).numpy().astype(np.float64)
    assert signals.shape == (60, 8) == (60, len(screen.signal_names))
    lacking = ~rows.present.numpy()
    np.testing.assert_array_equal(np.isnan(signals[:, :4]), np.repeat(lacking, 2, axis=1))
    z = np.arcsinh((signals - screen.center.numpy()) / screen.width.numpy())
    logits = np.nan_to_num(z) @ screen.weights.numpy() + float(screen.bias)
    np.testing.assert_allclose(screen.logits(seen), logits, rtol=1e-3, atol=1e-4)
    frame = fused.predict(table(60, seed=4), screen=True)
    np.testing.assert_allclose(frame["suspicion"], 1 / (1 + np.exp(-logits)), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(frame["suspicious"], logits > float(screen.threshold))


def test_weights_are_the_best_that_are_not_below_zero() -> None:
    random = np.random.default_rng(0)
    ordinary = random.normal(size=(300, 4))
    harmed = random.normal((1.0, 0.3, 0.0, -1.0), size=(100, 4))
    weights, bias = _regression(ordinary, harmed)
    assert weights[3] == 0
    assert weights[0] > weights[1] > 0
    slope, total = 0.01 * weights, 0.0
    for x, sign in ((ordinary, -1), (harmed, 1)):
        wrong = 1 / (1 + np.exp(sign * (x @ weights + bias)))
        slope = slope - sign * (wrong @ x) / (2 * len(x))
        total -= sign * wrong.mean() / 2
    # Nothing is gained by any step that is allowed.
    assert np.abs(slope[weights > 0]).max() < 1e-4
    assert slope[weights == 0].min() > 0
    assert abs(total) < 1e-4
    np.testing.assert_array_equal(_regression(ordinary, ordinary[:0])[0], np.full(4, 0.25))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_a_new_row_is_above_the_threshold_with_no_more_than_the_rate(rate: float) -> None:
    random = np.random.default_rng(0)
    above = [random.normal() > threshold_of(random.normal(size=39), rate) for _ in range(4000)]
    assert rate - 0.03 < np.mean(above) < rate + 0.015


def test_too_few_rows_are_told_before_the_work() -> None:
    check_room(19, 0.05)
    check_room(99, 0.01)
    with pytest.raises(InputError, match=r"18 rows are kept apart: that needs 19 of them.*at least 0\.053"):
        check_room(18, 0.05)
    for fusion in ("concat", "boosting"):
        settings = {**SETTINGS, "fusion": fusion, "screen": {"rate": 0.01}}
        with pytest.raises(InputError, match="that needs 99 of them"):
            pf.Predictor("y", **settings).fit(table(300), progress=False)


def test_the_rate_holds_over_many_draws(predictor: pf.Predictor) -> None:
    kept, shares = screen_of(predictor), []
    for seed in range(8):
        predictor.fit_screen(table(450, seed=20 + seed), progress=False)
        shares.append(predictor.predict(table(400, seed=60 + seed), screen=True)["suspicious"].mean())
    predictor._screen = kept
    # 150 rows give each threshold, so that each share has a standard deviation of about 2 %, and their mean of 0.75 %.
    assert 0.025 < np.mean(shares) < 0.075, shares


def test_far_rows_are_flagged_and_damaged_ones_are_suspicious(predictor: pf.Predictor) -> None:
    ordinary = predictor.predict(table(300, seed=1), screen=True)
    far = table(30, seed=2)
    far[list("abcde")] *= 30
    assert predictor.predict(far, screen=True)["suspicious"].mean() > 0.9
    changed, touched = damaged(rows_of(predictor, table(300, seed=5)), 1)
    _, logits, _ = screened(predictor.model, screen_of(predictor), changed, CPU)
    assert logits.numpy()[touched].mean() > np.mean(np.log(ordinary["suspicion"] / (1 - ordinary["suspicion"])))


def test_modalities_that_do_not_belong_together_are_suspicious(predictor: pf.Predictor) -> None:
    frame = table(300, seed=6).dropna()
    crossed = frame.copy()
    # Each half is as ordinary as can be; the other one comes from a row with another answer.
    crossed[["d", "e", "colour"]] = np.roll(frame[["d", "e", "colour"]].to_numpy(), 1, axis=0)
    crossed["d"], crossed["e"] = crossed["d"].astype(float), crossed["e"].astype(float)
    seen = [traced(predictor, rows_of(predictor, some)).disagreement.mean() for some in (frame, crossed)]
    assert seen[1] > 1.5 * seen[0]


def test_neither_order_nor_company_matters(predictor: pf.Predictor) -> None:
    frame = table(70, seed=7)
    whole = predictor.predict(frame, screen=True)
    order = np.random.default_rng(0).permutation(70)
    shuffled = predictor.predict(frame.iloc[order], screen=True).sort_index()
    np.testing.assert_allclose(shuffled["suspicion"], whole["suspicion"], rtol=1e-5)
    alone = pd.concat([predictor.predict(frame.iloc[[row]], screen=True) for row in range(12)])
    np.testing.assert_allclose(alone["suspicion"], whole["suspicion"][:12], rtol=1e-5)


def test_answers_are_what_they_are_without_a_screen(predictor: pf.Predictor) -> None:
    frame = table(100, seed=8)
    screened = predictor.predict(frame, screen=True)
    assert list(screened.columns) == ["y", "suspicion", "suspicious"]
    assert screened["suspicion"].between(0, 1).all()
    pd.testing.assert_series_equal(screened["y"], predictor.predict(frame))
    pd.testing.assert_frame_equal(predictor.answer(frame, screen=True).scores, predictor.answer(frame).scores)
    assert isinstance(predictor.predict(frame), pd.Series)


def test_what_is_absent_says_nothing(predictor: pf.Predictor) -> None:
    frame = table(40, seed=9)
    absent = frame.assign(a=None, b=None, c=None)
    with pytest.warns(UserWarning, match="no modality"):
        gone, taken = predictor.predict(absent, screen=True), predictor.predict(frame, screen=True, without=["one"])
    np.testing.assert_allclose(gone["suspicion"], taken["suspicion"], rtol=1e-5)
    nothing = absent.assign(d=None, e=None, colour=None)
    with pytest.warns(UserWarning, match="no modality"):
        found = predictor.predict(nothing, screen=True)
    assert not found["suspicious"].any()
    assert not found["suspicion"].any()


def test_a_gradient_leads_to_less_suspicion(fused: pf.Predictor) -> None:
    model, screen, rows = fused.model, screen_of(fused), rows_of(fused, table(24, seed=10).dropna())
    inputs = {n: model.encoder(n).prepare([rows.value(n, row) for row in range(len(rows))]) for n in model.modalities}
    x = inputs["one"]["numbers"].requires_grad_()

    def logits(at: torch.Tensor) -> torch.Tensor:
        return screen.logits(Trace.of(model, {**inputs, "one": {**inputs["one"], "numbers": at}}, rows.present, {}))

    (gradient,) = torch.autograd.grad(logits(x).sum(), x)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any(1).all())
    with torch.no_grad():
        step = 1e-3 * gradient / gradient.norm(dim=1, keepdim=True)
        slope = (logits(x + step) - logits(x - step)) / 2e-3
    assert float((slope / gradient.norm(dim=1)).median()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("fusion", ["concat", "linear"])
def test_the_threshold_comes_from_rows_that_nothing_has_learned_from(
    fusion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def spy(model: Any, learned: Rows, apart: Rows, device: Any, **options: Any) -> None:
        given.update(learned=set(learned.positions.tolist()), apart=set(apart.positions.tolist()))

    monkeypatch.setattr(screens, "fit_screen", spy)
    settings = {**SETTINGS, "fusion": fusion, "screen": True}
    predictor = pf.Predictor("y", **settings).fit(table(200), progress=False)
    assert not given["learned"] & given["apart"]
    assert given["learned"] | given["apart"] == set(range(200))
    assert len(given["apart"]) == 30
    learned = 170 if fusion == "linear" else 200  # of which concat keeps the same 30 apart
    assert predictor.metrics["training"]["rows"] == learned
    pf.Predictor("y", **settings).fit(table(200), validation=table(60, seed=1), progress=False)
    assert len(given["learned"]) == 200
    assert len(given["apart"]) == 60


def test_a_screen_takes_as_many_rows_as_there_is_time_for(fused: pf.Predictor) -> None:
    learned, apart = rows_of(fused, table(300)), rows_of(fused, table(60, seed=1))

    def made(seconds: float) -> tuple[int, int]:
        options: dict[str, Any] = {"rate": 0.1, "neighbours": 3, "deadline": time.monotonic() + seconds}
        screen = fit_screen(fused.model, learned, apart, CPU, **options)
        return screen.rows, max(len(space.bank) for space in screen.spaces if isinstance(space, Space))

    assert made(600) == (60, 200)
    assert made(-1) == (9, 24)


@pytest.mark.parametrize(("screen", "expected"), [(True, [85, 100]), (None, [100])])
def test_a_time_limit_holds_the_screen_too(
    screen: bool | None, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[float] = []
    with_screen = screens.with_screen

    def spy(job: Job, fitted: Fitted) -> Fitted:
        ends.append(job.deadline)
        return with_screen(job, fitted)

    monkeypatch.setattr(fitting, "with_screen", spy)
    monkeypatch.setattr(screens, "fit_screen", lambda *rows, deadline, **options: ends.append(deadline))
    limited = {**SETTINGS, "training": {**SETTINGS["training"], "time_limit": 100}}
    begun = time.monotonic()
    pf.Predictor("y", **limited, fusion="concat", screen=screen).fit(table(200), progress=False)
    assert [end - begun for end in ends] == pytest.approx(expected, abs=5)


def test_a_model_that_exists_gets_a_screen(tmp_path: Any) -> None:
    predictor = pf.Predictor("y", **SETTINGS, fusion="concat").fit(table(200), progress=False)
    with pytest.raises(InputError, match=r"no screen; fit with  screen: true .* or call  fit_screen"):
        predictor.predict(table(20), screen=True)
    with pytest.raises(InputError, match="needs 99"):
        predictor.fit_screen(table(90, seed=1), rate=0.01, progress=False)
    assert predictor.recipe.screen is None
    predictor.fit_screen(table(300, seed=1), rate=0.1, neighbours=3, progress=False)
    assert predictor.recipe.as_data()["screen"] == {"rate": 0.1, "neighbours": 3}
    found = predictor.predict(table(900, seed=2), screen=True)
    assert 0.02 < found["suspicious"].mean() < 0.2
    predictor.save(tmp_path / "run")
    pd.testing.assert_frame_equal(pf.load(tmp_path / "run").predict(table(900, seed=2), screen=True), found)


@pytest.mark.parametrize("task", ["regression", "multilabel"])
@pytest.mark.parametrize("fusion", ["concat", "boosting"])
def test_other_tasks_have_screens_too(task: Any, fusion: str) -> None:
    frame = table(240)
    x = frame[["a", "d"]].fillna(0).to_numpy()
    frame["y"] = x.sum(1) if task == "regression" else [[n for n, on in zip("pq", r > 1, strict=True) if on] for r in x]
    settings = {**SETTINGS, "task": task, "fusion": fusion, "screen": {"rate": 0.1}}
    predictor = pf.Predictor("y", **settings).fit(frame, progress=False)
    far = frame.assign(a=1e3, b=-1e3, d=1e3)
    ordinary, moved = (predictor.predict(some, screen=True)["suspicion"] for some in (frame, far))
    assert moved.mean() > ordinary.mean() + 0.2


def test_several_targets_are_refused() -> None:
    frame = table(60).assign(z=np.arange(60.0))
    with pytest.raises(InputError, match=r"screen: the model answers several targets \(y, z\)"):
        pf.Predictor(["y", "z"], screen=True).plan(frame)
    predictor = pf.Predictor(["y", "z"], training={"epochs": 1}, fusion="concat").fit(frame, progress=False)
    with pytest.raises(InputError, match="several"):
        predictor.fit_screen(frame, progress=False)


def test_what_the_recipe_says() -> None:
    as_usual = {"rate": 0.05, "neighbours": 10}
    for given, expected in ((True, as_usual), ({}, as_usual), ({"rate": 0.2}, {**as_usual, "rate": 0.2})):
        recipe = pf.Predictor("y", screen=given).recipe
        assert recipe.as_data()["screen"] == expected
        assert pf.Predictor(recipe=recipe.as_data()).recipe == recipe
    for given in (False, None):
        assert "screen" not in pf.Predictor("y", screen=given).recipe.as_data()
    assert pf.Predictor(recipe={"target": "y", "screen": True}, screen={}).recipe.screen is not None
    for given, said in (
        ({"rat": 0.1}, "screen.rat: unknown key; did you mean 'rate'"),
        ({"rate": 0.7}, r"screen.rate: 0.7 given: .* less than 0.5"),
        ({"neighbours": 0}, "screen.neighbours: 0 given"),
        ("yes", "screen: 'yes' given"),
    ):
        with pytest.raises(InputError, match=said):
            pf.Predictor("y", screen=given)
    with pytest.raises(InputError, match=r"adversarial.metod: unknown key; did you mean 'method'"):
        pf.Predictor("y", adversarial={"metod": "pgd"})


def test_damage_is_of_this_row_and_of_no_other(fused: pf.Predictor) -> None:
    rows = rows_of(fused, table(200, seed=11))
    changed, touched = damaged(rows, 0)
    again, _ = damaged(rows, 0)
    other, _ = damaged(rows, 1)
    assert 0.5 < touched.mean() < 1
    same = [all(changed.value(n, row) == rows.value(n, row) for n in MODALITIES) for row in range(200)]
    np.testing.assert_array_equal(np.array(same), ~touched)
    values = [[[some.value(n, row) for n in MODALITIES] for row in range(200)] for some in (changed, again, other)]
    assert values[0] == values[1] != values[2]


def test_features_of_an_absent_modality_do_not_count(fused: pf.Predictor) -> None:
    model, rows = fused.model, rows_of(fused, table(34, seed=12))
    width = model.encoder("one").dim
    inputs: dict[str, Any] = {
        n: model.encoder(n).prepare([rows.value(n, row) for row in range(34)]) for n in model.modalities
    }
    found = []
    for garbage in (0.0, 7.0, torch.nan):
        pooled = model.encode_one("one", inputs["one"], rows.present).pooled
        pooled = torch.where(rows.present[:, :1], pooled, garbage).detach()
        seen = Trace.of(model, {**inputs, "one": Features.of_pooled(pooled)}, rows.present, {})
        found.append(screen_of(fused).logits(seen).detach())
    assert width == pooled.shape[1]
    assert not rows.present.all()
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
