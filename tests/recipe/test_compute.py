"""`training.compute`: what was found is written down, and predictions are made in the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import polyfuse as pf
from polyfuse.core.compute import has_bf16
from polyfuse.core.errors import InputError, RecipeError
from polyfuse.model import Model
from polyfuse.training.cache import FeatureCache
from polyfuse.training.encoding import encoded

Find = Callable[[str], str]
CPU = torch.device("cpu")


def table() -> pd.DataFrame:
    words = (["good cat", "bad dog"] * 40)[:80]
    return pd.DataFrame(
        {"note": [f"{word} {'a b c d'[: 1 + 2 * (i % 4)]}" for i, word in enumerate(words)], "y": words}
    )


def recipe(tiny_model: Find, fusion: object = "concat", **training: Any) -> dict[str, Any]:
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    return {
        "target": "y",
        "columns": {"note": "text"},
        "modalities": {"text": {"columns": ["note"], "encoder": encoder}},
        "fusion": fusion,
        "training": {"epochs": 1, "trackers": [], **training},
    }


def way(model: Model) -> str | None:
    return model.encoder("text").way


@pytest.mark.parametrize("fusion", ["concat", "linear"])
def test_what_was_found_is_written_down_and_used_again(
    fusion: str, tiny_model: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYFUSE_CACHE", str(tmp_path / "cache"))
    predictor = pf.Predictor(recipe=recipe(tiny_model, fusion)).fit(table(), progress=False)
    compute = predictor.recipe.training.compute
    assert isinstance(compute, dict)
    assert compute["text"] in ("bf16", "medium", "float32")
    predictor.save(tmp_path / "run")
    loaded = pf.load(tmp_path / "run")
    assert loaded.recipe.training.compute == compute
    assert predictor._built is not None
    assert loaded._built is not None
    assert way(predictor._built.model) == way(loaded._built.model) == compute["text"]
    pd.testing.assert_frame_equal(loaded.predict_proba(table()), predictor.predict_proba(table()))
    # Fitted again from its own recipe, nothing is tried.
    monkeypatch.setattr("polyfuse.training.cache.tried", None)
    (trial,) = (FeatureCache().folder / "ways").iterdir()
    trial.unlink()
    again = pf.Predictor(recipe=predictor.recipe).fit(table(), progress=False)
    assert again.recipe.training.compute == compute


@pytest.mark.parametrize("given", ["bf16", "float32", "medium", {"text": "bf16"}, {"text": "float32"}])
def test_what_is_given_holds(given: Any, tiny_model: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyfuse.training.cache.tried", None)
    made = pf.Predictor(recipe=recipe(tiny_model, compute=given)).fit(table(), progress=False)
    asked = given["text"] if isinstance(given, dict) else given
    found = made.recipe.training.compute
    assert found == given or (asked == "bf16" and not has_bf16(CPU))
    dtypes: list[torch.dtype] = []
    precisions: list[str] = []
    assert made._built is not None
    layer = next(part for part in made._built.model.encoder("text").modules() if isinstance(part, torch.nn.Linear))

    def look(_: object, __: object, output: torch.Tensor) -> None:
        dtypes.append(output.dtype)
        precisions.append(torch.get_float32_matmul_precision())

    layer.register_forward_hook(look)
    made.predict_proba(table().head(2))
    bf16 = asked == "bf16" and has_bf16(CPU)
    assert set(dtypes) == {torch.bfloat16 if bf16 else torch.float32}
    assert (set(precisions) == {"medium"}) == (asked == "medium")
    assert torch.get_float32_matmul_precision() != "medium"


def test_what_is_wrong_is_told(tiny_model: Find) -> None:
    with pytest.raises(InputError, match="compute"):
        pf.Predictor(recipe=recipe(tiny_model, compute="fp8"))
    with pytest.raises(RecipeError, match=r"training\.compute\.txt: there is no such modality; did you mean 'text'"):
        pf.Predictor(recipe=recipe(tiny_model, compute={"txt": "bf16"})).fit(table(), progress=False)


def test_an_encoder_that_moves_runs_in_the_precision_of_the_training(tiny_model: Find) -> None:
    given = recipe(tiny_model, compute="medium", precision="float32") | {"tuning": {"text": "full"}}
    made = pf.Predictor(recipe=given).fit(table(), progress=False)
    assert made._built is not None
    assert way(made._built.model) is None
    assert made.recipe.training.compute == "medium"


@pytest.mark.parametrize("fusion", ["attention", "linear", "concat"])
@pytest.mark.parametrize("compute", ["bf16", "float32", "onnx"])
def test_many_rows_are_answered_like_each_alone(
    fusion: str, compute: str, tiny_model: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pf.Predictor(recipe=recipe(tiny_model, fusion, compute=compute)).fit(table(), progress=False)
    asked = table()
    asked.loc[5, "note"] = None
    ways: list[str] = []

    def seen(*given: Any) -> Any:
        ways.append(given[-1])
        return encoded(*given)

    monkeypatch.setattr("polyfuse.training.encoding.encoded", seen)
    with pytest.warns(UserWarning, match="no modality"):
        many = made.predict_proba(asked)
    assert set(ways) == {"bf16" if compute == "bf16" and has_bf16(CPU) else "float32"}
    ways.clear()
    for row in (0, 1, 7, 79):
        np.testing.assert_allclose(made.predict_proba(asked.iloc[[row]]), many.iloc[[row]], atol=5e-3)
    assert not ways
