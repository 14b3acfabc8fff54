"""AdaLoRA against the paper's definitions, and as a run goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.core.types import Tensors
from polyfuse.data.batches import Batches
from polyfuse.data.schema import Column, Target
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.model import FusionModel
from polyfuse.training.checkpoints import Checkpoints
from polyfuse.training.loop import Trainer
from polyfuse.training.settings import TrainingSettings
from polyfuse.training.tracking import make_accelerator
from polyfuse.tuning.adalora import AdaloraTuning

Find = Callable[[str], str]
TEXT = [Column(name="title", type="text")]
VALUES = [("one cat",), ("two dogs a b c",)]


def bert(find: Find) -> TransformerEncoder:
    return TransformerEncoder(TEXT, checkpoint=find("bert"), layers=1).eval()


def factors(encoder: Any) -> dict[str, dict[str, np.ndarray]]:
    """Return A, B and E of every layer, and their gradients."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, weight in encoder.backbone.named_parameters():
        if ".lora_" in name:
            layer, _, factor = name.removesuffix(".default").rpartition(".lora_")
            found.setdefault(layer, {})[factor] = weight.detach().numpy().copy()
            if weight.grad is not None:
                found[layer][f"d{factor}"] = weight.grad.numpy().copy()
    return found


def test_ranks_go_as_the_paper_says(tiny_model: Find) -> None:
    """Importance of a weight: the product of moving means of |w ∂L/∂w| and of how far that lies from its mean.

    Of a rank: that of its singular value, plus the mean over its two vectors. The least important ones go.
    """
    torch.manual_seed(0)
    encoder, tuning = bert(tiny_model), AdaloraTuning(rank=1, initial=3, warmup=0.1, settle=0.3, dropout=0.0)
    tuning.apply(encoder)
    updates, beta = 20, 0.85
    tuning.begin(encoder, updates)
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=1e-2)
    tensors = encoder.prepare(VALUES)
    sensitivity: dict[tuple[str, str], np.ndarray] = {}
    doubt: dict[tuple[str, str], np.ndarray] = {}
    layers = len(factors(encoder))
    for update in range(1, updates + 1):
        torch.autograd.backward(encoder(**tensors).tokens.square().sin().sum())
        optimizer.step()
        before = factors(encoder)
        tuning.updated(encoder, update)
        optimizer.zero_grad(set_to_none=True)
        scores = {}
        for layer, each in before.items() if update < updates - 6 else ():
            for factor in "ABE":
                found = np.abs(each[factor] * each[f"d{factor}"])
                key = (layer, factor)
                mean = beta * sensitivity.get(key, 0.0) + (1 - beta) * found
                doubt[key] = beta * doubt.get(key, 0.0) + (1 - beta) * np.abs(found - mean)
                sensitivity[key] = mean
        for layer in before:
            score = {f: sensitivity[layer, f] * doubt[layer, f] for f in "ABE"}
            scores[layer] = score["E"][:, 0] + score["A"].mean(1) + score["B"].mean(0)
        left = {layer: each["E"][:, 0] != 0 for layer, each in factors(encoder).items()}
        if update <= 2:
            budget = 3 * layers
        elif update > updates - 6:
            budget = layers
        else:
            budget = int((3 - 1) * layers * (1 - (update - 2) / (20 - 6 - 2)) ** 3 + layers)
        assert sum(int(each.sum()) for each in left.values()) == budget, update
        if 2 < update <= updates - 6:
            order = np.sort(np.concatenate(list(scores.values())))[::-1]
            for layer, each in scores.items():
                assert (left[layer] == (each > order[budget])).all(), update
        # The values of those that stay are not touched.
        for layer, each in factors(encoder).items():
            assert (each["E"][left[layer]] == before[layer]["E"][left[layer]]).all()


def test_the_penalty_is_zero_for_orthogonal_factors(tiny_model: Find) -> None:
    encoder, tuning = bert(tiny_model), AdaloraTuning(rank=1, initial=3, orthogonality=0.5)
    tuning.apply(encoder)
    penalty = tuning.penalty(encoder)
    assert penalty is not None
    norms = []
    for each in factors(encoder).values():
        norms += [np.linalg.norm(m - np.eye(3)) for m in (each["A"] @ each["A"].T, each["B"].T @ each["B"])]
    assert float(penalty) == pytest.approx(0.5 * np.mean(norms), rel=1e-5)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "lora_A" in name:
                weight.copy_(torch.eye(3, weight.shape[1]))
            if "lora_B" in name:
                weight.copy_(torch.eye(weight.shape[0], 3))
    again = tuning.penalty(encoder)
    assert again is not None
    assert float(again) == 0.0
    assert AdaloraTuning(orthogonality=0.0).penalty(encoder) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rank": 8, "initial": 8}, "begins with initial=8 ranks and ends with rank=8"),
        ({"warmup": 0.5, "settle": 0.5}, "warmup=0.5 and settle=0.5 leaves no update"),
    ],
)
def test_a_schedule_without_room_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        AdaloraTuning(**options)


def test_every_option_reaches_peft(tiny_model: Find) -> None:
    encoder = bert(tiny_model)
    tuning = AdaloraTuning(rank=2, initial=5, alpha=7, dropout=0.3, layers="attention", warmup=0.2, settle=0.4)
    tuning.apply(encoder)
    tuning.begin(encoder, 10)
    backbone: Any = encoder.backbone
    config = backbone.peft_config["default"]
    assert (config.target_r, config.init_r, config.lora_alpha, config.lora_dropout) == (2, 5, 7, 0.3)
    assert (config.tinit, config.tfinal, config.total_step) == (2, 4, 10)
    assert all("attention" in layer for layer in factors(encoder))
    assert AdaloraTuning(rank=4).initial == 6
    assert AdaloraTuning(rank=4).alpha == 12


def test_a_batch_without_the_modality_changes_nothing(tiny_model: Find) -> None:
    encoder, tuning = bert(tiny_model), AdaloraTuning(rank=1, initial=3)
    tuning.apply(encoder)
    tuning.begin(encoder, 10)
    before = factors(encoder)
    for update in range(1, 11):
        tuning.updated(encoder, update)
    for layer, each in factors(encoder).items():
        assert all((each[factor] == before[layer][factor]).all() for factor in "ABE")


class Texts:
    lengths = None

    def __init__(self, encoder: Encoder, fail_at: int | None = None) -> None:
        words = [" ".join("abcdefgh"[(row * 7 + i) % 8] for i in range(1 + row % 5)) for row in range(60)]
        self.tensors, self.fail_at, self.calls = encoder.prepare([(text,) for text in words]), fail_at, 0

    def batch(self, rows: Sequence[int]) -> Tensors:
        self.calls += 1
        if self.fail_at is not None and self.calls > self.fail_at:
            raise KeyboardInterrupt
        return {name: tensor[list(rows)] for name, tensor in self.tensors.items()}


def trainer(find: Find, folder: Path, fail_at: int | None = None) -> tuple[Trainer, AdaloraTuning, Encoder]:
    torch.manual_seed(0)
    encoder, tuning = bert(find), AdaloraTuning(rank=1, initial=3, learning_rate=1e-2)
    tuning.apply(encoder)
    target = Target(name="y", task="classification", levels=[0, 1], frequencies=[0.5, 0.5])
    fusion = FUSIONS.build("concat", {"dim": 8}, {"text": 16})
    model = FusionModel({"text": encoder}, fusion, HEADS.build("classification", {}, 8, target))
    answers, present = torch.arange(60) // 2 % 2, torch.ones(60, 1, dtype=torch.bool)
    made = Trainer(
        model,
        Batches({"text": Texts(encoder, fail_at)}, present, answers, np.arange(40)),
        Batches({"text": Texts(encoder)}, present, answers, np.arange(40, 60)),
        TrainingSettings(epochs=4, batch_size=8, patience=100, checkpoint_every=1, learning_rate=1e-2),
        make_accelerator(torch.device("cpu")),
        tunings=[(encoder, tuning)],
        checkpoints=Checkpoints(folder, "run"),
    )
    return made, tuning, encoder


# Before the first rank goes, while they go, and after the last has gone: 20 updates, the last 6 of them to settle.
@pytest.mark.parametrize("fail_at", [1, 9, 17])
def test_a_run_goes_on_as_if_it_had_never_stopped(fail_at: int, tiny_model: Find, tmp_path: Path) -> None:
    straight, _, whole = trainer(tiny_model, tmp_path / "straight")
    history = straight.run().history
    assert max(int((each["E"] != 0).sum()) for each in factors(whole).values()) > 0
    stopped, *_ = trainer(tiny_model, tmp_path / "stopped", fail_at)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again, _, encoder = trainer(tiny_model, tmp_path / "stopped")
    # In all that was measured on the way too, for the weights that are kept may be those of the first epoch.
    assert again.run(resume=True).history == history
    expected, found = straight.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    assert encoder is not whole


def test_what_is_saved_has_the_ranks_that_are_left(tiny_model: Find, tmp_path: Path) -> None:
    made, tuning, encoder = trainer(tiny_model, tmp_path)
    made.run()
    # Not those of the last allocation: the best weights may be older.
    with torch.no_grad():
        first: Tensor = next(p for name, p in encoder.named_parameters() if "lora_E" in name)
        first.copy_(torch.tensor([[0.5], [0.0], [0.25]]))
    (tmp_path / "adapter").mkdir()
    tuning.save(encoder, tmp_path / "adapter")
    second = bert(tiny_model)
    AdaloraTuning(rank=1, initial=3).restore(second, tmp_path / "adapter")
    left = {layer: int((each["E"] != 0).sum()) for layer, each in factors(encoder).items()}
    assert {layer: len(each["E"]) for layer, each in factors(second).items()} == left
    assert 2 in left.values()
    tensors = encoder.prepare(VALUES)
    torch.testing.assert_close(second.eval()(**tensors).pooled, encoder.eval()(**tensors).pooled)
    # It can be trained on, whatever is left.
    anew = AdaloraTuning(rank=1, initial=3)
    anew.begin(second, 4)
    for update in range(1, 5):
        torch.autograd.backward(second(**tensors).tokens.square().sin().sum())
        anew.updated(second, update)
        second.zero_grad(set_to_none=True)
    with pytest.raises(ArtifactError, match=r"does not fit the recipe's adalora"):
        AdaloraTuning(rank=1, initial=3, layers="attention").restore(bert(tiny_model), tmp_path / "adapter")
