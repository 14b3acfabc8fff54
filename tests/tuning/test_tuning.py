from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoTokenizer

from polyfuse.core.errors import InputError
from polyfuse.core.weights import base_weights, weights_digest
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.tuning import TUNINGS
from polyfuse.tuning.lora import LoraTuning
from polyfuse.tuning.whole import FrozenTuning, FullTuning

TEXT = [Column(name="title", type="text")]
PHOTO = [Column(name="photo", type="image", size=8)]
VALUES = [("one cat",), ("two dogs a b c",)]
Find = Callable[[str], str]


def trained(encoder: torch.nn.Module) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def tuned(encoder: TransformerEncoder) -> torch.Tensor:
    """Move the adapters away from zero and return the pooled vectors."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter))
        pooled: torch.Tensor = encoder.eval()(**encoder.prepare(VALUES)).pooled
    return pooled


def test_frozen_and_full(tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"))
    FrozenTuning().apply(encoder)
    assert trained(encoder) == set()
    FullTuning().apply(encoder)
    assert trained(encoder) == {name for name, _ in encoder.named_parameters()}
    assert FullTuning(learning_rate=1e-4).learning_rate == 1e-4


@pytest.mark.parametrize("name", ["frozen", "lora"])
def test_an_encoder_that_starts_at_random_must_be_trained(name: str) -> None:
    with pytest.raises(InputError, match=r"use +full"):
        TUNINGS.build(name, {}).apply(ConvnetEncoder(PHOTO, width=4))


def test_an_encoder_without_weights_may_be_frozen() -> None:
    FrozenTuning().apply(ENCODERS.build("embedding", {}, [Column(name="v", type="embedding", size=3)]))


@pytest.mark.parametrize("layers", ["all", "attention"])
def test_lora_trains_its_adapters_alone(layers: str, tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"))
    tuning = LoraTuning(rank=4, layers=layers)  # type: ignore[arg-type]
    tuning.apply(encoder)
    names = trained(encoder)
    assert names
    assert all("lora_" in name for name in names)
    assert all("attention" in name for name in names) == (layers == "attention")
    assert {p.shape[0] for n, p in encoder.named_parameters() if "lora_A" in n} == {4}


def test_lora_starts_where_the_backbone_was(tiny_model: Find) -> None:
    plain, adapted = (TransformerEncoder(TEXT, checkpoint=tiny_model("bert")).eval() for _ in range(2))
    LoraTuning().apply(adapted)
    tensors = plain.prepare(VALUES)
    torch.testing.assert_close(adapted.eval()(**tensors).pooled, plain(**tensors).pooled)


def test_lora_adds_scaled_low_rank_matrices(tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"))
    LoraTuning(rank=2, alpha=6, dropout=0.0).apply(encoder)
    tuned(encoder)
    layer = next(module for module in encoder.backbone.modules() if hasattr(module, "lora_A"))
    x = torch.randn(3, layer.in_features)
    a, b, base = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.base_layer
    torch.testing.assert_close(layer(x), base(x) + 6 / 2 * x @ a.T @ b.T)


def test_adapters_load_in_plain_peft_and_answer_alike(tiny_model: Find, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    encoder, tuning = TransformerEncoder(TEXT, checkpoint=folder, layers=1), LoraTuning(rank=2)
    tuning.apply(encoder)
    expected = tuned(encoder)
    assert tuning.save(encoder, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), tmp_path).eval()
    inputs = AutoTokenizer.from_pretrained(folder)([text for (text,) in VALUES], padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**inputs).last_hidden_state
    weights = inputs["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close((tokens * weights).sum(1) / weights.sum(1), expected)


def test_adapters_are_restored_and_can_be_trained_on(tiny_model: Find, tmp_path: Path) -> None:
    first, second = (TransformerEncoder(TEXT, checkpoint=tiny_model("bert")) for _ in range(2))
    LoraTuning(rank=2).apply(first)
    expected = tuned(first)
    LoraTuning(rank=2).save(first, tmp_path)
    LoraTuning(rank=2).restore(second, tmp_path)
    torch.testing.assert_close(second.eval()(**second.prepare(VALUES)).pooled, expected)
    assert trained(second) == trained(first)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("transformer", "bert"),
        ("transformer", "gpt2"),
        ("transformer", "t5"),
        ("transformer", "bart"),
        ("image_transformer", "vit"),
        ("image_transformer", "clip"),
        ("audio_transformer", "wav2vec2"),
        ("audio_transformer", "whisper"),
    ],
)
def test_the_backbone_is_saved_without_its_adapters(kind: str, name: str, tiny_model: Find, tmp_path: Path) -> None:
    encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(name)}, TEXT)
    assert encoder.backbone is not None
    before = weights_digest(base_weights(encoder.backbone))
    LoraTuning(rank=2).apply(encoder)
    assert encoder.backbone is not None
    assert weights_digest(base_weights(encoder.backbone)) == before
    encoder.save_backbone(tmp_path)
    again = ENCODERS.build(kind, {"checkpoint": str(tmp_path)}, TEXT)
    assert again.backbone is not None
    assert weights_digest(base_weights(again.backbone)) == before
