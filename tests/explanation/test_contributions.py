"""What modalities and columns give: planted truths, and a second derivation of the values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
from polyfuse.core.errors import InputError
from polyfuse.core.types import Tensors
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.explanation import contributions as module
from polyfuse.explanation.contributions import contributions, interaction_weights, shapley_weights, subsets
from polyfuse.explanation.interventions import interventions

CPU = torch.device("cpu")


def table(rows: int, seed: int) -> pd.DataFrame:
    """Return rows with an answer told by `x` and half of it by `half`; `noise` tells nothing, `shadow` goes with x."""
    drawn = np.random.default_rng(seed)
    y = drawn.integers(0, 2, rows)
    x = np.where(y, 1.0, -1.0) + drawn.normal(0, 0.5, rows)
    half = np.where(y, 1.0, -1.0) + drawn.normal(0, 1.5, rows)
    levels = np.array(["a", "b"])[(x + drawn.normal(0, 1, rows) > 0).astype(int)]
    return pd.DataFrame(
        {"x": x, "shadow": x + drawn.normal(0, 0.3, rows), "half": half, "noise": drawn.normal(0, 1, rows)}
        | {"level": levels, "y": np.array(["no", "yes"])[y]}
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[pf.Predictor, Rows]:
    modalities = {
        "main": {"columns": ["x", "shadow", "level"], "encoder": {"name": "mlp", "dropout": 0.0}},
        "help": {"columns": ["half"], "encoder": "mlp"},
        "empty": {"columns": ["noise"], "encoder": "mlp"},
    }
    predictor = pf.Predictor("y", modalities=modalities, fusion="concat", training={"epochs": 8}, augmentation="none")
    predictor.fit(table(600, 0), progress=False)
    rows = read_rows(read_table(table(400, 1), media_root=None), predictor.schema, training=False, answers=True)
    return predictor, rows


def test_values_are_the_mean_over_all_orders() -> None:
    names = ["a", "b", "c", "d"]
    worth = {frozenset(some): float(np.random.default_rng(len(some)).normal()) + len(some) for some in subsets(names)}
    for name in names:
        orders = list(permutations(names))
        added = [
            worth[frozenset(order[: order.index(name) + 1])] - worth[frozenset(order[: order.index(name)])]
            for order in orders
        ]
        weighed = sum(weight * worth[some] for some, weight in shapley_weights(names, name).items())
        assert math.isclose(weighed, float(np.mean(added)), abs_tol=1e-12)


def test_values_are_those_of_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    names = ["a", "b", "c"]

    def worth(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] * 2 + x[:, 1] * x[:, 2] * 3 + x[:, 0] * x[:, 1]

    found = captum.ShapleyValues(worth).attribute(torch.ones(1, 3), baselines=torch.zeros(1, 3))[0]
    for i, name in enumerate(names):
        mine = sum(
            weight * float(worth(torch.tensor([[float(other in some) for other in names]]))[0])
            for some, weight in shapley_weights(names, name).items()
        )
        assert math.isclose(mine, float(found[i]), abs_tol=1e-6)


def test_interaction_of_a_product_is_its_own_and_of_a_sum_nothing() -> None:
    names = ["a", "b", "c"]
    worth = {frozenset(some): 5.0 * ("a" in some and "b" in some) + ("c" in some) for some in subsets(names)}
    for pair, expected in {("a", "b"): 5.0, ("a", "c"): 0.0, ("b", "c"): 0.0}.items():
        found = sum(weight * worth[some] for some, weight in interaction_weights(names, *pair).items())
        assert math.isclose(found, expected, abs_tol=1e-12)


def test_a_modality_of_noise_gets_nothing_and_the_values_add_up(fitted: tuple[pf.Predictor, Rows]) -> None:
    predictor, rows = fitted
    found = contributions(predictor.model, rows, CPU)
    noise = found.values["empty"]
    assert noise.low <= 0 <= noise.high
    assert found.values["main"].low > 0.1
    assert found.best == "main"
    assert len(found.subsets) == 8
    gained = found.subsets["main + help + empty"].value - found.subsets["nothing"].value
    assert math.isclose(sum(at.value for at in found.values.values()), gained, abs_tol=1e-9)


def test_subsets_are_measured_as_evaluate_does(fitted: tuple[pf.Predictor, Rows]) -> None:
    predictor, rows = fitted
    found = contributions(predictor.model, rows, CPU)
    report = predictor.evaluate(table(400, 1), without=["help", "empty"], progress=False)
    assert found.subsets["main"].value == pytest.approx(report[found.metric], abs=1e-12)


def test_many_modalities_are_added_in_drawn_orders(
    fitted: tuple[pf.Predictor, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, rows = fitted
    exact = contributions(predictor.model, rows, CPU)
    monkeypatch.setattr(module, "EXACT", 2)
    drawn = contributions(predictor.model, rows, CPU)
    assert drawn.orders == 64
    assert drawn.interactions == {}
    assert sum(at.value for at in drawn.values.values()) == pytest.approx(sum(at.value for at in exact.values.values()))
    for name, at in exact.values.items():
        assert drawn.values[name].value == pytest.approx(at.value, abs=0.05)


def test_a_column_that_the_model_ignores_moves_nothing_though_it_goes_along(
    fitted: tuple[pf.Predictor, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, rows = fitted
    encoder, first = predictor.model.encoder("main"), rows.value("main", 0)
    place, prepare = rows.schema.modalities["main"].index("shadow"), encoder.prepare
    assert first is not None

    def blind(values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        return prepare([value and (*value[:place], first[place], *value[place + 1 :]) for value in values])

    monkeypatch.setattr(encoder, "prepare", blind)
    found = {effect.name: effect for effect in interventions(predictor.model, rows, CPU, draw=1).effects}
    shadow, x = found["shadow"], found["x"]
    assert shadow.moved.value == 0
    assert shadow.lost.value == 0
    assert shadow.contrast is not None
    assert shadow.contrast.caused.value == 0
    assert shadow.contrast.seen.low > 0.3
    assert "comes with other columns" in shadow.said
    assert x.contrast is not None
    assert x.contrast.caused.low > 0.1
    assert found["main"].moved.value > found["empty"].moved.value
    assert found["level"].contrast is not None
    assert {found["level"].contrast.low, found["level"].contrast.high} == {"a", "b"}


def test_the_average_effect_is_that_of_predictions_on_a_changed_table(fitted: tuple[pf.Predictor, Rows]) -> None:
    predictor, rows = fitted
    predictor.fit_calibration(table(400, 1), method="temperature", progress=False)
    calibration = predictor._calibration
    effects = interventions(predictor.model, rows, CPU, calibration=calibration, draw=1).effects
    found = {effect.name: effect for effect in effects}["x"]
    column = next(column for column in rows.schema.columns if column.name == "x")
    changed = [table(400, 1).assign(x=column.quantiles[at]) for at in (45, 5)]
    by_hand = [predictor.predict_proba(some, progress=False)["yes"].mean() for some in changed]
    assert found.contrast is not None
    assert found.contrast.caused.value == pytest.approx(by_hand[0] - by_hand[1], abs=1e-5)


def test_refusals(fitted: tuple[pf.Predictor, Rows]) -> None:
    predictor, rows = fitted
    with pytest.raises(InputError, match="at least 2 rows"):
        interventions(predictor.model, rows.subset([0]), CPU)
    single = pf.Predictor("y", fusion="concat", training={"epochs": 1}).fit(table(60, 2)[["x", "y"]], progress=False)
    few = read_rows(read_table(table(40, 3), media_root=None), single.schema, training=False, answers=True)
    with pytest.raises(InputError, match="gives all there is"):
        contributions(single.model, few, CPU)


def test_weights_of_a_fusion_that_weighs_are_the_mean_of_what_it_tells() -> None:
    modalities = {name: {"columns": [name], "encoder": "mlp"} for name in ("x", "half")}
    predictor = pf.Predictor("y", modalities=modalities, fusion="gated", training={"epochs": 2}, augmentation="none")
    predictor.fit(table(120, 0), progress=False)
    rows = read_rows(read_table(table(50, 1), media_root=None), predictor.schema, training=False, answers=True)
    found = contributions(predictor.model, rows, CPU, resamples=20).weights
    assert found == pytest.approx(predictor.fusion_weights(table(50, 1), progress=False).mean().to_dict(), abs=1e-6)
