"""Training that is to be fair: its formulas, that it narrows what it should, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core import processes
from polyfuse.core.errors import InputError, PolyfuseError, RecipeError
from polyfuse.core.files import strict_json
from polyfuse.data.schema import Target
from polyfuse.fairness import measure
from polyfuse.heads import HEADS
from polyfuse.metrics import METRICS
from polyfuse.training.fairness import FairnessSettings, FairObjective, gap_between

ROWS = 240


def objective(task: str = "classification", labels: int = 2, groups: Any = None, **settings: Any) -> FairObjective:
    levels: list[Any] = [] if task == "regression" else list(range(labels))
    target = Target(name="y", task=task, levels=levels, frequencies=[1 / labels] * len(levels))  # type: ignore[arg-type]
    drawn = np.random.default_rng(0)
    truth = torch.from_numpy(drawn.normal(size=ROWS) if task == "regression" else drawn.integers(0, labels, ROWS))
    codes = torch.from_numpy(drawn.integers(0, 3, ROWS)) if groups is None else torch.as_tensor(groups)
    head = HEADS.build(task, {}, 4, target)
    return FairObjective(
        head, FairnessSettings(column="g", **settings), codes, truth, METRICS["mae" if not levels else "accuracy"]
    )


def outputs(like: FairObjective, labels: int = 2) -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    size = (ROWS,) if like.head.task == "regression" else (ROWS, labels)
    return torch.randn(size, generator=drawn, dtype=torch.float64).requires_grad_()


def apart(means: Any) -> float:
    """4 Var over groups."""
    return float(4 * np.mean((np.asarray(means) - np.mean(means)) ** 2))


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("criterion", ["demographic_parity", "equalized_odds"])
def test_penalty_against_its_definition(criterion: str, labels: int) -> None:
    """With all rows in one batch running sums are the sums, so that loss and gradient are those of the formula."""
    fair = objective(labels=labels, criterion=criterion, weight=3.0)
    z = outputs(fair, labels)
    loss = fair.loss(z, fair.target, fair.groups)
    p = np.exp(z.detach().numpy()) / np.exp(z.detach().numpy()).sum(1, keepdims=True)
    y, g = fair.target.numpy(), fair.groups.numpy()
    kinds = [y >= 0] if criterion == "demographic_parity" else [y == label for label in range(labels)]
    penalties = [
        sum(apart([p[some & (g == code), c].mean() for code in range(3)]) for c in range(labels)) / 2 for some in kinds
    ]
    cross = -np.log(p[np.arange(ROWS), y]).mean()
    assert loss.item() == pytest.approx(cross + 3 * np.mean(penalties))
    (found,) = torch.autograd.grad(loss, z)
    other = z.detach().clone().requires_grad_()
    q, parts = other.softmax(1), []
    for some in kinds:
        means = torch.stack([q[torch.from_numpy(some & (g == code))].mean(0) for code in range(3)])
        parts.append(4 * ((means - means.mean(0)) ** 2).mean(0).sum() / 2)
    (expected,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(other, fair.target) + 3 * torch.stack(parts).mean(), other
    )
    assert torch.allclose(found, expected, atol=1e-9)


def test_penalty_of_two_groups_is_the_squared_difference() -> None:
    fair = objective(groups=np.arange(ROWS) % 2, weight=1.0)
    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    assert float(fair.penalty(p, torch.tensor([True, True]))) == pytest.approx(0.25)
    numbers = objective("regression", groups=np.arange(ROWS) % 2)
    assert float(numbers.penalty(torch.tensor([[1.0], [3.0]]), torch.tensor([True, True]))) == pytest.approx(4)


def test_gradients_of_small_batches_sum_to_that_of_all_rows() -> None:
    """However few rows of a group a batch holds: their mean over batches is the gradient at the running means."""
    fair = objective(weight=1.0)
    z = outputs(fair)
    every = FairObjective(fair.head, fair.settings, fair.groups, fair.target, fair.metric)
    every.loss(z.detach(), fair.target, fair.groups)
    start = {name: value.clone() for name, value in every.state.items()}
    (whole,) = torch.autograd.grad(every.loss(z, fair.target, fair.groups), z)
    total = torch.zeros_like(z)
    batches = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0)).split(8)
    assert any(len(fair.groups[rows].unique()) < 3 for rows in batches)
    for rows in batches:
        # As if it had run long enough for one batch to move the means little.
        fair.state = {"sums": 1e6 * start["sums"], "rows": 1e6 * start["rows"]}
        total += torch.autograd.grad(fair.loss(z[rows], fair.target[rows], fair.groups[rows]), z)[0] / len(batches)
    assert torch.allclose(total, whole, atol=1e-6)


def test_the_worst_group_gains_weight() -> None:
    """Against algorithm 1 of Sagawa et al. 2020, with all rows in one batch."""
    fair = objective(criterion="worst_group", weight=0.7)
    z = outputs(fair)
    p = np.exp(z.detach().numpy()) / np.exp(z.detach().numpy()).sum(1, keepdims=True)
    rows = -np.log(p[np.arange(ROWS), fair.target.numpy()])
    losses = np.array([rows[fair.groups.numpy() == code].mean() for code in range(3)])
    weights = np.ones(3) / 3
    for _ in range(3):
        loss = fair.loss(z, fair.target, fair.groups)
        weights = weights * np.exp(0.7 * losses)
        weights /= weights.sum()
        assert loss.item() == pytest.approx((weights * losses).sum())
    assert fair.state["weights"].numpy() == pytest.approx(weights)


def test_small_groups_are_left_out_of_comparisons_but_learned_from() -> None:
    groups = np.arange(ROWS) % 2
    groups[:9], groups[9:12] = 2, -1
    for criterion in ("demographic_parity", "worst_group"):
        fair = objective(groups=groups, criterion=criterion, weight=1.0)
        z = outputs(fair)
        (found,) = torch.autograd.grad(fair.loss(z, fair.target, fair.groups), z)
        assert (found[:12].abs().sum(1) > 0).all()
    penalty = objective(groups=groups, weight=1000.0)
    (found,) = torch.autograd.grad(penalty.loss(z, penalty.target, penalty.groups), z)
    alone = torch.autograd.grad(penalty.head.loss(z, penalty.target), z)[0]
    assert torch.allclose(found[:12], alone[:12])
    assert not torch.allclose(found[12:], alone[12:])
    with pytest.raises(InputError, match="fewer than two groups of 'g' have 10 rows"):
        objective(groups=np.where(np.arange(ROWS) < 9, 1, 0))


def test_figures_of_validation_rows_are_those_that_are_reported() -> None:
    drawn = np.random.default_rng(0)
    true, answer, group = (drawn.integers(0, many, ROWS) for many in (3, 3, 4))
    y_score = np.eye(3, dtype=np.float32)[answer] * 0.7 + 0.1
    groups = {"g": pd.Series(group)}
    target = Target(name="y", task="classification", levels=["x", "y", "z"], frequencies=[1 / 3] * 3)
    report: Any = measure(true, y_score, target, groups, least=10, resamples=20).columns[0]
    for criterion, gap in (
        ("demographic_parity", report.demographic_parity),
        ("equalized_odds", report.equalized_odds),
        ("worst_group", report.metric_gap),
    ):
        fair = objective(labels=3, groups=group, criterion=criterion)
        told = fair.measured(true, y_score, 1.0, group)
        assert told["validation_gap"] == pytest.approx(gap.difference.value)
        assert told["validation_objective"] > 1.0
    assert told["validation_worst_accuracy"] == pytest.approx(report.worst_value.value)
    assert np.isnan(gap_between(np.eye(3)[true], np.eye(3)[answer], np.zeros(ROWS, dtype=np.int64), odds=False))


def gapped(rows: int, seed: int) -> pd.DataFrame:
    """A label that depends on x, which is fair, and on z, of which men have more."""
    drawn = np.random.default_rng(seed)
    sex = drawn.choice(["f", "m"], rows, p=[0.4, 0.6])
    x, z = drawn.normal(size=rows), drawn.normal(size=rows) + 1.5 * (sex == "m")
    label = np.where(x + 0.8 * z - 0.6 + 0.7 * drawn.normal(size=rows) > 0, "yes", "no")
    return pd.DataFrame({"x": x, "z": z, "sex": sex, "label": label, "amount": x + z})


def spurious(rows: int, seed: int) -> pd.DataFrame:
    """A label that x tells with noise, and z without, but for one row in ten, where z tells the contrary."""
    drawn = np.random.default_rng(seed)
    label, odd = drawn.integers(0, 2, rows), drawn.random(rows) < 0.1
    x = label + 0.5 * drawn.normal(size=rows)
    z = np.where(odd, 1 - label, label) + 0.2 * drawn.normal(size=rows)
    return pd.DataFrame({"x": x, "z": z, "kind": np.where(odd, "odd", "usual"), "label": np.where(label, "b", "a")})


def fitted(
    frame: pd.DataFrame,
    epochs: int = 8,
    target: str = "label",
    *,
    out: Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> pf.Predictor:
    training = {"epochs": epochs, "trackers": []}
    inputs = {"table": {"columns": ["x", "z"], "encoder": {"name": "mlp", "dim": 16}}}
    given: dict[str, Any] = {"modalities": inputs, "fusion": "concat", "training": training, **settings}
    return pf.Predictor(target, **given).fit(frame, out=out, resume=resume, progress=False)


def groups_of(predictor: pf.Predictor, frame: pd.DataFrame, column: str) -> Any:
    return predictor.fairness(frame, [column], resamples=200, progress=False).columns[0]


@pytest.fixture(scope="module")
def plain() -> pf.Predictor:
    return fitted(gapped(1200, 0))


@pytest.fixture(scope="module")
def fair() -> pf.Predictor:
    return fitted(gapped(1200, 0), fairness={"column": "sex"})


def test_the_penalty_closes_half_of_a_planted_gap(plain: pf.Predictor, fair: pf.Predictor) -> None:
    test = gapped(1500, 1)
    before, after = groups_of(plain, test, "sex"), groups_of(fair, test, "sex")
    assert before.demographic_parity.difference.low > 0
    assert after.demographic_parity.difference.value < before.demographic_parity.difference.value / 2
    cost = before.overall["accuracy"].value - after.overall["accuracy"].value
    thresholds = {moved.criterion: moved for moved in before.thresholds}["demographic_parity"]
    assert thresholds.after.difference.value < thresholds.before.difference.value / 2
    assert cost < 0.12


def test_history_shows_the_gap(fair: pf.Predictor) -> None:
    told = fair.metrics["training"]
    history = told["history"]
    assert all({"validation_gap", "validation_objective", "validation_accuracy"} <= set(line) for line in history)
    best = min(history, key=lambda line: line["validation_objective"])
    assert told["epoch"] == best["epoch"]
    assert told["best"] == best["validation_accuracy"]
    assert fair.recipe.calibration == "temperature"  # which changes no answer
    assert fair.recipe.as_data()["fairness"] == {"column": "sex", "criterion": "demographic_parity"}


def test_the_column_is_no_input_unless_a_modality_names_it(fair: pf.Predictor, tmp_path: Path) -> None:
    frame = gapped(60, 2)
    fair.save(tmp_path / "run")
    again = pf.load(tmp_path / "run")
    assert again.predict(frame.drop(columns="sex"), progress=False).equals(fair.predict(frame, progress=False))
    recipe: dict[str, Any] = {"target": "label", "fairness": {"column": "sex"}}
    left = pf.Predictor(recipe=recipe).plan(gapped(200, 0))
    assert left.schema.left_out == {"sex": "tells the groups of fairness"}
    assert left.recipe.fusion.name == "concat"
    named = {"table": {"columns": ["x", "sex"]}}
    kept = pf.Predictor(recipe={**recipe, "modalities": named}).plan(gapped(200, 0))
    assert kept.schema.modalities == {"table": ["x", "sex"]}


def test_groups_are_compared_on_the_command_line(plain: pf.Predictor, tmp_path: Path) -> None:
    test = gapped(300, 3)
    test.loc[:40, "label"] = None
    plain.save(tmp_path / "run")
    test.dropna(subset="label").to_csv(tmp_path / "test.csv", index=False)
    call = ["evaluate", tmp_path / "run", "test.csv", "--sensitive"]
    text, _ = polyfuse(*call, "sex", "--sensitive", "x", cwd=tmp_path)
    assert text.index("roc_auc") < text.index("demographic parity difference")
    assert "sex & x, rates of 'yes'" in text
    document = json.loads(polyfuse(*call, "sex", "--json", cwd=tmp_path)[0])
    again = plain.fairness(test.dropna(subset="label"), ["sex"], progress=False)
    assert document["fairness"] == json.loads(strict_json(again.data()))
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(again.columns[0].overall["accuracy"].value)
    # Rows that cannot be read are left out of both.
    left = pf.load(tmp_path / "run")
    left.recipe = left.recipe.model_copy(update={"data": left.recipe.data.model_copy(update={"on_bad_row": "skip"})})
    with pytest.warns(UserWarning, match="41 of 300 rows were left out"):
        some = left.fairness(test, ["sex"], progress=False)
    assert some.data() == again.data()


def test_what_cannot_be_compared_is_told(plain: pf.Predictor) -> None:
    test = gapped(50, 3)
    for sensitive, told in (
        ("sex", "give a list"),
        (["sx"], "no column 'sx'; did you mean 'sex'"),
        (["label"], "'label' is the target"),
        ([], "no column is named"),
    ):
        with pytest.raises(InputError, match=told):
            plain.fairness(test, sensitive, progress=False)
    with pytest.raises(InputError, match="without: there is no modality 'tabel'"):
        plain.fairness(test, ["sex"], without=["tabel"], progress=False)
    prior = plain.fairness(test, ["sex"], without=["table"], least=2, resamples=20, progress=False).columns[0]
    assert prior.demographic_parity is not None
    assert prior.demographic_parity.difference.value == 0


def test_the_worst_group_is_lifted() -> None:
    train, test = spurious(1500, 0), spurious(1500, 1)
    usual = fitted(train, 12)
    lifted = fitted(train, 12, fairness={"column": "kind", "criterion": "worst_group"})
    before, after = groups_of(usual, test, "kind"), groups_of(lifted, test, "kind")
    assert before.worst == "odd"
    assert after.worst_value.value > before.worst_value.value + 0.1
    assert after.metric_gap.difference.value < before.metric_gap.difference.value / 2
    assert before.overall["accuracy"].value - after.overall["accuracy"].value < 0.1
    line = lifted.metrics["training"]["history"][-1]
    assert 0 < line["validation_worst_accuracy"] <= line["validation_accuracy"]


def test_odds_and_a_regression(plain: pf.Predictor) -> None:
    train, test = gapped(1200, 0), gapped(1000, 1)
    odds = fitted(train, fairness={"column": "sex", "criterion": "equalized_odds", "weight": 20})
    apart = [groups_of(some, test, "sex").equalized_odds.difference.value for some in (plain, odds)]
    assert apart[1] < apart[0] / 2
    number = fitted(train, 6, "amount")
    even = fitted(train, 6, "amount", fairness={"column": "sex", "weight": 5})
    gaps = [groups_of(some, test, "sex").demographic_parity.difference.value for some in (number, even)]
    assert gaps[1] < gaps[0] / 2


class _Stop(Exception):
    """Stands for a kill."""


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = gapped(300, 0)
    for criterion in ("equalized_odds", "worst_group"):
        settings: dict[str, Any] = {"fairness": {"column": "sex", "criterion": criterion}}
        whole = fitted(frame, 3, **settings)
        folder, calls, loss = tmp_path / criterion, [0], FairObjective.loss

        def dying(self: FairObjective, *given: Any, calls: list[int] = calls, loss: Any = loss, **named: Any) -> Tensor:
            calls[0] += 1
            if calls[0] == 10:
                raise _Stop
            return loss(self, *given, **named)

        with monkeypatch.context() as patched:
            patched.setattr(FairObjective, "loss", dying)
            with pytest.raises(_Stop):
                fitted(frame, 3, out=folder, **settings)
        resumed = fitted(frame, 3, out=folder, resume=True, **settings)
        assert resumed.metrics["training"]["history"] == whole.metrics["training"]["history"]


def test_groups_of_a_validation_table() -> None:
    frame = gapped(300, 0)
    settings: dict[str, Any] = {"fusion": "concat", "training": {"epochs": 1, "trackers": []}}
    predictor = pf.Predictor("label", fairness={"column": "sex"}, **settings)
    held = gapped(200, 1).iloc[::-1]
    predictor.fit(frame, validation=held, progress=False)
    gap = groups_of(predictor, held, "sex").demographic_parity.difference.value
    assert predictor.metrics["training"]["history"][0]["validation_gap"] == pytest.approx(gap)
    with pytest.raises(InputError, match=r"fairness.column: the table has no column 'sex'"):
        predictor.fit(frame, validation=held.drop(columns="sex"), progress=False)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fairness": {"column": "sexx"}}, "no column 'sexx'; did you mean 'sex'"),
        ({"fairness": {"column": "label"}}, "'label' is the target"),
        ({"fairness": {"column": "one"}}, "all values of 'one' are in one group, same"),
        ({"fairness": {"column": "many"}}, "divides the rows into 200 groups, of which there may be 20"),
        ({"fairness": {"column": "sex", "criterion": "fair"}}, "fairness.criterion"),
        ({"fairness": {"columns": "sex"}}, "unknown key; did you mean 'column'"),
        ({"fairness": {"column": "sex"}, "fusion": "linear"}, "'linear' is not trained by gradients"),
        ({"fairness": {"column": "sex"}, "robust": True}, "does not go with adversarial training"),
        ({"fairness": {"column": "sex"}, "training": {"mixup": 0.2}}, "training.mixup: it does not go with fairness"),
        ({"fairness": {"column": "sex", "criterion": "equalized_odds"}, "target": "amount"}, "the task is regression"),
        ({"fairness": {"column": "sex"}, "target": ["label", "amount"]}, "several targets"),
    ],
)
def test_what_cannot_be_fair_is_told_before_work_starts(settings: dict[str, Any], told: str) -> None:
    frame = gapped(200, 0).assign(one="same", many=[f"v{i}" for i in range(200)])
    with pytest.raises((InputError, RecipeError), match=told):
        pf.Predictor(recipe={"target": "label", **settings}).plan(frame)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "started", lambda: 2)
    with pytest.raises(PolyfuseError, match="of several processes none sees all groups"):
        pf.Predictor(recipe={"target": "label", "fairness": {"column": "sex"}}).plan(gapped(200, 0))


def test_a_search_would_undo_it() -> None:
    with pytest.raises(InputError, match="and so undoes it; fit instead"):
        pf.Predictor("label", fairness={"column": "sex"}).tune(gapped(200, 0), trials=1, progress=False)
