"""Bottleneck adapters against their formula, where they stand, and as they are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.core.types import Features, Tensors
from polyfuse.core.weights import base_weights, weights_digest
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.layers.anatomy import ways_back
from polyfuse.tuning.adapter import AdapterTuning, Bottleneck

Find = Callable[[str], str]
TEXT = [Column(name="title", type="text")]
VALUES = [("one cat",), ("two dogs a b c",)]


def bert(find: Find) -> TransformerEncoder:
    return TransformerEncoder(TEXT, checkpoint=find("bert"), layers=1).eval()


def moved(encoder: torch.nn.Module) -> None:
    """Move the adapters away from where they start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


def places(encoder: Any) -> set[str]:
    return {name for name, module in encoder.backbone.named_modules() if isinstance(module, Bottleneck)}


def norm(x: np.ndarray, layer: Any) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps) * weight + bias


def linear(x: np.ndarray, layer: Any) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def bottleneck(x: np.ndarray, adapter: Any) -> np.ndarray:
    return x + linear(np.maximum(linear(x, adapter.down), 0), adapter.up)


@pytest.mark.parametrize("style", ["houlsby", "pfeiffer"])
def test_a_layer_of_bert_with_adapters_by_hand(style: str, tiny_model: Find) -> None:
    encoder = bert(tiny_model)
    AdapterTuning(style=style, size=3).apply(encoder)  # type: ignore[arg-type]
    moved(encoder)
    backbone: Any = encoder.backbone
    layer = backbone.encoder.layer[1]
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attended = layer.attention.self(x)[0].numpy()
        expected = layer(x).numpy()
    y = linear(attended, layer.attention.output.dense)
    if style == "houlsby":
        y = bottleneck(y, layer.attention.output.dense.adapter)
    h = norm(y + x.numpy(), layer.attention.output.LayerNorm)
    with torch.no_grad():
        inner = torch.nn.functional.gelu(torch.from_numpy(linear(h, layer.intermediate.dense))).numpy()
    z = bottleneck(linear(inner, layer.output.dense), layer.output.dense.adapter)
    np.testing.assert_allclose(norm(z + h, layer.output.LayerNorm), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "model", "attention", "feedforward"),
    [
        ("transformer", "bert", "encoder.layer.{}.attention.output.dense", "encoder.layer.{}.output.dense"),
        ("transformer", "gpt2", "h.{}.attn.c_proj", "h.{}.mlp.c_proj"),
        (
            "transformer",
            "t5",
            "encoder.block.{}.layer.0.SelfAttention.o",
            "encoder.block.{}.layer.1.DenseReluDense.wo",
        ),
        ("transformer", "bart", "layers.{}.self_attn.out_proj", "layers.{}.fc2"),
        ("image_transformer", "vit", "layers.{}.attention.o_proj", "layers.{}.mlp.fc2"),
        ("image_transformer", "siglip", "encoder.layers.{}.self_attn.out_proj", "encoder.layers.{}.mlp.fc2"),
        (
            "audio_transformer",
            "wav2vec2",
            "encoder.layers.{}.attention.out_proj",
            "encoder.layers.{}.feed_forward.output_dense",
        ),
        ("audio_transformer", "whisper", "layers.{}.self_attn.out_proj", "layers.{}.fc2"),
    ],
)
def test_the_places_are_found(kind: str, model: str, attention: str, feedforward: str, tiny_model: Find) -> None:
    def found(style: Any) -> set[str]:
        encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(model)}, TEXT)
        AdapterTuning(style=style).apply(encoder)
        return places(encoder)

    last = {f"{feedforward.format(number)}.adapter" for number in range(2)}
    assert found("pfeiffer") == last
    assert found("houlsby") == last | {f"{attention.format(number)}.adapter" for number in range(2)}


class Relative(nn.Module):
    """A layer that reads the distances between tokens too, and has three matrices in its feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.distance, self.out = (nn.Linear(4, 4) for _ in range(4))
        self.wide, self.middle, self.narrow = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2)
        near = self.distance(torch.zeros(1, 2 * hidden.shape[1] - 1, 4)).mean()
        hidden = hidden + self.out((scores + near).softmax(-1) @ (2 * hidden))
        return hidden + self.narrow(self.middle(self.wide(hidden).relu()).relu())


class OneToken(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.dim, self.backbone = 4, nn.Sequential()
        self.backbone.add_module("layers", nn.ModuleList([Relative()]))

    def prepare(self, values: Any) -> Tensors:
        return {"x": torch.ones(len(values), 1, 4)}

    def forward(self, x: torch.Tensor) -> Features:
        assert self.backbone is not None
        return Features.of_pooled(self.backbone.get_submodule("layers.0")(x).mean(1))


def test_only_what_goes_back_is_a_place() -> None:
    assert ways_back(OneToken()) == [["layers.0.out", "layers.0.narrow"]]


def test_a_model_without_such_places_is_refused(tiny_model: Find) -> None:
    encoder = ENCODERS.build("image_transformer", {"checkpoint": tiny_model("resnet")}, TEXT)
    with pytest.raises(InputError, match=r"adapter finds no layers .* in ResNetModel; use +last +or +full"):
        AdapterTuning().apply(encoder)


def test_it_starts_exactly_where_the_backbone_was(tiny_model: Find) -> None:
    plain, adapted = bert(tiny_model), bert(tiny_model)
    AdapterTuning(style="houlsby", activation="gelu").apply(adapted)
    tensors = plain.prepare(VALUES)
    assert adapted.eval()(**tensors).tokens.equal(plain(**tensors).tokens)


def test_every_option_has_its_effect(tiny_model: Find) -> None:
    def made(**options: Any) -> Bottleneck:
        encoder = bert(tiny_model)
        AdapterTuning(**options).apply(encoder)
        return next(module for module in encoder.modules() if isinstance(module, Bottleneck))

    assert made().down.weight.shape == (1, 16)
    assert made(reduction=2.0).down.weight.shape == (8, 16)
    assert made(reduction=2.0, size=5).down.weight.shape == (5, 16)
    assert made(dropout=0.25).dropout.p == 0.25
    x = torch.linspace(-3, 3, 7)
    functions = {"relu": torch.relu, "tanh": torch.tanh, "silu": torch.nn.functional.silu}
    for name, function in {**functions, "gelu": torch.nn.functional.gelu}.items():
        torch.testing.assert_close(made(activation=name).activation(x), function(x))


def test_backbone_and_adapters_are_kept_apart(tiny_model: Find, tmp_path: Path) -> None:
    encoder = bert(tiny_model)
    assert encoder.backbone is not None
    before = weights_digest(base_weights(encoder.backbone))
    tuning = AdapterTuning(style="houlsby", size=3)
    tuning.apply(encoder)
    moved(encoder)
    assert weights_digest(base_weights(encoder.backbone)) == before
    encoder.save_backbone(tmp_path / "backbone")
    again = TransformerEncoder(TEXT, checkpoint=str(tmp_path / "backbone"), layers=1)
    assert again.backbone is not None
    assert weights_digest(base_weights(again.backbone)) == before
    (tmp_path / "adapter").mkdir()
    assert tuning.save(encoder, tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter.safetensors", "adapter.json"}
    weights = load_file(tmp_path / "adapter" / "adapter.safetensors")
    assert len(weights) == 2 * 2 * 4
    assert weights["encoder.layer.0.attention.output.dense.adapter.down.weight"].shape == (3, 16)
    AdapterTuning(style="houlsby", size=3).restore(again, tmp_path / "adapter")
    tensors = encoder.prepare(VALUES)
    torch.testing.assert_close(again.eval()(**tensors).pooled, encoder.eval()(**tensors).pooled)


@pytest.mark.parametrize("options", [{"size": 4}, {"style": "houlsby"}, {"activation": "gelu"}])
def test_other_adapters_are_told(options: dict[str, Any], tiny_model: Find, tmp_path: Path) -> None:
    encoder = bert(tiny_model)
    tuning = AdapterTuning(size=3)
    tuning.apply(encoder)
    tuning.save(encoder, tmp_path)
    with pytest.raises(ArtifactError, match="holds other adapters"):
        AdapterTuning(**{"size": 3, **options}).restore(bert(tiny_model), tmp_path)
    (tmp_path / "adapter.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"adapter.json is damaged"):
        AdapterTuning(size=3).restore(bert(tiny_model), tmp_path)


def test_adapters_cannot_be_merged(tiny_model: Find) -> None:
    encoder = bert(tiny_model)
    tuning = AdapterTuning()
    tuning.apply(encoder)
    assert not tuning.merge(encoder)
