"""The contract, over everything that is registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

import tiny
from polyfuse.core.errors import InputError
from polyfuse.core.registry import Registry
from polyfuse.core.types import Sound
from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.data.corruption import CORRUPTIONS
from polyfuse.data.schema import Column, Target
from polyfuse.encoders import ENCODERS, default_encoder
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.testing import check_encoder, check_fusion, check_head
from polyfuse.tuning import TUNINGS

FAMILIES: dict[str, Registry[Any]] = {
    "augmentations": AUGMENTATIONS,
    "corruptions": CORRUPTIONS,
    "encoders": ENCODERS,
    "fusions": FUSIONS,
    "heads": HEADS,
    "tunings": TUNINGS,
}
NAMES = [(family, name) for family, registry in FAMILIES.items() for name in registry]


def image(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sound(seconds: float, rate: int = 8000) -> Sound:
    noise = np.random.default_rng(0).normal(size=max(1, round(seconds * rate)))
    return Sound((0.2 * noise).clip(-1, 1).astype(np.float32), rate)


QUANTILES = np.linspace(-2, 5, 51).tolist()
MOMENTS = np.linspace(1.0e9, 1.7e9, 51).tolist()
TABLE = [
    Column(name="age", type="number", quantiles=QUANTILES),
    Column(name="brand", type="category", levels=["a", "b"]),
    Column(name="sold", type="datetime", quantiles=MOMENTS),
    Column(name="constant", type="number", quantiles=[4.0] * 51),
]
ROWS = [(1.5, "a", 1.2e9, 4.0), (None, None, None, None), (1e308, "never seen", -1e12, 5.0), (-1e308, "b", 0.0, 4.0)]
TEXTS = [("one cat", "two dogs"), ("one\x00 😀 \ud800", None), ("", None), ("a b c d e f " * 30, None)]
IMAGES = [([image(20, 30)],), ([image(8, 8), image(40, 9)],)]
SOUNDS = [(sound(0.3),), (sound(0.11),), (sound(0.3, rate=11025),), (sound(0.0001),)]
CLOUDS = [(np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32),) for count in (1, 5, 40)]

#: For each encoder: options, columns, values. A registered encoder without an entry fails the test below.
CASES: dict[str, tuple[dict[str, Any], list[Column], list[Any]]] = {
    "transformer": ({}, [Column(name="title", type="text"), Column(name="review", type="text")], TEXTS),
    "image_transformer": ({}, [Column(name="photo", type="image", size=20)], IMAGES),
    "convnet": ({"width": 4}, [Column(name="photo", type="image", size=20)], IMAGES),
    "audio_transformer": ({}, [Column(name="voice", type="audio", size=8000, duration=0.3)], SOUNDS),
    "mel_convnet": (
        {"width": 4, "mels": 24},
        [Column(name="voice", type="audio", size=8000, duration=0.3)],
        SOUNDS,
    ),
    "pointnet": ({"width": 4}, [Column(name="scan", type="points", size=4, scales=[3.0])], CLOUDS),
    "ft_transformer": ({"dim": 8, "heads": 2}, TABLE, ROWS),
    "mlp": ({}, TABLE, ROWS),
    "embedding": (
        {},
        [Column(name="face", type="embedding", size=3), Column(name="voice", type="embedding", size=2)],
        [
            (np.array([1.0, 2.0, 3.0], dtype=np.float32), None),
            (np.zeros(3, dtype=np.float32), np.array([-1e38, 1e38], dtype=np.float32)),
            (None, None),
        ],
    ),
}
PRETRAINED = {"transformer": tiny.TEXT, "image_transformer": tiny.IMAGE, "audio_transformer": tiny.AUDIO}
VARIANTS = [
    *((name, model) for name in CASES for model in PRETRAINED.get(name, {None: None})),
]

HEAD_CASES: dict[str, tuple[Target, list[Any]]] = {
    "classification": (
        Target(name="y", task="classification", levels=["a", 2, True], frequencies=[0.5, 0.3, 0.2]),
        ["a", 2, True, "a"],
    ),
    "multilabel": (
        Target(name="y", task="multilabel", levels=["a", "b", "c"], frequencies=[0.5, 0.9, 0.0]),
        [["a"], [], ["a", "b", "c"], ["b"]],
    ),
    "regression": (Target(name="y", task="regression", mean=1000.0, std=25.0), [990.0, 1000, 1e4, -3.5]),
}
HEAD_CASES["several"] = (
    Target.of([target.model_copy(update={"name": name}) for name, (target, _) in HEAD_CASES.items()]),
    [("a", ["a"], 990.0), (2, None, 1010.0), (None, ["b", "c"], None), (True, [], 1000)],
)


@pytest.fixture(autouse=True)
def _drawn_alike() -> None:
    """Of the smallest convolutional networks one in a hundred is drawn with no unit that any value wakes."""
    torch.manual_seed(0)


def test_every_component_has_a_case() -> None:
    assert set(CASES) == set(ENCODERS), "add the new encoder to CASES"
    assert set(HEAD_CASES) == set(HEADS), "add the new head to HEAD_CASES"
    assert set(PRETRAINED) == {name for name in ENCODERS if "checkpoint" in ENCODERS.options(name)}


@pytest.mark.parametrize(("name", "model"), VARIANTS, ids=lambda part: part or "scratch")
def test_encoder(name: str, model: str | None, tiny_model: Callable[[str], str]) -> None:
    options, columns, values = CASES[name]
    if model is not None:
        options = {**options, "checkpoint": tiny_model(model)}
    assert {column.type for column in columns} <= ENCODERS[name].reads
    check_encoder(lambda: ENCODERS.build(name, options, columns), values)


def test_a_convnet_of_one_channel() -> None:
    columns = [Column(name="photo", type="image", size=20)]
    check_encoder(lambda: ENCODERS.build("convnet", {"width": 4, "grey": True}, columns), IMAGES)
    encoder = ENCODERS.build("convnet", {"width": 4, "grey": True}, columns)
    pixels = encoder.prepare(IMAGES)["pixels"]
    assert pixels.shape == (2, 2, 1, 20, 20)
    resized = np.asarray(IMAGES[0][0][0].resize((20, 20), Image.Resampling.BICUBIC), dtype=float)
    luma = resized @ [0.299, 0.587, 0.114] / 255
    assert np.abs(pixels[0, 0, 0].numpy() - luma).max() < 1 / 255


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion(name: str) -> None:
    options = {"dim": 8, **({"heads": 2} if "heads" in FUSIONS.options(name) else {})}
    check_fusion(lambda dims: FUSIONS.build(name, options, dims))


@pytest.mark.parametrize("name", HEADS)
def test_head(name: str) -> None:
    target, answers = HEAD_CASES[name]
    check_head(HEADS.build(name, {}, 6, target), answers, 6)


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_option_is_annotated_and_has_a_default_that_fits(family: str, name: str) -> None:
    registry = FAMILIES[family]
    for option, parameter in registry.options(name).items():
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}.{option} is not annotated"
        assert parameter.default is not inspect.Parameter.empty, f"{name}.{option} has no default"
        adapter: TypeAdapter[Any] = TypeAdapter(parameter.annotation)
        assert adapter.validate_python(parameter.default, strict=True) == parameter.default


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_option_is_documented(family: str, name: str) -> None:
    # In the class that has the constructor: what is inherited is told once.
    owner = next(parent for parent in FAMILIES[family][name].__mro__ if "__init__" in vars(parent))
    for option in FAMILIES[family].options(name):
        assert f"    {option}: " in (owner.__doc__ or ""), f"{name}: {option} is not in the docstring"


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_unknown_options_name_the_nearest(family: str, name: str) -> None:
    with pytest.raises(InputError, match=f"{family}: '{name}' has no option 'dimm'"):
        FAMILIES[family].build(name, {"dimm": 3}, None)


def test_options_with_their_defaults_build_the_same_component() -> None:
    _, columns, values = CASES["mlp"]
    defaults = {name: option.default for name, option in ENCODERS.options("mlp").items()}
    given, plain = ENCODERS.build("mlp", defaults, columns), ENCODERS.build("mlp", {}, columns)
    assert {k: v.shape for k, v in given.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert given.preparation() == plain.preparation()
    assert len(values) == len(given.prepare(values)["numbers"])


def test_default_encoders_read_their_types() -> None:
    types = get_type_hints(Column)["type"].__args__
    for kind in types:
        assert kind in ENCODERS[default_encoder({kind})].reads
    with pytest.raises(InputError, match="no encoder reads image, text together"):
        default_encoder({"text", "image"})
