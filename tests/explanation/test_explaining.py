"""Explanations of fitted models of an image, a text, a recording and a table: what they must be, whatever the model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.core.errors import InputError
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.explanation import FAST, METHODS, Effort, Explanations, ImagePart, Method, Part, explain_model
from polyfuse.explanation.explaining import explain_part
from polyfuse.explanation.question import Question, in_float32
from polyfuse.explanation.saving import colours, overlay
from polyfuse.explanation.subjects import subject_of
from polyfuse.model import FusionModel, Model

CPU = torch.device("cpu")
QUICK = replace(FAST, most=256)
SETTINGS: dict[str, Any] = {
    "augmentation": "none",
    "fusion": "concat",
    "training": {"epochs": 3, "trackers": [], "compute": "float32"},
}
NUMBERS = ["a", "b", "c", "d"]


def write(folder: Path, rows: int = 60) -> pd.DataFrame:
    """Write pictures, tones, notes and cells of two kinds."""
    import soundfile

    drawn = np.random.default_rng(0)
    made = []
    for i in range(rows):
        label = i % 2
        pixels = drawn.integers(60, 160, (16, 16, 3))
        pixels[:, 8 * label : 8 * label + 8] += 60
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        wave = 0.3 * np.sin(2 * np.pi * (400 + 600 * label) * np.arange(1600) / 8000)
        soundfile.write(folder / f"{i}.wav", wave + 0.05 * drawn.standard_normal(1600), 8000)
        words = " ".join(drawn.choice(list("efghijklm"), 4))
        row = {"photo": f"{i}.png", "sound": f"{i}.wav", "note": f"{['a cat', 'one dog'][label]} {words} x, y"}
        row |= dict(zip(NUMBERS, drawn.normal(size=4) + label, strict=True))
        row |= {"colour": drawn.choice(["red", "green", ["blue", "pink"][label]]), "kind": ["no", "yes"][label]}
        made.append(row)
    table = pd.DataFrame(made)
    table.to_csv(folder / "table.csv", index=False)
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[[str], str]) -> Path:
    """Return a folder with table.csv and a model in `run`."""
    folder = tmp_path_factory.mktemp("explained")
    write(folder)
    names = {"image": ("image_transformer", "vit"), "audio": ("audio_transformer", "wav2vec2")}
    names["text"] = ("transformer", "bert")
    columns = {"image": ["photo"], "audio": ["sound"], "text": ["note"]}
    modalities: dict[str, Any] = {
        key: {"columns": columns[key], "encoder": {"name": name, "checkpoint": tiny_model(tiny)}}
        for key, (name, tiny) in names.items()
    }
    modalities["table"] = {"columns": [*NUMBERS, "colour"]}
    pf.Predictor("kind", modalities=modalities, **SETTINGS).fit(
        folder / "table.csv", out=folder / "run", progress=False
    )
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> pf.Predictor:
    return pf.load(folder / "run")


@pytest.fixture(scope="module")
def rows(predictor: pf.Predictor, folder: Path) -> Rows:
    return read_rows(read_table(folder / "table.csv", media_root=None), predictor.schema, training=False, answers=True)


def cells(part: Part) -> np.ndarray[Any, Any]:
    """Return all weights of a part."""
    return np.asarray(part.weights, dtype=np.float64).ravel()  # type: ignore[attr-defined]


def parts_of(model: Model, rows: Rows, method: Method | None, effort: Effort = QUICK) -> dict[str, Part]:
    return explain_model(model, rows.subset([0]), CPU, method, effort=effort).rows[0].parts


def test_integrated_gradients_sum_to_what_a_modality_does(predictor: pf.Predictor, rows: Rows) -> None:
    question = Question(predictor.model, rows, 3, CPU)
    scores = predictor.model.head.scores(question.outputs({}, 1).detach())
    assert question.answer == predictor.model.head.decode(scores)[0]
    for name in ("image", "audio", "text", "table"):
        subject = subject_of(question, name, 0)
        part = explain_part(subject, None, QUICK, 0)
        assert part.method == "integrated_gradients"
        assert part.baseline is not None
        assert part.convergence is not None
        assert part.convergence.relative < 0.02
        # A second way to f(x) - f(baseline): the values are taken away, and the encoder prepares them anew.
        ends = subject.value(torch.tensor([[True], [False]]).expand(2, subject.pieces), part.baseline)
        change = float(ends[0] - ends[1])
        assert float(ends[0]) == pytest.approx(question.output, abs=1e-5)
        # "x," is two tokens, and becomes one mask where the word is replaced.
        share = 0.1 if name == "text" else 0.03
        assert cells(part).sum() == pytest.approx(change, abs=share * abs(change) + 1e-4)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "gradient_input"])
def test_what_a_model_ignores_gets_nothing(predictor: pf.Predictor, rows: Rows, method: Method) -> None:
    model = copy.deepcopy(predictor.model)
    assert isinstance(model, FusionModel)
    with torch.no_grad():
        for name in ("image", "text", "audio"):
            model.fusion.projections[model.modalities.index(name)][1].weight.zero_()
        numbers: Any = model.encoder("table").numbers
        for weight in (numbers.weight, numbers.bias, numbers.absent):
            weight[1].zero_()  # of column b
    effort = replace(QUICK, points=3, orders=1)
    before, after = parts_of(predictor.model, rows, method, effort), parts_of(model, rows, method, effort)
    for name in ("image", "text", "audio"):
        assert np.abs(cells(before[name])).max() > 1e-4
        assert np.abs(cells(after[name])).max() < 1e-6
    assert abs(cells(before["table"])[1]) > 1e-3
    assert abs(cells(after["table"])[1]) < 1e-6
    assert np.abs(cells(after["table"])).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_other_weights_give_another_map(predictor: pf.Predictor, rows: Rows, method: Method) -> None:
    model = copy.deepcopy(predictor.model)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * weight.std(correction=0).clamp(min=0.05) * 3)
    effort = replace(QUICK, points=3, orders=1)
    before, after = parts_of(predictor.model, rows, method, effort), parts_of(model, rows, method, effort)
    for name, part in before.items():
        if method == "rollout" and part.method != method:
            assert name == "table"
            continue
        alike = spearmanr(cells(part), cells(after[name])).statistic
        assert alike < 0.75, (name, alike)
        assert part.class_specific == (method != "rollout")


def test_roll_out_leaves_the_model_as_it_was(predictor: pf.Predictor, rows: Rows) -> None:
    backbone: Any = predictor.model.encoder("text").backbone
    before = backbone.config._attn_implementation
    found = parts_of(predictor.model, rows, "rollout", replace(QUICK, points=3, orders=1))
    assert (backbone.config._attn_implementation, backbone.config.output_attentions) == (before, False)
    assert {name: part.method for name, part in found.items()} == {
        "image": "rollout",
        "audio": "rollout",
        "text": "rollout",
        "table": "occlusion",
    }
    # With all attentions alike, two layers leave 3/4 · 1/5 + 1/4 of the class token in its place.
    assert cells(found["image"]).sum() == pytest.approx(1 - 0.4, abs=0.02)
    assert 0.5 < cells(found["text"]).sum() < 1
    assert cells(found["audio"]).sum() == pytest.approx(1)
    table = predictor_of_table()[0]
    with pytest.raises(InputError, match="rollout can act on no modality"):
        table.explain({"a": 1.0, "b": 0.0, "c": 0.0}, method="rollout", progress=False)


def predictor_of_table(**settings: Any) -> tuple[pf.Predictor, pd.DataFrame]:
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=(80, 3))
    table = pd.DataFrame(x, columns=list("abc"))
    table["y"] = np.where(x[:, 0] > 0, "up", "down")
    return pf.Predictor("y", **{**SETTINGS, **settings}).fit(table, progress=False), table


def test_all_of_it_is_kept(predictor: pf.Predictor, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = predictor.explain(folder / "table.csv", rows=2, fast=True, out=out, progress=False)
    kept = json.loads((out / "explanations.json").read_text())
    assert kept == json.loads(found.to_json())
    assert isinstance(found, Explanations)
    assert sorted(path.name for path in out.iterdir()) == [
        "000-0-image.png",
        "000-1-audio.png",
        "000-2-text.json",
        "001-0-image.png",
        "001-1-audio.png",
        "001-2-text.json",
        "explanations.json",
    ]
    with Image.open(out / "000-0-image.png") as image:
        assert image.size == (256, 256)
    row = kept["rows"][0]
    assert {name: part["kind"] for name, part in row["parts"].items()} == {
        "image": "image",
        "audio": "audio",
        "text": "text",
        "table": "table",
    }
    assert np.shape(row["parts"]["image"]["weights"]) == (16, 16)
    words = json.loads((out / "000-2-text.json").read_text())
    assert [one["word"] for one in words] == row["parts"]["text"]["words"]
    assert words[-2]["word"] == "x,"
    assert row["parts"]["table"]["names"] == [*NUMBERS, "colour"]
    assert len(row["parts"]["audio"]["wave"]) == len(row["parts"]["audio"]["weights"])
    assert kept["gains"]["image"]["blurred"]["rows"] == 2
    each = [part["faithfulness"][1]["deletion"]["gain"] for part in (row["parts"]["image"] for row in kept["rows"])]
    assert kept["gains"]["image"]["blurred"]["deletion"]["value"] == pytest.approx(np.mean(each), rel=1e-4)
    assert kept["gains"]["image"]["blurred"]["deletion"]["low"] == pytest.approx(min(each), rel=1e-4)
    assert "better than a random order" in str(found)
    with pytest.raises(InputError, match="exists; choose another folder"):
        predictor.explain(folder / "table.csv", out=out, progress=False)


def test_what_cannot_be_explained(predictor: pf.Predictor, folder: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'occlusion'"):
        predictor.explain(folder / "table.csv", method="oclusion", progress=False)  # type: ignore[arg-type]
    several = pf.Predictor(["y", "z"], **SETTINGS)
    several.fit(predictor_of_table()[1].assign(z=lambda table: table["a"] > 0), progress=False)
    with pytest.raises(InputError, match="several targets"):
        several.explain({"a": 1.0, "b": 0.0, "c": 0.0}, progress=False)


def test_orange_speaks_for_an_answer_and_blue_against_it() -> None:
    found = colours(np.array([2.0, -2.0, 0.0, -1.0]))
    assert found[0].tolist() == [0xE6, 0x61, 0x01]
    assert found[1].tolist() == [0x21, 0x66, 0xAC]
    assert found[2].tolist() == [255, 255, 255]
    assert found[3].tolist() == [144, 178, 214]
    assert colours(np.zeros((2, 3))).tolist() == [[[255] * 3] * 3] * 2
    part = ImagePart(
        method="occlusion",
        class_specific=True,
        baseline=None,
        convergence=None,
        faithfulness=[],
        image=np.full((2, 2, 3), 128, np.uint8),
        weights=np.array([[1.0, 0.0], [0.0, -1.0]]),
    )
    made = np.asarray(overlay(part)).astype(int)
    assert made.shape == (256, 256, 3)
    # A quarter of the grey is left under a full colour, all of it under none.
    assert abs(made[0, 0] - [128 / 4 + 0.75 * part for part in (0xE6, 0x61, 0x01)]).max() <= 1
    assert made[0, -1].tolist() == [128] * 3
    assert abs(made[-1, -1] - [128 / 4 + 0.75 * part for part in (0x21, 0x66, 0xAC)]).max() <= 1


def test_command_line(folder: Path, tmp_path: Path) -> None:
    flags = ["--rows", 1, "--fast", "--method", "occlusion", "--train", "table.csv"]
    said, _ = polyfuse("explain", "run", "table.csv", *flags, "--out", tmp_path / "out", "--json", cwd=folder)
    found = json.loads(said)
    assert found["rows"][0]["parts"]["text"]["method"] == "occlusion"
    assert found["compared"] == 60
    gain = found["gains"]["text"]["masked words"]
    assert (gain["rows"], gain["deletion"]["low"]) == (1, None)
    assert len(found["rows"][0]["neighbours"]) == 5
    assert (tmp_path / "out" / "explanations.json").is_file()


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_models_whose_embeddings_are_named_otherwise(
    predictor: pf.Predictor, rows: Rows, tiny_model: Callable[[str], str], name: str
) -> None:
    model = copy.deepcopy(predictor.model)
    place = model._place["text"]
    model.encoders[place] = TransformerEncoder(rows.schema.of("text"), checkpoint=tiny_model(name)).eval()
    part = parts_of(model, rows, None, replace(QUICK, points=3, orders=1))["text"]
    assert part.method == "integrated_gradients"
    assert part.convergence is not None
    assert part.convergence.relative < 0.02
    assert np.abs(cells(part)).max() > 1e-5
    rolled = parts_of(model, rows, "rollout", replace(QUICK, points=3, orders=1))["text"]
    assert rolled.method == "rollout"
    assert 0.5 < cells(rolled).sum() <= 1.0001


def test_encoders_compute_in_float32_and_are_left_as_they_were(predictor: pf.Predictor) -> None:
    model = copy.deepcopy(predictor.model)
    model.precision, model.encoder("text").way = "bf16", "medium"
    with in_float32(model):
        assert (model.precision, model.encoder("text").way) == ("float32", None)
    assert (model.precision, model.encoder("text").way) == ("bf16", "medium")
