"""A tuning from the recipe to the saved folder, and what the training loop tells it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import polyfuse as pf
from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import Batches
from polyfuse.data.schema import Target
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.model import FusionModel
from polyfuse.training.loop import Trainer
from polyfuse.training.settings import TrainingSettings
from polyfuse.training.tracking import make_accelerator

Find = Callable[[str], str]


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, rows)
    words = np.array([["a", "b", "c"], ["one", "two", "cat"]])
    notes: list[str | None] = [" ".join(rng.choice(words[y], rng.integers(1, 6))) for y in target]
    notes[3] = None
    return pd.DataFrame({"note": notes, "size": rng.normal(target, 3.0), "label": np.array(["no", "yes"])[target]})


def recipe(find: Find, tuning: Any) -> dict[str, Any]:
    encoder = {"name": "transformer", "checkpoint": find("bert"), "max_tokens": 12}
    return {
        "target": "label",
        "columns": {"note": "text"},
        "modalities": {"text": {"columns": ["note"], "encoder": encoder}, "table": {"columns": ["size"]}},
        "tuning": {"text": tuning},
        "fusion": "concat",
        "training": {"epochs": 3, "batch_size": 16, "precision": "float32"},
    }


@pytest.mark.parametrize(
    ("tuning", "files"),
    [
        ({"name": "last", "layers": 1, "learning_rate": 1e-2}, set()),
        ({"name": "bias", "learning_rate": 1e-2}, set()),
        ({"name": "full", "layer_decay": 0.5, "learning_rate": 1e-2}, set()),
        ({"name": "adapter", "learning_rate": 1e-2}, {"adapter.json", "adapter.safetensors"}),
        ({"name": "adalora", "rank": 1, "initial": 3, "learning_rate": 1e-2}, {"adapter_model.safetensors"}),
        ({"name": "ia3", "learning_rate": 1e-1}, {"adapter_model.safetensors"}),
        ({"name": "prefix", "length": 2, "learning_rate": 1e-1}, {"adapter_model.safetensors"}),
        ({"name": "loha", "learning_rate": 1e-2}, {"adapter_model.safetensors"}),
    ],
    ids=lambda part: part["name"] if isinstance(part, dict) else "",
)
def test_fitted_saved_and_loaded_it_answers_alike(
    tuning: Any, files: set[str], tiny_model: Find, tmp_path: Path
) -> None:
    predictor = pf.Predictor(recipe=recipe(tiny_model, tuning)).fit(table(80, 0), progress=False)
    test = table(40, 1)
    expected = predictor.predict_proba(test)
    for standalone in (True, False):
        folder = tmp_path / str(standalone)
        predictor.save(folder, standalone=standalone)
        adapters = {path.name for path in folder.rglob("encoders/*/adapter/*")}
        assert files <= adapters
        assert bool(adapters) == bool(files)
        assert bool(list(folder.rglob("backbone/model.safetensors"))) == (standalone or not files)
        loaded = pf.load(folder)
        pd.testing.assert_frame_equal(loaded.predict_proba(test), expected, rtol=1e-4, atol=1e-5)
        # One row alone, as a server asks for it.
        one = loaded.predict_proba(test.iloc[:1])
        pd.testing.assert_frame_equal(one, expected.iloc[:1], rtol=1e-3, atol=1e-4)


def test_the_lower_layers_are_run_once(tiny_model: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.bert.modeling_bert import BertLayer

    monkeypatch.setenv("POLYFUSE_CACHE", str(tmp_path))
    rows: dict[int | None, int] = {0: 0, 1: 0}
    forward = BertLayer.forward

    def counted(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows[self.attention.self.layer_idx] += len(hidden) if self.training or not torch.is_grad_enabled() else 0
        return forward(self, hidden, *args, **kwargs)

    monkeypatch.setattr(BertLayer, "forward", counted)
    train = table(80, 0)
    tuning = {"name": "last", "layers": 1, "learning_rate": 1e-2}
    fitted = pf.Predictor(recipe=recipe(tiny_model, tuning)).fit(train, progress=False)
    texts = train["note"].nunique()
    # Once for each text, and a handful when the cut is tried; the layer above runs for each row of each epoch.
    assert texts <= rows[0] <= texts + 10
    assert rows[1] > 3 * 60
    before = rows[0]
    fitted.evaluate(train)
    assert rows[0] == before


class Plain(Encoder):
    """One matrix that stands for a backbone."""

    reads = frozenset({"number"})

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.backbone = 4, nn.Linear(4, 4)

    def prepare(self, values: Any) -> Tensors:
        return {"x": torch.zeros(len(values), 4)}

    def forward(self, x: Tensor) -> Features:
        assert self.backbone is not None
        return Features.of_pooled(self.backbone(x))


class Noting(Tuning):
    """Notes what it is told."""

    learning_rate = 1e-2

    def __init__(self) -> None:
        self.told: list[tuple[str, int, bool]] = []

    def apply(self, encoder: Encoder) -> None:
        encoder.requires_grad_(True)

    def _has_gradient(self, encoder: Encoder) -> bool:
        return all(parameter.grad is not None for parameter in encoder.parameters())

    def begin(self, encoder: Encoder, updates: int) -> None:
        self.told.append(("begin", updates, self._has_gradient(encoder)))

    def penalty(self, encoder: Encoder) -> Tensor | None:
        assert isinstance(encoder.backbone, nn.Linear)
        return 1e6 * encoder.backbone.weight.square().sum()

    def updated(self, encoder: Encoder, update: int) -> None:
        self.told.append(("updated", update, self._has_gradient(encoder)))


class Numbers:
    lengths = None

    def batch(self, rows: Any) -> Tensors:
        return {"x": torch.ones(len(rows), 4) * torch.tensor(rows).unsqueeze(1) / 40}


def test_the_loop_tells_a_tuning_of_each_update() -> None:
    torch.manual_seed(0)
    encoder, tuning = Plain(), Noting()
    fusion = FUSIONS.build("concat", {"dim": 8}, {"x": 4})
    head = HEADS.build("regression", {}, 8, Target(name="y", task="regression", mean=0.0, std=1.0))
    model = FusionModel({"x": encoder}, fusion, head)
    batches = [
        Batches({"x": Numbers()}, torch.ones(40, 1, dtype=torch.bool), torch.arange(40) / 40, np.arange(*span))
        for span in ((0, 32), (32, 40))
    ]
    settings = TrainingSettings(epochs=2, batch_size=8, accumulate=2, learning_rate=1e-3, weight_decay=0.0)
    accelerator = make_accelerator(torch.device("cpu"))
    assert isinstance(encoder.backbone, nn.Linear)
    before = encoder.backbone.weight.detach().clone()
    outcome = Trainer(model, *batches, settings, accelerator, tunings=[(encoder, tuning)]).run()
    # Two batches make an update; its gradients still stand when the tuning is told.
    assert tuning.told == [("begin", 4, False), *(("updated", update, True) for update in range(1, 5))]
    # The penalty draws on the weights, and is no part of the loss that is shown.
    after = encoder.backbone.weight.detach()
    assert bool((after.abs() < before.abs())[before.abs() > 0.1].all())
    assert all(epoch["loss"] < 100 for epoch in outcome.history)
