"""The training loop on Features that are known: it learns, keeps the best, stops, and goes on as if never stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import ArtifactError, InputError, PolyfuseError
from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import Batches
from polyfuse.data.schema import Target
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.metrics import METRICS
from polyfuse.model import FusionModel
from polyfuse.training.chance import drawn_for, hidden
from polyfuse.training.checkpoints import FILE, Checkpoints
from polyfuse.training.loop import Trainer, scored
from polyfuse.training.settings import TrainingSettings
from polyfuse.training.tracking import make_accelerator

ROWS = 240


class Known(Encoder):
    """Stands for an encoder whose Features are known already."""

    reads = frozenset({"number"})

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def prepare(self, values: Sequence[tuple[object, ...] | None]) -> Tensors:
        raise AssertionError("its Features are known")

    def forward(self, **tensors: Tensor) -> Features:
        raise AssertionError("its Features are known")


class Given:
    lengths = None

    def __init__(self, pooled: Tensor, fail_at: int | None = None) -> None:
        self.pooled, self.fail_at, self.calls = pooled, fail_at, 0

    def batch(self, rows: Sequence[int]) -> Features:
        self.calls += 1
        if self.fail_at is not None and self.calls > self.fail_at:
            raise KeyboardInterrupt
        return Features.of_pooled(self.pooled[list(rows)])


def problem() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """XOR of the signs of two modalities: neither alone says anything."""
    generator = torch.Generator().manual_seed(0)
    pooled = {name: torch.randn(ROWS, 4, generator=generator) * torch.tensor([4.0, 1, 1, 1]) for name in ("a", "b")}
    target = ((pooled["a"][:, 0] > 0) ^ (pooled["b"][:, 0] > 0)).long()
    return pooled, torch.ones(ROWS, 2, dtype=torch.bool), target


def trainer(
    settings: TrainingSettings,
    folder: Path | None = None,
    *,
    run: str = "run",
    fail_at: int | None = None,
    deadline: float | None = None,
    whole: bool = False,
    poison: bool = False,
) -> Trainer:
    pooled, present, target = problem()
    torch.manual_seed(settings.seed)
    dims = {"a": 4, "b": 4}
    fusion = FUSIONS.build("deep", {"dim": 16}, dims)
    head = HEADS.build(
        "classification", {}, 16, Target(name="y", task="classification", levels=[0, 1], frequencies=[0.5, 0.5])
    )
    model = FusionModel({name: Known(4) for name in dims}, fusion, head)
    if poison:
        pooled["a"] = pooled["a"] * float("nan")
    sources = {name: Given(values, fail_at if name == "a" else None) for name, values in pooled.items()}
    return Trainer(
        model,
        Batches(sources, present, target, np.arange(160)),
        Batches({name: Given(values) for name, values in pooled.items()}, present, target, np.arange(160, ROWS)),
        settings,
        make_accelerator(torch.device("cpu")),
        checkpoints=Checkpoints(folder, run) if folder is not None else None,
        deadline=deadline,
        whole=whole,
    )


SETTINGS = TrainingSettings(epochs=6, batch_size=32, patience=100, checkpoint_every=2, learning_rate=5e-3)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_leaves_the_best_weights() -> None:
    settings = SETTINGS.model_copy(update={"epochs": 30, "learning_rate": 1e-2, "modality_dropout": 0.0})
    made = trainer(settings)
    outcome = made.run()
    assert outcome.reason == "all epochs done"
    assert outcome.value > 0.85
    values = [figures["validation_accuracy"] for figures in outcome.history]
    assert outcome.value == max(values)
    truth, scores, _ = scored(made.model, made.validation, made.accelerator.device)
    assert (scores.argmax(1) == truth).mean() == pytest.approx(outcome.value)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first = trainer(SETTINGS)
    first.run()
    second = trainer(SETTINGS)
    second.run()
    assert same(weights(first), weights(second))
    third = trainer(SETTINGS.model_copy(update={"seed": 1}))
    third.run()
    assert not same(weights(first), weights(third))


@pytest.mark.parametrize("fail_at", [3, 5, 6, 17, 29])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, fail_at: int) -> None:
    whole = trainer(SETTINGS)
    expected = whole.run()
    killed = trainer(SETTINGS, tmp_path, fail_at=fail_at)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = trainer(SETTINGS, tmp_path)
    torch.manual_seed(999)  # a new process has another random state
    assert again.run(resume=True) == expected
    assert same(weights(whole), weights(again))


def test_what_is_of_use_only_as_a_whole_is_given_up_as_soon_as_it_cannot_end() -> None:
    settings = SETTINGS.model_copy(update={"epochs": 10**6})
    lost = trainer(settings, deadline=time.monotonic() + 600, whole=True)
    assert lost.run().reason == "time limit"
    assert lost._state.updates < 20
    short = SETTINGS.model_copy(update={"epochs": 4})
    won = trainer(short, deadline=time.monotonic() + 600, whole=True)
    assert won.run().reason == "all epochs done"
    plain = trainer(short)
    plain.run()
    assert same(weights(won), weights(plain))


def test_another_thread_may_end_it() -> None:
    made = trainer(SETTINGS.model_copy(update={"epochs": 10**6}))
    threading.Timer(0.3, made.interrupt).start()
    assert made.run().reason == "interrupted"


def test_accumulation_resumes_too(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"accumulate": 2, "checkpoint_every": 1, "optimizer": "sgd"})
    whole = trainer(settings)
    whole.run()
    killed = trainer(settings, tmp_path, fail_at=4)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = trainer(settings, tmp_path)
    again.run(resume=True)
    assert same(weights(whole), weights(again))


def test_accumulated_batches_update_like_one_batch() -> None:
    plain = {"epochs": 1, "modality_dropout": 0.0, "warmup": 0.0}
    one = trainer(SETTINGS.model_copy(update={**plain, "batch_size": 160}))
    two = trainer(SETTINGS.model_copy(update={**plain, "batch_size": 80, "accumulate": 2}))
    for made in (one, two):
        for module in made.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        made.run()
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_another_run_is_refused_and_a_damaged_one_named(tmp_path: Path) -> None:
    trainer(SETTINGS, tmp_path).run()
    with pytest.raises(InputError, match="another recipe or other data"):
        trainer(SETTINGS, tmp_path, run="other").run(resume=True)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        trainer(SETTINGS, tmp_path).run(resume=True)


def test_patience_ends_it() -> None:
    outcome = trainer(SETTINGS.model_copy(update={"epochs": 500, "patience": 2, "learning_rate": 1e-6})).run()
    assert outcome.reason == "no better for a while"
    assert len(outcome.history) < 500


def test_the_time_limit_ends_it_with_usable_weights() -> None:
    made = trainer(SETTINGS.model_copy(update={"epochs": 1000}), deadline=time.monotonic())
    outcome = made.run()
    assert outcome.reason == "time limit"
    assert outcome.value >= 0
    assert all(torch.isfinite(tensor).all() for tensor in weights(made).values())


def test_ctrl_c_ends_it_with_the_best_weights() -> None:
    made = trainer(SETTINGS.model_copy(update={"epochs": 100_000, "patience": 100_000}))
    before = signal.getsignal(signal.SIGINT)
    threading.Timer(0.8, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    outcome = made.run()
    assert outcome.reason == "interrupted"
    assert np.isfinite(outcome.value)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_is_no_number_is_an_error_with_advice() -> None:
    with pytest.raises(PolyfuseError, match=r"lower training\.learning_rate"):
        trainer(SETTINGS, poison=True).run()


def test_weights_are_ranked_by_the_metric_then_by_the_loss() -> None:
    accuracy, rmse = trainer(SETTINGS), trainer(SETTINGS)
    rmse.metric = METRICS["rmse"]
    nan = float("nan")
    assert accuracy._rank(0.9, 2.0) > accuracy._rank(0.8, 1.0) > accuracy._rank(0.8, 1.5) > accuracy._rank(nan, 0.1)
    assert rmse._rank(0.8, 2.0) > rmse._rank(0.9, 1.0) > rmse._rank(nan, 0.1)


def test_modality_dropout_hides_but_never_everything() -> None:
    torch.manual_seed(0)
    present = torch.rand(2000, 3) > 0.3
    left = hidden(present, 0.5, drawn_for(0), 2000)
    assert not (left & ~present).any()
    assert (left.any(1) == present.any(1)).all()
    kept = left[present.all(1)].float().mean()
    # Of three, all are hidden with 1/8 and stay then: a share of 1/2 + 1/8 stays.
    assert kept == pytest.approx(0.625, abs=0.03)
    assert torch.equal(hidden(present, 0.0, drawn_for(0), 2000), present)
