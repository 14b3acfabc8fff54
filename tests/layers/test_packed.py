"""Packed linear layers: the same numbers, from a module that stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tiny
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.pretrained import PretrainedEncoder
from polyfuse.layers import packed as room
from polyfuse.layers.packed import PackedLinear, packed
from polyfuse.tuning.last import LastTuning

Find = Callable[[str], str]
KINDS = [
    *(("transformer", "text", name) for name in tiny.TEXT),
    *(("image_transformer", "image", name) for name in tiny.IMAGE),
    *(("audio_transformer", "audio", name) for name in tiny.AUDIO),
]


def encoder_of(kind: str, column: str, name: str, tiny_model: Find) -> PretrainedEncoder:
    columns = [Column(name="c", type=column)]  # type: ignore[arg-type]
    encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(name)}, columns)
    assert isinstance(encoder, PretrainedEncoder)
    return encoder.eval().requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3)])
def test_a_layer_gives_x_times_w_plus_b(bias: bool, shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(3, 5, bias=bias), torch.randn(shape)
    expected = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(layer, torch.float32)(x).double(), expected, rtol=1e-5, atol=1e-5)
        half = PackedLinear(layer, torch.bfloat16)(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("kind", "column", "name"), KINDS)
def test_features_are_those_of_the_encoder(kind: str, column: str, name: str, tiny_model: Find) -> None:
    encoder = encoder_of(kind, column, name, tiny_model)
    tensors = encoder.prepare(encoder.examples())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.inference_mode():
        expected = encoder(**tensors)
        twin = packed(encoder, torch.float32)
        for _ in range(2):
            found = twin(**tensors)
            torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
            assert found.mask.equal(expected.mask)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain, half = encoder(**tensors), packed(encoder, torch.bfloat16)(**tensors)
        assert torch.cosine_similarity(half.pooled.float(), plain.pooled.float()).min() > 0.999
        again = encoder(**tensors)
    assert torch.equal(again.tokens, expected.tokens)
    assert not any(isinstance(part, PackedLinear) for part in encoder.modules())
    assert all(torch.equal(encoder.state_dict()[key], value) for key, value in before.items())


def test_weights_are_shared_and_the_tokenizer_too(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "text", "bert", tiny_model)
    twin = packed(encoder, torch.bfloat16)
    assert any(isinstance(part, PackedLinear) for part in twin.modules())
    assert twin.companion is encoder.companion
    pointers = {name: weight.data_ptr() for name, weight in encoder.named_parameters()}
    assert {name: weight.data_ptr() for name, weight in twin.named_parameters()} == pointers


def test_what_lies_below_a_cut(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "text", "bert", tiny_model)
    LastTuning(layers=1).apply(encoder)
    lower = encoder.lower()
    assert lower is not None
    tensors = encoder.prepare(encoder.examples())
    with torch.inference_mode():
        torch.testing.assert_close(packed(lower.eval(), torch.float32)(**tensors).tokens, lower(**tensors).tokens)


def test_it_comes_back_as_it_is_where_packing_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    own = nn.Sequential(Own(2, 2))
    assert packed(own, torch.float32) is own
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda *_: None)
    assert packed(hooked, torch.float32) is hooked
    plain = nn.Sequential(nn.Linear(2, 2))
    assert packed(plain, torch.float32) is not plain
    monkeypatch.setattr(room, "MOST", 15)
    assert packed(plain, torch.float32) is plain
    monkeypatch.setattr(room, "MOST", 1 << 20)

    class Missing:
        def __getattr__(self, name: str) -> None:
            raise AttributeError(name)

    monkeypatch.setattr(torch.ops, "mkldnn", Missing())
    assert packed(plain, torch.float32) is plain
