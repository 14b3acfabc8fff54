"""Augmentation in training: where it acts, where it does not, and that it is kept only where it helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
from polyfuse.core.errors import InputError, RecipeError
from polyfuse.data.augmentation.source import AugmentedSource
from polyfuse.training.chance import drawn_for, mix_of

QUICK = {"epochs": 3, "batch_size": 16}


def photos(rows: int = 80, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    images = [np.clip(rng.normal(90 + 70 * label, 30, (10, 10)), 0, 255).astype(np.uint8) for label in y]
    return pd.DataFrame({"photo": images, "size": rng.normal(y, 1.0), "y": y})


def settings(**more: Any) -> dict[str, Any]:
    image = {"columns": ["photo"], "encoder": {"name": "convnet", "width": 8}}
    return {"modalities": {"image": image, "table": {"columns": ["size"]}}, "training": QUICK, **more}


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many rows augmented sources give."""
    seen: list[int] = []
    batch = AugmentedSource.batch

    def noted(self: AugmentedSource, rows: Any) -> Any:
        seen.append(len(rows))
        return batch(self, rows)

    monkeypatch.setattr(AugmentedSource, "batch", noted)
    return seen


def test_it_acts_in_training_and_nowhere_else(batches: list[int]) -> None:
    chosen = {"image": ["colour", {"name": "erase", "probability": 1.0}]}
    plain = pf.Predictor("y", fusion="concat", **settings()).fit(photos(), progress=False)
    assert not batches
    augmented = pf.Predictor("y", fusion="concat", augmentation=chosen, **settings()).fit(photos(), progress=False)
    assert sum(batches) == 3 * 68, "each training row once an epoch, and no row kept aside"
    test = photos(20, seed=1)
    assert not plain.predict_proba(test).equals(augmented.predict_proba(test))
    assert sum(batches) == 3 * 68
    again = pf.Predictor("y", fusion="concat", augmentation=chosen, **settings()).fit(photos(), progress=False)
    pd.testing.assert_frame_equal(again.predict_proba(test), augmented.predict_proba(test))
    assert augmented.recipe.as_data()["augmentation"] == chosen


def test_auto_keeps_what_is_better_on_rows_kept_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    import polyfuse.fitting.whole as whole

    taken: list[bool] = []
    better = whole._better

    def noted(*arguments: Any) -> bool:
        taken.append(better(*arguments))
        return taken[-1]

    monkeypatch.setattr(whole, "_better", noted)
    predictor = pf.Predictor("y", fusion="concat", augmentation="auto", **settings()).fit(photos(), progress=False)
    kept = predictor.recipe.as_data()["augmentation"]
    assert len(taken) == 1
    assert (kept == "none") is not taken[0]
    if taken[0]:
        assert [name if isinstance(name, str) else name["name"] for name in kept["image"]] == [
            "crop",
            "colour",
            "erase",
        ]


def test_where_nothing_is_said() -> None:
    def of(**more: Any) -> Any:
        return pf.Predictor("y", **settings(**more)).plan(photos()).recipe.augmentation

    assert of() == "auto"
    assert of(preset="best") == "auto"
    assert of(preset="fast") == "none"
    assert of(fusion="concat") == "none"
    assert of(fusion="concat", augmentation="auto") == "auto"


@pytest.mark.parametrize(
    ("augmentation", "told"),
    [
        ({"image": ["colur"]}, "did you mean 'colour'"),
        ({"image": [{"name": "erase", "probability": 2}]}, "less than or equal to 1"),
        ({"image": ["typos"]}, "'typos' reads text"),
        ({"picture": ["crop"]}, "did you mean 'image'|there is no such modality"),
        ("always", "augmentation"),
    ],
)
def test_what_is_wrong_is_told(augmentation: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        pf.Predictor("y", augmentation=augmentation, **settings()).plan(photos())


def test_a_frozen_encoder_is_not_augmented(tiny_model: Any) -> None:
    note = {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": tiny_model("bert")}}
    table = photos().assign(note=[f"a day number {i} and so on" for i in range(80)])
    with pytest.raises(RecipeError, match="its encoder is frozen"):
        pf.Predictor("y", modalities={"text": note}, augmentation={"text": ["typos"]}).plan(table)


def test_mixup_mixes_rows_and_answers() -> None:
    from polyfuse.core.types import Features
    from polyfuse.data.schema import Target
    from polyfuse.fusion.concat import ConcatFusion
    from polyfuse.heads.classification import ClassificationHead
    from polyfuse.model import FusionModel

    torch.manual_seed(0)
    target = Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5])
    model = FusionModel({}, ConcatFusion({"x": 3}, dim=4), ClassificationHead(4, target)).eval()
    model.modalities = ("x",)
    inputs = {"x": Features.of_pooled(torch.randn(6, 3))}
    present, answers = torch.ones(6, 1, dtype=torch.bool), torch.tensor([0, 1, 0, 1, 1, 0])
    order = torch.tensor([3, 2, 5, 0, 1, 4])
    fused = model.fusion(inputs, present).pooled
    logits = 0.3 * fused + 0.7 * fused[order]
    output = model.head(Features.of_pooled(logits))
    expected = 0.3 * model.head.loss(output, answers) + 0.7 * model.head.loss(output, answers[order])
    torch.testing.assert_close(model.loss(inputs, present, answers, (order, 0.3)), expected)
    torch.testing.assert_close(model.loss(inputs, present, answers, (order, 1.0)), model.loss(inputs, present, answers))
    assert mix_of(6, 0.0, drawn_for(0)) is None
    drawn = [mix_of(6, 0.4, drawn_for(i)) for i in range(400)]
    shares = np.array([mix[1] for mix in drawn if mix is not None])
    assert shares.mean() == pytest.approx(0.5, abs=0.07)
    assert shares.var() == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.03)


def test_mixup_changes_training() -> None:
    table, test = photos(), photos(20, seed=1)
    plain = pf.Predictor("y", fusion="concat", **settings()).fit(table, progress=False)
    mixed = pf.Predictor("y", fusion="concat", **settings(training={**QUICK, "mixup": 0.4})).fit(table, progress=False)
    assert not plain.predict_proba(test).equals(mixed.predict_proba(test))
