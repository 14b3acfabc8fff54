"""Screens under attack: figures derived a second time, and an adversary who knows of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

import polyfuse as pf
from polyfuse.attacks import build_attack
from polyfuse.attacks.goals import AnyLabel, Unseen, Wrong
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.regions import Box
from polyfuse.core.errors import InputError
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.metrics.bootstrap import Interval
from polyfuse.robustness import threats_of
from polyfuse.robustness.detection import (
    ATTACKED,
    DAMAGED,
    HARMLESS,
    KNOWING,
    ORDINARY,
    Told,
    _Measured,
    _told,
    _warnings,
)
from polyfuse.robustness.scene import Scene
from polyfuse.screening import screened

CPU = torch.device("cpu")
BUDGETS = {"one": "ranges:0.8", "two": "ranges:0.8"}
FAST = {"steps": 8, "rivals": 1, "queries": 10}


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    y = np.arange(rows) % 3
    x = drawn.normal(size=(rows, 4)) * 0.6 + np.outer(y, [2, -2, 1, 2])
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["y"] = np.array(["u", "v", "w"])[y]
    return frame


@pytest.fixture(scope="module", params=["concat", "boosting"])
def predictor(request: pytest.FixtureRequest) -> pf.Predictor:
    modalities = {"one": {"columns": ["a", "b"]}, "two": {"columns": ["c", "d"]}}
    settings: dict[str, Any] = {"modalities": modalities, "training": {"epochs": 8, "trackers": []}}
    return pf.Predictor("y", **settings, fusion=request.param, screen=True).fit(table(500), progress=False)


def test_a_screen_is_measured_and_an_adversary_who_knows_it_evades_more(predictor: pf.Predictor) -> None:
    test = table(30, seed=1)
    report = predictor.detect(test, budgets=BUDGETS, options=FAST, progress=False)
    assert list(report.outcomes) == ["as they are", DAMAGED, ATTACKED, KNOWING]
    before, after = report.outcomes[ATTACKED], report.outcomes[KNOWING]
    assert before.wrong.value > report.outcomes["as they are"].wrong.value + 0.3
    assert after.wrong.value >= before.wrong.value
    assert after.missed.value >= before.missed.value
    found = predictor.predict(test, screen=True)
    wrong = (found["y"] != test["y"]).to_numpy()
    assert report.outcomes["as they are"].wrong.value == wrong.mean()
    assert report.outcomes["as they are"].missed.value == (wrong & ~found["suspicious"]).mean()
    assert report.flagged[ORDINARY].value == found["suspicious"].mean()
    for others, told in report.told.items():
        assert list(told) == [DAMAGED, ATTACKED, KNOWING]
        assert told[KNOWING].rows >= told[ATTACKED].rows > 0
        assert told[KNOWING].auc.value <= told[ATTACKED].auc.value
        assert all(at.tpr[0.01].value <= at.tpr[0.05].value for at in told.values())
        assert told[ATTACKED].others == 30 if others == ORDINARY else told[ATTACKED].others > 30
    document = json.loads(report.to_json())
    assert document["told"][HARMLESS][KNOWING]["rows"] == report.told[HARMLESS][KNOWING].rows
    assert set(document["weights"]) >= {"energy", "disagreement"}
    lines = str(report).splitlines()
    assert sum(line.startswith(KNOWING) for line in lines) == 3
    assert any("30 ordinary rows" in line for line in lines)


def test_an_adversary_with_room_makes_detection_collapse() -> None:
    settings: dict[str, Any] = {"fusion": "concat", "screen": True, "training": {"epochs": 8, "trackers": []}}
    predictor = pf.Predictor("y", **settings).fit(table(500), progress=False)
    # Far away, a row is seen at once; among the others it is not, and the budget reaches that far.
    call: dict[str, Any] = {"budgets": {"table": "ranges:3"}, "attack": "pgd", "options": {"steps": 30}}
    report = predictor.detect(table(30, seed=1), **call, progress=False)
    before, after = (report.told[ORDINARY][kind].tpr[0.05].value for kind in (ATTACKED, KNOWING))
    assert before > 0.5
    assert after < 0.25
    assert report.outcomes[KNOWING].missed.value > 0.7
    (said,) = [said for said in report.warnings if "collapses" in said]
    assert f"{after:.1%} are flagged" in said
    assert f"warning: {said}" in str(report)


def test_figures_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    some, others = random.normal(1, 1, 150).round(1), random.normal(0, 1, 230).round(1)
    told = _told(some, others, 0)
    truth, scores = np.repeat([1, 0], [150, 230]), np.concatenate([some, others])
    assert told.auc.value == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    for rate, at in told.tpr.items():
        assert at.value == pytest.approx(true[false <= rate].max())
        assert at.low <= at.value <= at.high
    assert np.isnan(_told(some[:0], others, 0).auc.value)


@pytest.mark.parametrize("kind", [Wrong, AnyLabel])
def test_the_adversary_wants_both(kind: type[Any]) -> None:
    random = torch.manual_seed(0)
    output, suspicion = torch.randn(50, 3, generator=random), torch.randn(50, 1, generator=random)
    truth = torch.arange(50) % 3 if kind is Wrong else torch.rand(50, 3, generator=random).round()
    other = kind(truth)
    goal = Unseen(truth, other, 0.3)
    both = torch.cat([output, suspicion], 1)
    damage = np.minimum(other.damage(output).numpy(), 0.3 - suspicion[:, 0].numpy())
    np.testing.assert_allclose(goal.damage(both), damage)
    wanted = other.reached(output) & (suspicion[:, 0] <= 0.3)
    assert torch.equal(goal.reached(both), wanted)
    assert 0 < wanted.sum() < 50
    some = torch.tensor([3, 1, 4])
    torch.testing.assert_close(goal.rows(some).damage(both[some]), goal.damage(both)[some])


def test_a_planted_blind_spot_is_found() -> None:
    # Wrong above 0.5 in the first input; seen when their sum is above 0.2: a way round leads through the second.
    def outputs(x: Mapping[str, Tensor], _: Tensor) -> Tensor:
        first = 8 * (x["x"][:, 0] - 0.5)
        return torch.stack([-first, first, 10 * (x["x"].sum(1) - 0.2)], 1)

    clean = torch.zeros(20, 2)
    free = torch.ones_like(clean, dtype=torch.bool)
    region = Box(clean, free, torch.tensor(-1.0), torch.tensor(1.0), 0, torch.tensor(0.9))
    truth = torch.zeros(20, dtype=torch.long)
    problem = Problem(outputs, {"x": region}, Unseen(truth, Wrong(truth), 0.0), torch.arange(20))

    blind = Problem(lambda x, n: outputs(x, n)[:, :2], {"x": region}, Wrong(truth), torch.arange(20))
    plain = build_attack("fgsm", {})(blind, seed=0)
    assert bool(plain.reached.all())
    assert bool((outputs(plain.inputs, problem.numbers)[:, 2] > 0).all())
    # PGD ends where its last step leads, this side or that of where both wishes meet; APGD keeps the best.
    reached = {name: build_attack(name, {"steps": 50})(problem, seed=0).reached for name in ("pgd", "apgd")}
    assert float(reached["pgd"].float().mean()) > 0.5
    assert bool(reached["apgd"].all())


def test_what_the_adversary_sees_is_what_the_screen_says(predictor: pf.Predictor) -> None:
    screen = predictor._screen
    assert screen is not None
    frame = table(30, seed=2)
    rows = read_rows(read_table(frame, media_root=None), predictor.schema, training=False, answers=True)
    threats = threats_of(predictor.model, predictor.schema, None, BUDGETS)
    scene = Scene.of(predictor.model.eval(), rows, list(threats), CPU)
    problem = scene.watched(screen, 0.1).problem(threats, scene)
    scores, logits, _ = screened(predictor.model, screen, rows, CPU)
    torch.testing.assert_close(problem.at_clean[:, -1], logits, rtol=1e-4, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(
        predictor.model.head.scores(problem.at_clean[:, :-1]), scores, rtol=1e-3, atol=1e-4, check_dtype=False
    )


def test_an_adversary_takes_the_better_of_both() -> None:
    knowing = _Measured(np.array([True, True, False, False, True]), np.array([1.0, 3.0, 0.0, 5.0, 9.0]))
    plain = _Measured(np.array([True, True, True, False, False]), np.array([2.0, 2.0, 4.0, 6.0, 1.0]))
    best = knowing.unless(plain)
    assert best.wrong.tolist() == [True, True, True, False, True]
    assert best.logits.tolist() == [1, 2, 4, 5, 9]


def test_warnings_say_what_was_found() -> None:
    def told(before: float, after: float, rows: int = 50) -> str:
        values = {DAMAGED: 0.5, ATTACKED: before, KNOWING: after}
        made = {
            kind: Told(rows, 200, Interval(0.5, 0.4, 0.6), {0.01: Interval(0, 0, 0), 0.05: Interval(value, 0, 1)})
            for kind, value in values.items()
        }
        return "; ".join(_warnings(made, 200))

    assert told(0.9, 0.8) == ""
    assert "collapses" in told(0.9, 0.44)
    assert "misses most" in told(0.3, 0.3)
    assert "collapses" not in told(0.3, 0.3)
    assert "turned no answer" in told(float("nan"), float("nan"), rows=0)


def test_a_wrong_call_is_told_what_is_wrong(predictor: pf.Predictor) -> None:
    with pytest.raises(InputError, match="no modality 'three'"):
        predictor.detect(table(20), modalities=["three"], progress=False)
    frame = table(9, seed=1)
    frame["y"] = frame["y"].map({"u": "v", "v": "w", "w": "u"})
    with pytest.raises(InputError, match="answers none of these rows rightly"):
        predictor.detect(frame, progress=False)
    frame = table(120).assign(y=np.arange(120.0))
    regression = pf.Predictor("y", fusion="linear", screen={"rate": 0.2}).fit(frame, progress=False)
    with pytest.raises(InputError, match="the task is regression, of which no answer is right or wrong"):
        regression.detect(frame, progress=False)
    plain = pf.Predictor("y", fusion="linear").fit(frame, progress=False)
    with pytest.raises(InputError, match="no screen"):
        plain.detect(frame, progress=False)
