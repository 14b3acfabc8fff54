"""Every tuning, and every method that peft has, on every kind of transformers encoder."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import InputError, RecipeError
from polyfuse.core.types import Sound
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.recipe import read_recipe
from polyfuse.testing import check_tuning
from polyfuse.tuning import TUNINGS, methods
from polyfuse.tuning.methods import method_names

Find = Callable[[str], str]

NOISE = np.random.default_rng(0)
TEXTS = [("one cat",), ("two dogs a b c",)]
IMAGES = [([Image.fromarray(NOISE.integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert("RGB")] * n,) for n in (1, 2)]
SOUNDS = [(Sound(NOISE.normal(0, 0.2, n).astype(np.float32), 16000),) for n in (1600, 2400)]
MODELS: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    **{name: ("transformer", {"max_tokens": 12}, TEXTS) for name in ("bert", "roberta")},
    "vit": ("image_transformer", {}, IMAGES),
    "wav2vec2": ("audio_transformer", {}, SOUNDS),
}
#: Options that fit tiny models, and let every rank or layer take part.
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"rank": 1, "initial": 3},
    "last": {"layers": 1},
    "lora": {"rank": 2},
    "prefix": {"length": 3},
    "adamss": {"r": 4, "num_subspaces": 2, "subspace_rank": 1},
    "boft": {"boft_block_size": 4},
    "c3a": {"block_size": 8, "init_weights": True},
    "fourierft": {"n_frequency": 20, "init_weights": True},
    "gralora": {"r": 4},
    "hra": {"r": 4},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 4, "r": 0},
    "psoft": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "trainable_tokens": {"token_indices": [8, 9]},
    "unilora": {"theta_d_length": 64},
    "vblora": {"vector_length": 4, "num_vectors": 16, "r": 2, "topk": 2},
    "waveft": {"n_frequency": 20},
}
#: Those whose formula does not begin where the backbone is.
MOVED = {"prefix", "unilora", "vblora"}
#: Those that do not go with every kind of model, and the ones they go with.
ONLY = {"prefix": ("bert", "roberta"), "trainable_tokens": ("bert", "roberta")}
REFUSED = {
    "prompt_tuning": "virtual tokens",
    "multitask_prompt_tuning": "virtual tokens",
    "p_tuning": "virtual tokens",
    "cpt": "virtual tokens",
    "cartridge": "cache",
    "adaption_prompt": "generate",
    "poly": "task",
    "xlora": "trained before",
    "lily": "all rows of a batch",
    "shadow": "second model",
    "prefix_tuning": "prefix",
}
METHODS = sorted({name.lower() for name in method_names()} - set(REFUSED) - set(TUNINGS))
PAIRS = [(name, model) for name in (*TUNINGS, *METHODS) for model in MODELS]


def encoder_of(model: str, find: Find) -> Encoder:
    kind, options, _ = MODELS[model]
    return ENCODERS.build(kind, {**options, "checkpoint": find(model)}, [Column(name="x", type="text")])


def tuning_of(name: str) -> Tuning:
    torch.manual_seed(0)
    return TUNINGS.build(name, OPTIONS.get(name, {}))


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_tuning(name: str, model: str, tiny_model: Find) -> None:
    def check() -> None:
        check_tuning(
            lambda: tuning_of(name),
            lambda: encoder_of(model, tiny_model),
            MODELS[model][2],
            starts_unchanged=name not in MOVED,
        )

    if model in ONLY.get(name, MODELS):
        check()
    else:
        with pytest.raises(InputError, match=rf"tuning: {name} (stands before a text|does not fit)"):
            check()


@pytest.mark.parametrize("name", METHODS)
def test_options_of_peft_are_typed_told_and_have_defaults(name: str) -> None:
    options = TUNINGS.options(name)
    assert "learning_rate" in options
    for option, parameter in options.items():
        assert TypeAdapter(parameter.annotation).validate_python(parameter.default, strict=True) == parameter.default
        assert f"    {option}: " in (TUNINGS[name].__doc__ or "")
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_an_encoder_says_why(name: str) -> None:
    for spelled in (name, name.upper()):
        with pytest.raises(InputError, match=rf"(?i){name}.*{REFUSED[name]}"):
            TUNINGS.options(spelled)


def test_methods_go_by_peft_s_own_names() -> None:
    assert TUNINGS["loha"] is TUNINGS["LOHA"]
    assert TUNINGS["LORA"] is TUNINGS["lora"]
    assert TUNINGS["loha"] is methods.LOHA
    for unknown in ("pytest_plugins", "NOTHING", "__path__"):
        assert not hasattr(methods, unknown)
    assert list(TUNINGS) == sorted(OPTIONS.keys() & set(TUNINGS) | {"adapter", "bias", "frozen", "full", "ia3"})
    with pytest.raises(InputError, match=r"tunings: there is no 'lohaa'; did you mean 'loha'\?"):
        TUNINGS.options("lohaa")


def test_a_recipe_checks_the_options_of_peft() -> None:
    given = {"name": "loha", "r": "3", "target_modules": ["query"]}
    recipe = read_recipe({"target": "y", "tuning": {"text": given}})
    assert recipe.as_data()["tuning"] == {"text": {**given, "r": 3}}
    with pytest.raises(RecipeError, match=r"tuning.text.alpa: loha has no such option; did you mean 'alpha'\?"):
        read_recipe({"target": "y", "tuning": {"text": {"name": "loha", "alpa": 3}}})
    with pytest.raises(RecipeError, match=r"tuning.text.r: 'x' given: Input should be a valid integer"):
        read_recipe({"target": "y", "tuning": {"text": {"name": "loha", "r": "x"}}})
