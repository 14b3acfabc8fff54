"""The last layers move; what lies below them is run once, kept, and gives the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tiny
from polyfuse.core.contract import HIDDEN, Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Sound
from polyfuse.data.schema import Column, Target
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.model import FusionModel
from polyfuse.testing.assertions import same_features, weighted_sum
from polyfuse.training.cache import CachedSource, HiddenSource, encoder_key
from polyfuse.tuning.last import LastTuning

Find = Callable[[str], str]

NOISE = np.random.default_rng(0)
PICTURE = Image.fromarray(NOISE.integers(0, 256, (20, 30, 3), dtype=np.uint8))
VALUES: dict[str, list[Any]] = {
    "transformer": [("one cat",), ("two dogs a b c",), ("",), ("a b c d e f g h",)],
    "image_transformer": [([PICTURE],), ([PICTURE, PICTURE.rotate(90)],)],
    "audio_transformer": [(Sound(NOISE.normal(0, 0.2, n).astype(np.float32), 16000),) for n in (1600, 2400, 900)],
}
#: For each tiny model, whether its layers can go on from the hidden states below them.
PARTED = {
    **{("transformer", name): name not in ("t5",) for name in tiny.TEXT},
    **{("image_transformer", name): name not in ("resnet", "convnext") for name in tiny.IMAGE},
    **{("audio_transformer", name): name not in ("whisper",) for name in tiny.AUDIO},
}


def encoder_of(kind: str, model: str, find: Find, **options: Any) -> Encoder:
    made = ENCODERS.build(kind, {**options, "checkpoint": find(model)}, [Column(name="x", type="text")])
    # Far from where it was made, so that no layer does next to nothing.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return made.eval()


def whole_and_kept(encoder: Encoder, lower: Encoder, kind: str, *, half: bool) -> tuple[Features, Features]:
    tensors = encoder.prepare(VALUES[kind])
    with torch.no_grad():
        kept = lower(**tensors)
        hidden = kept.tokens.half().float() if half else kept.tokens
        # What stands in the padding is not kept.
        hidden = torch.where(kept.mask.unsqueeze(-1), hidden, 0.0)
        return encoder(**tensors), encoder.resume(hidden, kept.mask)


@pytest.mark.parametrize(("kind", "model"), PARTED)
def test_from_what_is_kept_comes_the_same(kind: str, model: str, tiny_model: Find) -> None:
    encoder = encoder_of(kind, model, tiny_model)
    LastTuning(layers=1).apply(encoder)
    lower = encoder.lower()
    assert (lower is not None) == PARTED[kind, model]
    if lower is not None:
        whole, again = whole_and_kept(encoder, lower, kind, half=False)
        same_features(again, whole, model)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("averaged", [1, 2, 3, 4])
@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_the_mean_over_layers_is_the_same_wherever_the_cut_is(
    pooling: str, averaged: int, layers: int, model: str, tiny_model: Find
) -> None:
    encoder = encoder_of("transformer", model, tiny_model, pooling=pooling, layers=averaged)
    LastTuning(layers=layers).apply(encoder)
    lower = encoder.lower()
    assert lower is not None
    # Beside the hidden states the sum of those layers of the mean that lie below the cut, where there are such.
    assert lower.dim == (2 if averaged > 1 and layers < min(averaged, 2) else 1) * encoder.dim
    whole, again = whole_and_kept(encoder, lower, "transformer", half=False)
    same_features(again, whole, "from what is kept")
    _, rounded = whole_and_kept(encoder, lower, "transformer", half=True)
    torch.testing.assert_close(rounded.pooled, whole.pooled, rtol=0, atol=5e-3)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of five layers."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("deep")
    sizes = {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tiny.WORDS), **sizes), add_pooling_layer=False).save_pretrained(folder)
    tiny._tokenizer(folder, wraps=True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return str(folder)


@pytest.mark.parametrize("averaged", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
def test_every_cut_of_a_deeper_model(averaged: int, layers: int, deep: str) -> None:
    encoder = encoder_of("transformer", "deep", lambda _: deep, layers=averaged)
    LastTuning(layers=layers).apply(encoder)
    lower = encoder.lower()
    assert lower is not None
    below = averaged > 1 and layers < min(averaged, 5)
    assert lower.dim == (2 if below else 1) * encoder.dim
    whole, again = whole_and_kept(encoder, lower, "transformer", half=False)
    same_features(again, whole, "from what is kept")


@pytest.mark.parametrize(
    ("kind", "model", "inside"),
    [
        ("transformer", "bert", r"encoder\.layer\.1\."),
        ("transformer", "gpt2", r"(h\.1\.|ln_f)"),
        ("transformer", "t5", r"encoder\.(block\.1\.|final_layer_norm)"),
        ("transformer", "bart", r"layers\.1\."),
        ("image_transformer", "vit", r"(layers\.1\.|layernorm)"),
        ("image_transformer", "siglip", r"(encoder\.layers\.1\.|post_layernorm|head)"),
        ("image_transformer", "resnet", r"encoder\.stages\.1\."),
        ("audio_transformer", "wav2vec2", r"encoder\.layers\.1\."),
        ("audio_transformer", "whisper", r"(layers\.1\.|layer_norm)"),
    ],
)
def test_the_last_layer_moves_and_what_comes_after_it(kind: str, model: str, inside: str, tiny_model: Find) -> None:
    encoder = encoder_of(kind, model, tiny_model)
    LastTuning(layers=1).apply(encoder)
    pattern = re.compile(rf"backbone\.{inside}")
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == bool(pattern.match(name)), name


def test_gradients_reach_the_same_weights_either_way(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "bert", tiny_model)
    tuning = LastTuning(layers=1)
    tuning.apply(encoder)
    lower = tuning.cached(encoder)
    assert lower is not None
    tensors = encoder.prepare(VALUES["transformer"])
    found = []
    for kept in (False, True):
        encoder.zero_grad(set_to_none=True)
        if kept:
            with torch.no_grad():
                features = lower(**tensors)
            torch.autograd.backward(weighted_sum(encoder.resume(features.tokens, features.mask)))
        else:
            torch.autograd.backward(weighted_sum(encoder(**tensors)))
        found.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == {n for n, p in encoder.named_parameters() if p.requires_grad}
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4)


def test_only_the_layers_above_are_run_again(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "bert", tiny_model)
    LastTuning(layers=1).apply(encoder)
    lower = encoder.lower()
    assert lower is not None
    features = lower(**encoder.prepare(VALUES["transformer"]))
    run = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: run.append(name))
    encoder.resume(features.tokens, features.mask)
    assert run
    assert all("layer.1." in name for name in run)


def test_what_lies_below_rests_in_training(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "bert", tiny_model)
    LastTuning(layers=1).apply(encoder)
    encoder.train()
    backbone: Any = encoder.backbone
    assert not any(module.training for module in backbone.encoder.layer[0].modules())
    assert not any(module.training for module in backbone.embeddings.modules())
    assert all(module.training for module in backbone.encoder.layer[1].modules())


def test_batch_statistics_rest_where_their_weights_do(tiny_model: Find) -> None:
    encoder = encoder_of("image_transformer", "resnet", tiny_model)
    LastTuning(layers=1).apply(encoder)
    encoder.train()
    norms = {name: part for name, part in encoder.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert {name for name, part in norms.items() if part.training} == {n for n in norms if "stages.1." in n}
    # Without a cut, by the weights alone.
    other = encoder_of("image_transformer", "resnet", tiny_model)
    for name, parameter in other.named_parameters():
        parameter.requires_grad_("normalization" not in name)
    other.train()
    assert not any(part.training for part in other.modules() if isinstance(part, nn.BatchNorm2d))
    other.requires_grad_(True)
    other.train()
    assert all(part.training for part in other.modules() if isinstance(part, nn.BatchNorm2d))


def test_what_is_kept_goes_by_what_lies_below_alone(tiny_model: Find) -> None:
    first, second = (encoder_of("transformer", "bert", tiny_model) for _ in range(2))
    keys = []
    for encoder, layers in ((first, 1), (second, 2)):
        LastTuning(layers=layers).apply(encoder)
        lower = encoder.lower()
        assert lower is not None
        keys.append(encoder_key(lower, "float32"))
    lower = first.lower()
    assert lower is not None
    assert keys[0] != keys[1]
    assert lower.preparation() == {**first.preparation(), "of": "TransformerEncoder", "below": 1}
    assert encoder_key(first, "float32") != keys[0]
    backbone: Any = first.backbone
    with torch.no_grad():
        backbone.encoder.layer[1].output.dense.weight.add_(1)
    assert encoder_key(lower, "float32") == keys[0]
    with torch.no_grad():
        backbone.encoder.layer[0].output.dense.weight.add_(1)
    assert encoder_key(lower, "float32") != keys[0]


def test_a_batch_of_what_is_kept_goes_through_the_model(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "bert", tiny_model)
    LastTuning(layers=1).apply(encoder)
    lower = encoder.lower()
    assert lower is not None
    present = torch.tensor([[True], [True], [False], [True]])
    tensors = encoder.prepare(VALUES["transformer"])
    with torch.no_grad():
        features = lower(**tensors)
    lengths = features.mask.sum(1)
    shard = {
        "digests": torch.zeros(4, 16, dtype=torch.uint8),
        "ends": lengths.cumsum(0),
        "tokens": features.tokens[features.mask],
        "pooled": features.pooled,
    }
    places = [(0, 0), (0, 1), None, (0, 3)]
    source = HiddenSource(CachedSource([shard], places, lower.dim, tokens=True))
    assert source.lengths is not None
    assert source.lengths.tolist() == [*lengths[:2].tolist(), 0, int(lengths[3])]
    kept = source.batch(range(4))
    assert set(kept) == {HIDDEN, "mask"}
    target = Target(name="y", task="regression", mean=0.0, std=1.0)
    fusion = FUSIONS.build("concat", {"dim": 8}, {"text": encoder.dim})
    model = FusionModel({"text": encoder}, fusion, HEADS.build("regression", {}, 8, target)).eval()
    with torch.no_grad():
        expected = model({"text": tensors}, present)
        torch.testing.assert_close(model({"text": kept}, present), expected, rtol=1e-3, atol=1e-4)
        nothing = model({"text": kept}, torch.zeros(4, 1, dtype=torch.bool))
    assert bool(nothing.isfinite().all())


def test_in_bf16_it_is_as_near_as_the_whole(tiny_model: Find) -> None:
    encoder = encoder_of("transformer", "bert", tiny_model)
    LastTuning(layers=1).apply(encoder)
    lower = encoder.lower()
    assert lower is not None
    exact = encoder(**encoder.prepare(VALUES["transformer"])).pooled.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, again = whole_and_kept(encoder, lower, "transformer", half=True)
    for found in (whole, again):
        assert torch.cosine_similarity(found.pooled.float(), exact).min() > 0.99


def test_layers_that_share_their_weights_cannot_move_apart(tmp_path: Any) -> None:
    from transformers import AlbertConfig, AlbertModel

    sizes = {"hidden_size": 16, "embedding_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = AlbertConfig(vocab_size=len(tiny.WORDS), intermediate_size=32, max_position_embeddings=40, **sizes)
    AlbertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    tiny._tokenizer(tmp_path, wraps=True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    encoder = ENCODERS.build("transformer", {"checkpoint": str(tmp_path)}, [Column(name="x", type="text")])
    with pytest.raises(InputError, match="last finds no weight in the last layers of AlbertModel"):
        LastTuning(layers=1).apply(encoder)


def test_an_encoder_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"last needs a pretrained backbone, and ConvnetEncoder has none; use +full"):
        LastTuning().apply(ConvnetEncoder([Column(name="photo", type="image", size=8)], width=4))
