"""Adversarial training: its formulas, its cost in passes, and that what comes out resists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import polyfuse as pf
from polyfuse.attacks import build_threat
from polyfuse.core.errors import PolyfuseError, RecipeError
from polyfuse.core.types import Batch, Features
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.data.schema import Column, Target
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.model import FusionModel
from polyfuse.training.adversarial import Adversary, adversarial_loss, cost_of_step
from polyfuse.training.checkpoints import Checkpoints
from polyfuse.training.settings import AdversarialSettings, Method

Find = Callable[[str], str]
METHODS: list[Method] = ["pgd", "fgsm_rs", "nfgsm", "free", "trades", "mart"]
LABELS = 3
COLUMN = Column(name="image", type="image", size=8)


def small_model(seed: int = 0) -> FusionModel:
    torch.manual_seed(seed)
    encoder = ConvnetEncoder([COLUMN], width=4, dropout=0.0)
    target = Target(name="y", task="classification", levels=list(range(LABELS)), frequencies=[1 / LABELS] * LABELS)
    head = HEADS.build("classification", {"dropout": 0.0}, 8, target)
    fusion = FUSIONS.build("concat", {"dim": 8, "dropout": 0.0}, {"image": encoder.dim})
    return FusionModel({"image": encoder}, fusion, head)


def small_batch(rows: int = 6) -> Batch:
    drawn = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (rows, 1, 3, 8, 8), generator=drawn) / 255
    inputs = {"image": {"pixels": pixels, "mask": torch.ones(rows, 1, dtype=torch.bool)}}
    return Batch(inputs, torch.ones(rows, 1, dtype=torch.bool), torch.arange(rows) % LABELS)


def adversary(method: Method, **options: Any) -> Adversary:
    model = small_model().train()
    settings = AdversarialSettings(method=method, ramp=0.0, **options)
    return Adversary(model, {"image": build_threat("linf:0.1", "image", [COLUMN])}, settings, 0)


def changed(by: Adversary, batch: Batch, number: int = 0) -> torch.Tensor:
    found = by.attacked(batch, number, 10)["image"]
    assert isinstance(found, dict)
    return found["pixels"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_on_is_harmful_and_the_model_is_left_as_it_was(method: Method) -> None:
    by, batch = adversary(method), small_batch()
    before = {name: value.clone() for name, value in by.model.state_dict().items()}
    clean = batch.inputs["image"]["pixels"]  # type: ignore[index]
    pixels = changed(by, batch)
    if method == "free":  # begins where it is, and climbs along the gradient of the step itself
        loss = adversarial_loss(
            by.model, batch.inputs, by.attacked(batch, 0, 10), batch.present, batch.target, by.settings
        )
        loss.backward()
        by.learned()
        by.model.zero_grad()
        pixels = changed(by, batch, 1)
    reach = 3.0 if method == "nfgsm" else 1.0
    assert float((pixels - clean).abs().max()) <= reach * 0.1 + 1e-6
    assert pixels.detach().equal(changed(by, batch, 1 if method == "free" else 0).detach())
    assert by.model.training
    assert all(parameter.grad is None for parameter in by.model.parameters())
    if method != "free":
        assert all(value.equal(before[name]) for name, value in by.model.state_dict().items())
    with torch.no_grad():
        by.model.eval()
        harm = by.problem(batch)
        at = {"image": pixels.detach().clamp(clean - 0.1, clean + 0.1).clamp(0, 1)}
        assert float(harm.goal.loss(harm.output(at)).mean()) > float(harm.goal.loss(harm.at_clean).mean())


def test_losses_against_their_definitions() -> None:
    model, batch = small_model().eval(), small_batch()
    other = {"image": {**batch.inputs["image"], "pixels": 1 - batch.inputs["image"]["pixels"]}}  # type: ignore[dict-item, index]
    with torch.no_grad():
        z, w = (model(x, batch.present).double() for x in (batch.inputs, other))
    p, q = (np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True) for x in (z, w))
    y, rows = np.arange(6) % LABELS, np.arange(6)
    cross = [-np.log(some[rows, y]) for some in (p, q)]
    apart = (p * np.log(p / q)).sum(1)
    rival = np.where(np.eye(LABELS)[y] == 1, 0, q).max(1)
    expected = {
        "trades": cross[0].mean() + 6 * apart.mean(),
        "mart": (cross[1] - np.log(1 - rival) + 5 * (1 - p[rows, y]) * apart).mean(),
        "pgd": cross[1].mean(),
    }
    for method, value in expected.items():
        settings = AdversarialSettings(method=method)  # type: ignore[arg-type]
        found = adversarial_loss(model, batch.inputs, other, batch.present, batch.target, settings)
        assert float(found) == pytest.approx(value, rel=1e-4)
    half = AdversarialSettings(method="pgd", weight=0.25)
    found = adversarial_loss(model, batch.inputs, other, batch.present, batch.target, half)
    assert float(found) == pytest.approx(0.75 * cross[0].mean() + 0.25 * cross[1].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("method", "forwards", "backwards"),
    [("pgd", 6, 6), ("fgsm_rs", 2, 2), ("nfgsm", 2, 2), ("free", 1, 1), ("trades", 8, 7), ("mart", 7, 7)],
)
def test_a_step_costs_the_passes_that_the_papers_say(
    method: Method, forwards: int, backwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    by, batch = adversary(method, steps=5), small_batch()
    counted = {"forward": 0, "backward": 0}
    first = next(by.model.encoder("image").parameters())

    def forward(*_: Any) -> None:
        counted["forward"] += 1

    by.model.encoder("image").register_forward_hook(forward)
    gradient = torch.autograd.grad

    def backward(*arguments: Any, **options: Any) -> Any:
        counted["backward"] += 1
        return gradient(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", backward)
    attacked = by.attacked(batch, 0, 10)
    loss = adversarial_loss(by.model, batch.inputs, attacked, batch.present, batch.target, by.settings)
    loss.backward()
    counted["backward"] += 2 if method in ("trades", "mart") else 1  # of each forward of the step itself
    assert first.grad is not None
    assert counted == {"forward": forwards, "backward": backwards}


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_weights_go_where_the_loss_is_higher_and_come_back(method: Method) -> None:
    by, batch = adversary(method, awp=0.02), small_batch()
    attacked = by.attacked(batch, 0, 10)
    model = by.model

    def loss() -> torch.Tensor:
        return adversarial_loss(model, batch.inputs, attacked, batch.present, batch.target, by.settings)

    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    low = loss()
    low.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    with by.worsened(batch, attacked, 0, 10):
        assert float(loss()) > float(low)
        moved = {name: weight.detach() - before[name] for name, weight in model.named_parameters()}
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name])
        if weight.ndim > 1:
            gradient = gradients[name]
            assert gradient is not None
            expected = 0.02 * before[name].norm() * gradient / gradient.norm()
            torch.testing.assert_close(moved[name], expected, rtol=1e-3, atol=1e-6)
        else:
            assert not moved[name].any()
    with by.worsened(batch, attacked, 0, 10):
        pass
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_the_gradient_of_an_update_is_that_of_worse_weights(tmp_path: Path) -> None:
    table = pictures(tmp_path, 40)
    weights = []
    for awp in (0.0, 0.05, 0.05):
        predictor = fitted(table, 2, adversarial={"budgets": {"image": "linf:0.05"}, "awp": awp})
        weights.append(torch.cat([weight.flatten() for weight in predictor.model.parameters()]))
    assert not torch.allclose(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_of_a_step_changes_nothing_and_counts_its_parts(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    by, batch = adversary(method, steps=5, awp=0.01), small_batch()
    before = {name: value.clone() for name, value in by.model.state_dict().items()}
    passes = 0

    def forward(*_: Any) -> None:
        nonlocal passes
        passes += 1

    by.model.encoder("image").register_forward_hook(forward)
    monkeypatch.setattr("polyfuse.training.adversarial._now", lambda _: passes)
    # On a clock that counts passes forward, and one more for the weights that are made worse.
    expected = {"pgd": 6, "fgsm_rs": 2, "nfgsm": 2, "free": 1, "trades": 8, "mart": 7}[method]
    assert cost_of_step(by, batch) == expected + (2 if method in ("trades", "mart") else 1)
    assert by.model.training
    assert all(torch.equal(value, before[name]) for name, value in by.model.state_dict().items())
    assert all(weight.grad is None for weight in by.model.parameters())
    assert not by._leaves


def test_the_radius_grows_from_nothing() -> None:
    by, batch = adversary("pgd"), small_batch()
    by.settings = by.settings.model_copy(update={"ramp": 0.5})
    clean = batch.inputs["image"]["pixels"]  # type: ignore[index]
    reach = [float((changed(by, batch, number) - clean).abs().max()) for number in range(10)]
    assert reach == pytest.approx([0.02, 0.04, 0.06, 0.08, *[0.1] * 6], abs=1e-6)


def test_a_collapse_turns_one_step_into_several() -> None:
    by = adversary("nfgsm")
    assert not by.collapsed(0.5, 0.6)
    assert by.collapsed(0.1, 0.6)
    by.take_several_steps()
    assert by.settings.method == "pgd"
    assert not by.collapsed(0.1, 0.6)
    assert not adversary("pgd").collapsed(0.0, 1.0)


def test_a_collapse_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    found, save = Adversary._found, Checkpoints.save
    saved = 0

    def watched(self: Adversary, *given: Any) -> Any:
        seen.append(self.settings.method)
        return found(self, *given)

    def killed(self: Checkpoints, checkpoint: Any) -> None:
        nonlocal saved
        save(self, checkpoint)
        saved += 1
        if saved == 3:
            raise RuntimeError("killed")

    monkeypatch.setattr(Adversary, "_found", watched)
    monkeypatch.setattr(Adversary, "collapsed", lambda self, *_: self.settings.method == "nfgsm")
    monkeypatch.setattr(Checkpoints, "save", killed)
    table, settings = pictures(tmp_path, 60), {"robust": True, "training": {"epochs": 5, "trackers": []}}
    with pytest.raises(RuntimeError, match="killed"):
        pf.Predictor("y", **settings).fit(table, out=tmp_path / "run", progress=False)
    assert set(seen) == {"nfgsm", "pgd"}
    seen.clear()
    monkeypatch.setattr(Checkpoints, "save", save)
    pf.Predictor("y", **settings).fit(table, out=tmp_path / "run", resume=True, progress=False)
    assert set(seen) == {"pgd"}


def pictures(folder: Path, rows: int = 240) -> pd.DataFrame:
    """Write pictures whose side tells the label well, and of which faint stripes tell it for sure."""
    drawn = np.random.default_rng(0)
    made = []
    for i in range(rows):
        label = i % 2
        grey = drawn.normal(128, 12, (8, 8))
        side = label if drawn.random() < 0.93 else 1 - label
        grey[:, 4 * side : 4 * side + 4] += 60
        grey[::2] += 10 if label else -10
        pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append({"image": str(folder / f"{i}.png"), "y": "ab"[label]})
    return pd.DataFrame(made)


def fitted(table: pd.DataFrame, epochs: int = 10, **settings: Any) -> pf.Predictor:
    training = {"epochs": epochs, "batch_size": 32, "modality_dropout": 0.0, "learning_rate": 3e-3, "trackers": []}
    encoder = {"name": "convnet", "width": 4, "dropout": 0.0}
    modalities = {"image": {"columns": ["image"], "encoder": encoder}}
    chosen: dict[str, Any] = {"fusion": "concat", "modalities": modalities, "training": training, **settings}
    return pf.Predictor("y", **chosen).fit(table, progress=False)


def test_what_is_trained_so_resists_and_what_is_not_does_not(tmp_path: Path) -> None:
    table = pictures(tmp_path)
    train, test = table[:180], table[180:]
    call: dict[str, Any] = {"budgets": {"image": "linf:0.08"}, "attack": "pgd", "progress": False}
    plain = fitted(train)
    assert plain.evaluate(test, progress=False)["accuracy"] > 0.9
    worst = plain.attack(test, **call).worst.value
    found = {}
    for method in METHODS:
        epochs = 40 if method == "free" else 10
        adversarial = {"method": method, "steps": 4, "budgets": {"image": "linf:0.08"}}
        predictor = fitted(train, epochs, adversarial=adversarial)
        found[method] = predictor.attack(test, **call).worst.value
        history = predictor.metrics["training"]["history"]
        assert len(history) == 10
        assert all("robust_accuracy" in line and "validation_accuracy" in line for line in history)
        assert predictor.recipe.adversarial is not None
        assert predictor.metrics["training"]["cost_of_a_step"] > 0
    assert worst < 0.5
    assert min(found.values()) > worst + 0.25, found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adversarial": {"method": "pgd", "weight": 3}}, "a share, from 0 to 1"),
        ({"adversarial": {"method": "fgsm"}}, "nfgsm"),
        ({"adversarial": {"budgets": {"picture": "linf"}}}, "picture"),
        ({"adversarial": {"budgets": {"image": "snr"}}}, "changes audio"),
        ({"adversarial": {}, "fusion": "boosting"}, "not trained by gradients"),
        ({"robust": True, "training": {"mixup": 0.2}}, "mixup"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_told_why(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    table = pictures(tmp_path, 40)
    with pytest.raises((RecipeError, PolyfuseError), match=said):
        fitted(table, **settings)


def test_an_encoder_at_rest_is_not_trained_against_anybody(tmp_path: Path, tiny_model: Find) -> None:
    table = pictures(tmp_path, 40)
    encoder = {"name": "image_transformer", "checkpoint": str(tiny_model("vit"))}
    settings: dict[str, Any] = {"modalities": {"image": {"columns": ["image"], "encoder": encoder}}}
    with pytest.raises(RecipeError, match="none of the modalities"):
        fitted(table, robust=True, **settings)
    with pytest.raises(RecipeError, match="rests"):
        fitted(table, adversarial={"budgets": {"image": "linf"}}, **settings)


def texts(rows: int = 160) -> pd.DataFrame:
    """Return texts that tell the label by one word, and a number that tells it by half."""
    drawn = np.random.default_rng(0)
    label = np.arange(rows) % 2
    words = drawn.choice(["one", "two", "a"], (rows, 4))
    text = [f"{' '.join(some)} {'cat' if answer else 'dog'}" for some, answer in zip(words, label, strict=True)]
    return pd.DataFrame({"text": text, "size": label + drawn.normal(0, 1, rows), "y": label})


def of_texts(tiny_model: Find, **settings: Any) -> pf.Predictor:
    encoder = {"name": "transformer", "checkpoint": str(tiny_model("bert"))}
    modalities = {"text": {"columns": ["text"], "encoder": encoder}, "table": {"columns": ["size"]}}
    training = {"epochs": 12, "batch_size": 32, "learning_rate": 3e-3, "modality_dropout": 0.0, "trackers": []}
    chosen: dict[str, Any] = {"fusion": "concat", "modalities": modalities, "training": training, **settings}
    return pf.Predictor("y", **chosen).fit(texts(), progress=False)


def test_features_of_an_encoder_at_rest_are_shifted(tiny_model: Find) -> None:
    share = 0.4
    plain = of_texts(tiny_model)
    firm = of_texts(tiny_model, adversarial={"method": "pgd", "features": {"text": share}, "budgets": {}})
    history = firm.metrics["training"]["history"]
    # It is not called robust: no input does what is done there.
    assert all("feature_robust_accuracy" in line and "robust_accuracy" not in line for line in history)
    settings = AdversarialSettings(method="pgd", features={"text": share}, ramp=0.0)
    found = []
    for predictor in (plain, firm):
        model = predictor.model
        assert isinstance(model, FusionModel)
        rows = read_rows(read_table(texts(), media_root=None), predictor.schema, training=False, answers=True)
        values = {name: [rows.value(name, row) for row in range(len(rows))] for name in model.modalities}
        with torch.no_grad():
            inputs: dict[str, Any] = {
                "text": model.encode_one("text", model.encoder("text").prepare(values["text"]), rows.present),
                "table": model.encoder("table").prepare(values["table"]),
            }
        present = rows.present.clone()
        present[0, 0] = False
        batch = Batch(inputs, present, model.head.encode(rows.answers))
        changed = Adversary(model, {}, settings, 0).watched(batch)
        before, after = inputs["text"], changed["text"]
        assert isinstance(after, Features)
        moved = after.pooled - before.pooled
        assert bool((moved.norm(dim=1) <= share * before.pooled.norm(dim=1) * 1.0001).all())
        assert not moved[0].any()
        torch.testing.assert_close(after.tokens - before.tokens, moved[:, None].expand_as(before.tokens))
        assert changed["table"] is inputs["table"]
        with torch.no_grad():
            found.append(
                [(model(some, present).argmax(1) == batch.target).float().mean() for some in (inputs, changed)]
            )
    (clean, worst), (_, resisting) = found
    assert clean > 0.9
    assert worst < 0.6
    assert resisting > worst + 0.15


@pytest.mark.parametrize(
    ("features", "said"),
    [({"txt": 0.1}, "no modality 'txt'"), ({"table": 0.1}, "let it rest"), ({"text": 0.0}, "greater than 0")],
)
def test_features_that_cannot_be_shifted(tiny_model: Find, features: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        of_texts(tiny_model, adversarial={"features": features})


def test_robust_takes_concat_and_goes_through_the_recipe(tmp_path: Path) -> None:
    table = pictures(tmp_path, 60)
    predictor = pf.Predictor("y", robust=True, training={"epochs": 2, "trackers": []}).fit(table, progress=False)
    recipe = predictor.recipe
    assert recipe.fusion.name == "concat"
    # What the adversary was allowed stands there, too.
    linf = build_threat("linf", "image", [COLUMN])
    assert recipe.adversarial == AdversarialSettings(budgets={"image": {"name": "linf", **linf.options()}})
    assert build_threat(recipe.adversarial.budgets["image"], "image", [COLUMN]).options() == linf.options()
    assert pf.Recipe.model_validate(recipe.as_data()).adversarial == recipe.adversarial
    predictor.save(tmp_path / "run")
    assert pf.load(tmp_path / "run").recipe.adversarial == recipe.adversarial


def text_batch(predictor: pf.Predictor) -> tuple[FusionModel, Batch]:
    """Return the model, and rows of which the first has no text."""
    model = predictor.model
    assert isinstance(model, FusionModel)
    rows = read_rows(read_table(texts(24), media_root=None), predictor.schema, training=False, answers=True)
    values = {name: [rows.value(name, row) for row in range(len(rows))] for name in model.modalities}
    inputs = {name: model.encoder(name).prepare(values[name]) for name in model.modalities}
    present = rows.present.clone()
    present[0, model.modalities.index("text")] = False
    return model, Batch(inputs, present, model.head.encode(rows.answers))


@pytest.fixture(scope="module")
def tuned(tiny_model: Find) -> pf.Predictor:
    training = {"epochs": 4, "learning_rate": 3e-3, "precision": "float32", "trackers": []}
    return of_texts(tiny_model, tuning={"text": "full"}, training=training)


def shift_of(found: Any) -> torch.Tensor:
    shift = found["text"]["shift"]
    assert isinstance(shift, torch.Tensor)
    return shift


def test_freelb_against_its_definition(tuned: pf.Predictor) -> None:
    """Zhu et al. 2020, algorithm 1: g = 1/K Σ_t ∇_θ L(x + δ_t), δ_{t+1} = Π(δ_t + α ∇_δ L / ‖∇_δ L‖)."""
    model, batch = text_batch(tuned)
    steps, share, size = 3, 0.2, 0.4
    settings = AdversarialSettings(method="freelb", steps=steps, size=size, embeddings={"text": share}, ramp=0.0)
    by = Adversary(model.eval(), {}, settings, 0)
    assert batch.target is not None
    words = model.encoder("text").backbone.get_input_embeddings()  # type: ignore[union-attr, operator]
    tensors = batch.inputs["text"]
    assert isinstance(tensors, dict)
    there = (tensors["mask"] & batch.present[:, model.modalities.index("text"), None])[..., None]
    radius = share * (words(tensors["ids"]).detach() * there).flatten(1).norm(dim=1)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    model.zero_grad()
    shifts = []
    for number in range(steps):
        attacked = by.attacked(batch, 5 * steps + number, 100)
        shifts.append(shift_of(attacked).detach().clone())
        (model.loss(attacked, batch.present, batch.target) / steps).backward()
        by.learned()
    found = [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in weights]
    expected = [torch.zeros_like(weight) for weight in weights]
    delta = shifts[0]
    for given in shifts:
        assert not (given * ~there).any()
        torch.testing.assert_close(given, delta, atol=1e-6, rtol=1e-4)
        leaf = given.clone().requires_grad_()
        loss = model.loss({**batch.inputs, "text": {**tensors, "shift": leaf}}, batch.present, batch.target)
        *gradients, rise = torch.autograd.grad(loss, [*weights, leaf], allow_unused=True)
        expected = [
            some + (0 if gradient is None else gradient / steps)
            for some, gradient in zip(expected, gradients, strict=True)
        ]
        up = rise / rise.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]
        delta = (given + (size * radius)[:, None, None] * up) * there
        delta = delta * (radius / delta.flatten(1).norm(dim=1).clamp(min=1e-12)).clamp(max=1)[:, None, None]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    assert float(shifts[-1].flatten(1).norm(dim=1)[1:].min()) > 0
    # Another batch begins anew.
    assert not torch.equal(shift_of(by.attacked(batch, 6 * steps, 100)), shifts[-1])
    model.zero_grad()


def test_vat_goes_where_answers_change_most(tuned: pf.Predictor) -> None:
    """Miyato et al. 2017: near the clean input the divergence is ½ δᵀHδ, which rises most along the power of H."""
    model, batch = text_batch(tuned)
    settings = AdversarialSettings(method="vat", embeddings={"text": 0.1}, ramp=0.0)
    by = Adversary(model.eval(), {}, settings, 0)
    shift = shift_of(by.attacked(batch, 0, 10))
    region = by.problem(batch).regions["text"]
    torch.testing.assert_close(shift.flatten(1).norm(dim=1), region.radius, atol=1e-5, rtol=1e-3)  # type: ignore[attr-defined]

    def apart(x: torch.Tensor) -> float:
        with torch.no_grad():
            clean, there = (
                model(inputs, batch.present).log_softmax(1)
                for inputs in (batch.inputs, {**batch.inputs, "text": {**batch.inputs["text"], "shift": x}})  # type: ignore[dict-item]
            )
        return float((clean.exp() * (clean - there)).sum(1).mean())

    others = []
    for seed in range(5):
        drawn = region.start(torch.Generator().manual_seed(seed))
        length = drawn.flatten(1).norm(dim=1).clamp(min=1e-12)
        others.append(apart(drawn * (region.radius / length)[:, None, None]))  # type: ignore[attr-defined]
    assert apart(torch.zeros_like(shift)) == pytest.approx(0, abs=1e-6)
    assert apart(shift) > 3 * max(others)
    assert batch.target is not None
    with torch.no_grad():
        attacked = by.attacked(batch, 0, 10)
        total = adversarial_loss(model, batch.inputs, attacked, batch.present, batch.target, by.settings)
        clean = model.head.loss(model(batch.inputs, batch.present), batch.target)
    assert float(total - clean) == pytest.approx(apart(shift), rel=1e-3)


@pytest.mark.parametrize(("method", "passes"), [("freelb", 5), ("vat", 4)])
def test_a_step_in_embeddings_costs_its_passes(
    tuned: pf.Predictor, method: Method, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = text_batch(tuned)
    settings = AdversarialSettings(method=method, steps=5, embeddings={"text": 0.1}, ramp=0.0)
    gone = 0

    def forward(*_: Any) -> None:
        nonlocal gone
        gone += 1

    hook = model.encoder("text").register_forward_hook(forward)
    monkeypatch.setattr("polyfuse.training.adversarial._now", lambda _: gone)
    # Of vat: where it is, where it changes most, and both in the loss; of a plain step one.
    assert cost_of_step(Adversary(model, {}, settings, 0), batch) == passes
    hook.remove()


def test_a_shift_of_nothing_changes_nothing(tuned: pf.Predictor) -> None:
    model, batch = text_batch(tuned)
    encoder, tensors = model.encoder("text").eval(), batch.inputs["text"]
    assert isinstance(tensors, dict)
    embedded = encoder.embedded(tensors)
    assert embedded is not None
    with torch.no_grad():
        plain = encoder(**tensors)
        torch.testing.assert_close(encoder(**tensors, shift=torch.zeros_like(embedded)).tokens, plain.tokens)
        # What is added to one token's embedding is as if the token had another: that of the next row's, here.
        moved = {**tensors, "ids": tensors["ids"].clone()}
        moved["ids"][2, 1] = tensors["ids"][3, 2]
        other = encoder.embedded(moved)
        assert other is not None
        torch.testing.assert_close(encoder(**tensors, shift=other - embedded).tokens, encoder(**moved).tokens)
        assert torch.equal(encoder(**tensors).tokens, plain.tokens)  # and nothing stays behind


@pytest.mark.parametrize("method", ["freelb", "vat"])
def test_embeddings_are_shifted_in_training(tiny_model: Find, method: Method) -> None:
    training = {"epochs": 6, "batch_size": 32, "learning_rate": 3e-3, "accumulate": 2, "trackers": []}
    predictor = of_texts(tiny_model, tuning={"text": "lora"}, training=training, adversarial={"method": method})
    told = predictor.metrics["training"]
    assert predictor.recipe.adversarial is not None
    assert predictor.recipe.adversarial.steps == (3 if method == "freelb" else 7)
    assert predictor.recipe.adversarial.embeddings == {"text": 0.05}
    # It is a regulariser: weights are kept by clean rows, and nothing is said of robustness.
    assert not any("robust" in name for line in told["history"] for name in line)
    assert len(told["history"]) <= 6
    assert predictor.evaluate(texts(60), progress=False)["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("adversarial", "tuning", "said"),
    [
        ({"method": "freelb"}, "frozen", "no text whose encoder is trained"),
        ({"method": "freelb"}, "last", "no text whose encoder is trained"),
        ({"method": "freelb", "embeddings": {"text": 0.1}}, "frozen", "rests"),
        ({"method": "freelb", "embeddings": {"table": 0.1}}, "full", "'table' is no text"),
        ({"method": "vat", "embeddings": {"txt": 0.1}}, "full", "did you mean 'text'"),
        ({"method": "vat", "budgets": {"text": "characters"}}, "full", "shifts embeddings alone"),
        ({"method": "freelb", "features": {"text": 0.1}}, "full", "shifts embeddings alone"),
        ({"method": "pgd", "embeddings": {"text": 0.1}}, "full", "shifts none"),
    ],
)
def test_embeddings_that_cannot_be_shifted(
    tiny_model: Find, adversarial: dict[str, Any], tuning: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        of_texts(tiny_model, adversarial=adversarial, tuning={"text": tuning})


def test_vat_is_of_a_classification(tiny_model: Find) -> None:
    with pytest.raises(RecipeError, match="take freelb"):
        pf.Predictor("size", adversarial={"method": "vat"}, fusion="concat").fit(texts(), progress=False)
