"""Randomised smoothing: the bound, models whose smoothed answer is known, attacks within the radius, and training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binom, norm
from torch import Tensor

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.attacks.goals import Wrong
from polyfuse.attacks.gradient import PGDAttack
from polyfuse.attacks.noise import noisy
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.regions import Ball
from polyfuse.attacks.threat import Seam
from polyfuse.core.errors import InputError
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.robustness import Smoothing, certify_model
from polyfuse.robustness.scene import Scene
from polyfuse.robustness.smoothing import certified, counted, lower_bound
from polyfuse.training.checkpoints import Checkpoints

SIGMA = 0.25


def seam(clean: Tensor, free: Tensor | None = None) -> Seam:
    made: Any = Seam
    return made("x", clean, torch.ones_like(clean, dtype=torch.bool) if free is None else free, 0.0, 1.0, None, [])


@pytest.mark.parametrize(("hits", "draws"), [(1, 10), (60, 100), (993, 1000), (1000, 1000)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_bound_is_where_as_many_hits_would_be_as_rare_as_alpha(hits: int, draws: int, alpha: float) -> None:
    p = lower_bound(hits, draws, alpha)
    tail = sum(math.comb(draws, k) * p**k * (1 - p) ** (draws - k) for k in range(hits, draws + 1))
    assert tail == pytest.approx(alpha, rel=1e-6)
    assert lower_bound(0, draws, alpha) == 0


@pytest.mark.parametrize("noise", [{"a": 0.5}, {"a": 0.3, "b": 2.0}])
def test_of_a_linear_model_radii_are_close_to_the_true_ones_and_hardly_ever_beyond(noise: dict[str, float]) -> None:
    drawn = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(6, generator=drawn) for name in noise}
    how = Smoothing(noise, samples=2000, selection=50, alpha=0.05)
    # The margin at x + ε is normal around that at x, so the smoothed answer is the model's own.
    scale = math.sqrt(sum((noise[name] * float(w.norm())) ** 2 for name, w in weights.items()))
    true, found, beyond = [], [], 0
    for row in range(300):
        x = {name: torch.randn(1, 6, generator=drawn) * 0.5 * noise[name] for name in noise}

        def outputs(at: Mapping[str, Tensor]) -> Tensor:
            margin = sum(at[name] @ weights[name] for name in noise)
            return torch.stack([torch.zeros_like(margin), margin], 1)  # type: ignore[arg-type]

        margin = float(outputs(x)[0, 1])
        random = torch.Generator().manual_seed(row)
        seams = {name: seam(value) for name, value in x.items()}
        at = certified(lambda draws, s=seams, o=outputs, r=random: counted(o, s, noise, draws, r), how)  # type: ignore[misc]
        if at.label is not None:
            beyond += at.label != (margin > 0) or at.radius > abs(margin) / scale
            for name, weight in weights.items():  # each alone, in its own unit
                alone = abs(margin) / float(weight.norm())
                assert noise[name] * abs(margin) / scale <= alone + 1e-6
        true.append(abs(margin) / scale)
        found.append(at.radius)
    assert beyond <= binom.ppf(0.999, 300, how.alpha)
    known, seen = np.array(true), np.array(found)
    middle = (known > 0.4) & (known < 1.5)
    assert middle.sum() > 50
    assert np.median(seen[middle] / known[middle]) > 0.9
    assert (seen[known < 0.01] == 0).all()  # abstains near the border


def test_at_the_border_it_abstains() -> None:
    how = Smoothing({"a": 1.0}, samples=500, alpha=0.01)
    random = torch.Generator().manual_seed(0)
    x = {"a": seam(torch.zeros(1, 3))}
    rows = [
        certified(lambda draws: counted(lambda at: at["a"][:, :2], x, how.noise, draws, random), how)
        for _ in range(100)
    ]
    assert sum(row.label is not None for row in rows) <= binom.ppf(0.999, 100, how.alpha)
    assert all(row.radius == 0 for row in rows if row.label is None)


def test_farthest_is_where_all_draws_agree() -> None:
    how = Smoothing({"a": 1.0}, samples=200)
    sure = certified(lambda draws: np.array([0, draws]), how)
    assert sure.label == 1
    assert sure.radius == pytest.approx(how.farthest)
    assert how.farthest == pytest.approx(norm.ppf(0.001 ** (1 / 200)))


def test_noise_is_not_cut_off_and_leaves_padding() -> None:
    clean = torch.full((4, 5000), 0.9)
    free = torch.ones_like(clean, dtype=torch.bool)
    free[:, 4000:] = False
    random = torch.Generator().manual_seed(0)
    moved = noisy(seam(clean, free), 0.3, random) - clean
    assert bool((moved[:, 4000:] == 0).all())
    assert float(moved[:, :4000].std()) == pytest.approx(0.3, rel=0.02)
    assert float(moved[:, :4000].mean()) == pytest.approx(0, abs=0.01)
    assert noisy(seam(clean[:1], free[:1]), 0.3, random, 7).shape == (7, 5000)


def write(folder: Path, rows: int = 200) -> pd.DataFrame:
    """Write pictures whose side tells the label, with a number that tells nothing; some pictures are missing."""
    drawn = np.random.default_rng(0)
    made = []
    for i in range(rows):
        label = i % 2
        grey = drawn.normal(100, 10, (8, 8))
        grey[:, 4 * label : 4 * label + 4] += 60
        pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append({"photo": f"{i}.png" if i % 25 else None, "size": drawn.normal(), "y": "ab"[label]})
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with train.csv, test.csv and a model in `run` that was trained on noise."""
    folder = tmp_path_factory.mktemp("smoothed")
    table = write(folder)
    table[:160].to_csv(folder / "train.csv", index=False)
    table[160:].to_csv(folder / "test.csv", index=False)
    training = {"epochs": 10, "trackers": [], "noise": {"image": SIGMA}}
    pf.Predictor("y", training=training).fit(folder / "train.csv", out=folder / "run", progress=False)
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> pf.Predictor:
    return pf.load(folder / "run")


def test_a_report_says_what_holds(predictor: pf.Predictor, folder: Path) -> None:
    report = predictor.certify(folder / "test.csv", {"image": SIGMA}, samples=300, progress=False)
    frame, how = report.frame, report.smoothing
    assert report.unchanged == ["size"]
    assert report.abstained == frame["answer"].isna().mean()
    for radius, at in report.curve.items():
        right = (frame["answer"] == frame["truth"]) & (frame["radius"] >= radius)
        assert at.value == right.mean()
        low, high = (binom.sf(right.sum() - 1, 40, at.low), binom.cdf(right.sum(), 40, at.high))
        assert at.low == 0 or low == pytest.approx(0.025)
        assert at.high == 1 or high == pytest.approx(0.025)
    answered = frame[frame["answer"].notna()]
    np.testing.assert_allclose(answered["radius"], norm.ppf(answered["bound"]))
    np.testing.assert_allclose(frame["radius:image"], SIGMA * frame["radius"])
    assert frame["radius"].max() <= how.farthest + 1e-9
    assert report.smoothed.value > 0.85
    assert report.curve[1.0].value > 0.6
    told = str(report)
    for part in ("σ = 0.25", "pixels in [0, 1]", "100 draws", "300 others", "α = 0.001", "size stay", "abstained"):
        assert part in told
    document = json.loads(report.to_json())
    assert document["smoothing"]["noise"] == {"image": SIGMA}
    assert len(document["frame"]) == 40
    assert document["smoothed"]["value"] == report.smoothed.value


def test_the_same_seed_gives_the_same_and_rows_do_not_depend_on_each_other(
    predictor: pf.Predictor, folder: Path
) -> None:
    rows = read_rows(read_table(folder / "test.csv", media_root=None), predictor.schema, training=False, answers=True)
    how = Smoothing({"image": 1.0, "table": 0.5}, samples=150)

    def frame(some: list[int], seed: int = 0) -> pd.DataFrame:
        report = certify_model(predictor.model, rows.subset(some), torch.device("cpu"), how, seed=seed)
        assert report.unchanged == []
        return report.frame

    whole = frame([1, 2, 3])
    pd.testing.assert_frame_equal(whole, frame([1, 2, 3]))
    pd.testing.assert_frame_equal(whole.iloc[1:2], frame([2]))
    assert not whole.equals(frame([1, 2, 3], seed=1))


def test_no_attack_within_the_radius_turns_the_smoothed_answer(predictor: pf.Predictor, folder: Path) -> None:
    rows = read_rows(read_table(folder / "test.csv", media_root=None), predictor.schema, training=False, answers=True)
    how = Smoothing({"image": SIGMA}, samples=400)
    report = certify_model(predictor.model, rows.subset(range(1, 7)), torch.device("cpu"), how)
    turned = 0
    for row, radius in enumerate(report.frame["radius:image"], 1):
        scene = Scene.of(predictor.model, rows.subset([row]), ["image"], torch.device("cpu"))
        x, random = scene.seam("image"), torch.Generator().manual_seed(row)

        def smoothed(
            at: Mapping[str, Tensor], numbers: Tensor, x: Any = x, random: Any = random, scene: Any = scene
        ) -> Tensor:
            noise = SIGMA * torch.randn(64, *x.clean.shape[1:], generator=random)
            return (
                scene.outputs({"image": at["image"] + noise}, numbers.repeat(64)).softmax(1).mean(0, keepdim=True).log()
            )

        def vote(at: Tensor, x: Any = x, scene: Any = scene, random: Any = random) -> int:
            def of(noisy: Mapping[str, Tensor]) -> Tensor:
                return scene.outputs(noisy, torch.zeros(len(noisy["image"]), dtype=torch.long))

            return int(counted(of, {"image": seam(at, x.free)}, how.noise, 1000, random).argmax())

        answer = vote(x.clean)
        assert radius > 0
        for factor in (0.99, 20.0):
            # No bounds: the certificate knows none either.
            bounds = {"low": torch.tensor(-math.inf), "high": torch.tensor(math.inf), "levels": 0}
            ball = Ball(x.clean, x.free, **bounds, radius=torch.tensor([factor * radius]).float())
            problem = Problem(
                smoothed, {"image": ball}, Wrong(torch.tensor([answer])), torch.zeros(1, dtype=torch.long)
            )
            found = PGDAttack(steps=10).climb(problem, problem.clean)["image"]
            assert float((found - x.clean).norm()) <= factor * radius * 1.001
            if factor < 1:
                assert vote(found) == answer
            turned += vote(found) != answer
    assert turned >= 4  # far outside the same attack does turn it


def test_training_sees_the_noise_and_validation_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    forward = ConvnetEncoder.forward

    def watched(self: ConvnetEncoder, pixels: Tensor, mask: Tensor) -> Any:
        seen[self.training].append(pixels.detach().flatten())
        return forward(self, pixels, mask)

    monkeypatch.setattr(ConvnetEncoder, "forward", watched)
    training = {"epochs": 2, "trackers": [], "noise": {"image": SIGMA}}
    predictor = pf.Predictor("y", training=training).fit(folder / "train.csv", progress=False)
    assert predictor.recipe.fusion.name == "concat"
    trained, measured = (torch.cat(seen[training]) for training in (True, False))
    assert float(((measured * 255).round() / 255 - measured).abs().max()) < 1e-6
    assert 0 <= float(measured.min()) <= float(measured.max()) <= 1
    # The variance of what is seen is that of the pictures and that of the noise.
    assert float(trained.var()) == pytest.approx(float(measured.var()) + SIGMA**2, rel=0.1)


def test_a_resumed_run_sees_the_same_noise(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"training": {"epochs": 3, "trackers": [], "noise": {"image": SIGMA, "table": 0.1}}}
    whole = pf.Predictor("y", **settings).fit(folder / "train.csv", progress=False)
    save = Checkpoints.save

    def killed(self: Checkpoints, checkpoint: Any) -> None:
        save(self, checkpoint)
        raise RuntimeError("killed")

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(RuntimeError, match="killed"):
        pf.Predictor("y", **settings).fit(folder / "train.csv", out=tmp_path / "run", progress=False)
    monkeypatch.setattr(Checkpoints, "save", save)
    resumed = pf.Predictor("y", **settings).fit(folder / "train.csv", out=tmp_path / "run", resume=True, progress=False)
    for name, value in whole.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"noise": {}}, "no noise given"),
        ({"noise": {"imag": 0.1}}, "no modality 'imag'.*image"),
        ({"noise": {"image": 0.0}}, "finite number above 0"),
        ({"noise": {"image": math.inf}}, "finite number above 0"),
        ({"noise": {"image": 0.1}, "samples": 9}, "at least 10"),
        ({"noise": {"image": 0.1}, "selection": 0}, "1 draw or more"),
        ({"noise": {"image": 0.1}, "alpha": 1.0}, "between 0 and 1"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(
    predictor: pf.Predictor, folder: Path, call: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        predictor.certify(folder / "test.csv", progress=False, **call)


def test_what_cannot_be_smoothed(tmp_path: Path) -> None:
    table = pd.DataFrame({"kind": list("abcd") * 20, "x": np.arange(80.0), "y": np.arange(80) % 7 / 3})
    settings: dict[str, Any] = {"training": {"epochs": 1, "trackers": []}, "fusion": "concat"}
    modalities = {"kinds": {"columns": ["kind"]}, "numbers": {"columns": ["x"]}}
    regression = pf.Predictor("y", task="regression", **settings).fit(table, progress=False)
    with pytest.raises(InputError, match="answers regression"):
        regression.certify(table, {"table": 0.1}, progress=False)
    table["y"] = table["x"] > 40
    fitted = pf.Predictor("y", modalities=modalities, **settings).fit(table, progress=False)
    assert fitted.certify(table, {"numbers": 0.1}, samples=20, rows=4, progress=False).unchanged == ["kind"]
    with pytest.raises(InputError, match="'kinds' has no continuous input"):
        fitted.certify(table, {"kinds": 0.1}, progress=False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training": {"noise": {"imag": 0.1}}}, "no modality 'imag'"),
        ({"training": {"noise": {"image": -1}}}, "greater than 0"),
        ({"training": {"noise": {"image": "much"}}}, "valid number"),
        ({"training": {"noise": {"image": 0.1}}, "fusion": "boosting"}, "not trained by gradients"),
        ({"training": {"noise": {"image": 0.1}}, "robust": True}, "training.noise.*adversarial"),
    ],
)
def test_a_recipe_whose_noise_cannot_be_is_told_why(folder: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pf.Predictor("y", **settings).fit(folder / "train.csv", progress=False)


def test_an_encoder_at_rest_sees_no_noise(folder: Path, tiny_model: Callable[[str], str]) -> None:
    encoder = {"name": "image_transformer", "checkpoint": tiny_model("vit")}
    modalities = {"image": {"columns": ["photo"], "encoder": encoder}}
    settings: dict[str, Any] = {"modalities": modalities, "training": {"noise": {"image": 0.1}}}
    with pytest.raises(InputError, match=r"training.noise: the encoder of 'image' rests"):
        pf.Predictor("y", **settings).fit(folder / "train.csv", progress=False)


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    call = ["certify", folder / "run", folder / "test.csv", "--rows", "5", "--samples", "100"]
    report = json.loads(polyfuse(*call, "--noise", f"image={SIGMA}", "--json", cwd=tmp_path)[0])
    assert report["rows"] == len(report["frame"]) == 5
    assert report["smoothing"] == {"noise": {"image": SIGMA}, "samples": 100, "selection": 100, "alpha": 0.001}
    assert "is not a number" in polyfuse(*call, "--noise", "image=much", cwd=tmp_path, code=2)[1]
    assert "no modality" in polyfuse(*call, "--noise", "photo=1", cwd=tmp_path, code=2)[1]
