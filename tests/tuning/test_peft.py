"""What peft makes: read by plain peft, folded into the backbone, and its formulas by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoModel, AutoTokenizer

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.core.weights import base_weights, weights_digest
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.tuning import TUNINGS
from polyfuse.tuning.ia3 import Ia3Tuning
from polyfuse.tuning.prefix import PrefixTuning

Find = Callable[[str], str]
TEXT = [Column(name="title", type="text")]
TEXTS = ["one cat", "two dogs a b c", "a b"]
VALUES = [(text,) for text in TEXTS]
NAMES = ["lora", "adalora", "ia3", "prefix", "loha", "lokr", "vera", "oft", "boft", "hra", "ln_tuning", "road"]
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"rank": 1, "initial": 3},
    "prefix": {"length": 3},
    "oft": {"oft_block_size": 4, "r": 0},
    "boft": {"boft_block_size": 4},
    "hra": {"r": 4},
    "road": {"group_size": 8},
}


def tuned(name: str, find: Find, model: str = "bert", seed: int = 0) -> tuple[Any, Encoder]:
    """Return a tuning, and an encoder in which what it added has moved away from where it starts."""
    torch.manual_seed(seed)
    encoder = TransformerEncoder(TEXT, checkpoint=find(model), layers=1, max_tokens=12)
    tuning = TUNINGS.build(name, OPTIONS.get(name, {}))
    tuning.apply(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return tuning, encoder.eval()


def tokens(encoder: Encoder) -> torch.Tensor:
    with torch.no_grad():
        features = encoder(**encoder.prepare(VALUES))
    return features.tokens[features.mask]


@pytest.mark.parametrize("model", ["bert", "roberta"])
@pytest.mark.parametrize("name", NAMES)
def test_plain_peft_reads_it_and_answers_alike(name: str, model: str, tiny_model: Find, tmp_path: Path) -> None:
    tuning, encoder = tuned(name, tiny_model, model)
    assert tuning.save(encoder, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    base = AutoModel.from_pretrained(tiny_model(model))
    read = PeftModel.from_pretrained(base, tmp_path).eval()
    inputs = AutoTokenizer.from_pretrained(tiny_model(model))(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = read(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(found[inputs["attention_mask"].bool()], tokens(encoder), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*NAMES, "miss", "waveft", "shira", "delora", "gralora"])
def test_folded_into_the_backbone_it_answers_alike(name: str, tiny_model: Find, tmp_path: Path) -> None:
    options = {"miss": {"r": 4}, "waveft": {"n_frequency": 20}, "shira": {"r": 2}, "gralora": {"r": 4}}
    OPTIONS.update(options)
    tuning, encoder = tuned(name, tiny_model)
    expected = tokens(encoder)
    plain = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), layers=1, max_tokens=12)
    merged = tuning.merge(encoder)
    assert merged == (name != "prefix")
    torch.testing.assert_close(tokens(encoder.eval()), expected, rtol=0, atol=1e-5)
    if merged:
        assert type(encoder.backbone) is type(plain.backbone)
        assert encoder.state_dict().keys() == plain.state_dict().keys()
        assert encoder.backbone is not None
        assert weights_digest(base_weights(encoder.backbone)) != weights_digest(base_weights(plain.backbone))  # type: ignore[arg-type]
        encoder.save_backbone(tmp_path)
        again = TransformerEncoder(TEXT, checkpoint=str(tmp_path), layers=1, max_tokens=12)
        torch.testing.assert_close(tokens(again.eval()), expected, rtol=0, atol=1e-5)


def test_what_cannot_be_folded_stays_as_it_was(tiny_model: Find) -> None:
    # All but the last layer can take the bias that is added.
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), layers=1)
    backbone: Any = encoder.backbone
    backbone.encoder.layer[1].output.dense.bias = None
    tuning = TUNINGS.build("beft", {})
    tuning.apply(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    expected, before = tokens(encoder.eval()), weights_digest(encoder.state_dict())
    assert not tuning.merge(encoder)
    assert weights_digest(encoder.state_dict()) == before
    torch.testing.assert_close(tokens(encoder.eval()), expected)


def test_ia3_scales_keys_values_and_what_goes_back(tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), layers=1)
    backbone: Any = encoder.backbone
    plain = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    Ia3Tuning().apply(encoder)
    wrapped = {
        name.removeprefix("base_model.model."): module
        for name, module in encoder.backbone.named_modules()
        if hasattr(module, "ia3_l")
    }
    inside = [f"encoder.layer.{i}.{part}" for i in range(2) for part in _SCALED]
    assert sorted(wrapped) == sorted(inside)
    generator = torch.Generator().manual_seed(0)
    for name, module in wrapped.items():
        scale = torch.randn(module.ia3_l["default"].shape, generator=generator)
        with torch.no_grad():
            module.ia3_l["default"].copy_(scale)
        layer = plain[name]
        x = torch.randn(3, layer.in_features, generator=generator)
        by_hand = layer(x * scale.flatten()) if "output" in name else layer(x) * scale.flatten()
        if "output" not in name:
            assert scale.numel() == layer.out_features
        torch.testing.assert_close(module(x), by_hand)


_SCALED = ("attention.self.key", "attention.self.value", "output.dense")


@pytest.mark.parametrize("name", ["ia3", "lora"])
def test_plain_peft_reads_many_layers_too(name: str, tmp_path: Path, tiny_model: Find) -> None:
    """Of a long list of layers peft keeps only what their names end with."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 9, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=40, **sizes), add_pooling_layer=False).save_pretrained(tmp_path / "deep")
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(tmp_path / "deep")
    tuning, encoder = tuned(name, lambda _: str(tmp_path / "deep"))
    tuning.save(encoder, tmp_path)
    read = PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "deep"), tmp_path)
    given, found = (dict(each.named_parameters()) for each in (encoder.backbone, read))  # type: ignore[union-attr]
    added = {key for key in given if "lora_" in key or "ia3_" in key}
    assert len(added) == 9 * (3 if name == "ia3" else 12)
    assert added == {key for key in found if "lora_" in key or "ia3_" in key}
    assert all(given[key].equal(found[key]) for key in added)


def test_what_is_not_called_is_not_adapted(tiny_model: Find) -> None:
    # Torch's own attention in SigLIP's head multiplies with its output matrix by itself.
    encoder = ENCODERS.build("image_transformer", {"checkpoint": tiny_model("siglip")}, TEXT)
    TUNINGS.build("lora", {"rank": 2}).apply(encoder)
    adapted = {name.rpartition(".lora_A")[0] for name, _ in encoder.named_parameters() if "lora_A" in name}
    assert not any("head.attention" in name for name in adapted)
    assert any("head.mlp" in name for name in adapted)


@pytest.mark.parametrize(
    ("kind", "model", "count"),
    [
        ("transformer", "gpt2", 2 * 2),
        ("transformer", "t5", 2 * 3),
        ("image_transformer", "vit", 2 * 3),
        ("image_transformer", "convnext", 2),
        ("audio_transformer", "wav2vec2", 2 * 3),
        ("audio_transformer", "whisper", 2 * 3),
    ],
)
def test_ia3_finds_its_places(kind: str, model: str, count: int, tiny_model: Find) -> None:
    encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(model)}, TEXT)
    Ia3Tuning().apply(encoder)
    assert sum(hasattr(module, "ia3_l") for module in encoder.modules()) == count


def test_a_prefix_is_attended_to_as_if_it_stood_before_the_text(tiny_model: Find) -> None:
    """One layer of RoBERTa in numpy: the keys and values of the prefix before those of the text."""
    length = 3
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("roberta"), layers=1, max_tokens=12).eval()
    model: Any = encoder.backbone
    layer, embeddings = model.encoder.layer[0], model.embeddings
    PrefixTuning(length=length).apply(encoder)
    wrapped: Any = encoder.backbone
    with torch.no_grad():
        prefix = wrapped.prompt_encoder["default"].embedding.weight.normal_().numpy().reshape(length, 2, 2, 8)
    tensors = encoder.prepare([("a b c",), ("one",)])
    features = encoder(**tensors)
    for row in range(2):
        n = int(tensors["mask"][row].sum())
        with torch.no_grad():
            ids = tensors["ids"][row, :n]
            # The first position that counts is behind the padding's own, and behind the prefix.
            at = torch.arange(n) + length + embeddings.padding_idx + 1
            parts = embeddings.word_embeddings(ids) + embeddings.position_embeddings(at)
            x = embeddings.LayerNorm(parts + embeddings.token_type_embeddings(torch.zeros(n, dtype=torch.long))).numpy()
        keys, values, queries = (
            (x @ part.weight.detach().numpy().T + part.bias.detach().numpy()).reshape(n, 2, 8)
            for part in (layer.attention.self.key, layer.attention.self.value, layer.attention.self.query)
        )
        heads = []
        for head in range(2):
            k = np.concatenate([prefix[:, 0, head], keys[:, head]])
            v = np.concatenate([prefix[:, 1, head], values[:, head]])
            scores = np.exp(queries[:, head] @ k.T / np.sqrt(8))
            heads.append(scores / scores.sum(1, keepdims=True) @ v)
        attended = torch.from_numpy(np.concatenate(heads, axis=1).astype(np.float32))
        with torch.no_grad():
            h = layer.attention.output(attended, torch.from_numpy(x))
            expected = layer.output(layer.intermediate(h), h)
        torch.testing.assert_close(features.tokens[row, :n], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "model", "options", "expected"),
    [
        ("image_transformer", "vit", {}, "stands before a text, and ViTModel reads pixel_values"),
        ("audio_transformer", "wav2vec2", {}, "stands before a text, and Wav2Vec2Model reads input_values"),
        ("audio_transformer", "whisper", {}, "stands before a text, and WhisperEncoder reads input_features"),
        ("transformer", "t5", {"max_tokens": 12}, "does not fit T5EncoderModel"),
        ("transformer", "clip", {"max_tokens": 12}, "does not fit CLIPTextModel"),
        ("transformer", "bert", {}, "length=8: BertModel has too few positions .* lower the encoder's max_tokens"),
        ("transformer", "roberta", {"max_tokens": 14}, "RobertaModel has too few positions"),
        ("transformer", "gpt2", {}, "GPT2Model has too few positions"),
    ],
)
def test_a_prefix_that_does_not_go_is_refused(
    kind: str, model: str, options: dict[str, Any], expected: str, tiny_model: Find
) -> None:
    encoder = ENCODERS.build(kind, {**options, "checkpoint": tiny_model(model)}, TEXT)
    with pytest.raises(InputError, match=expected):
        PrefixTuning().apply(encoder)


def test_a_prefix_begins_small(tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), max_tokens=12)
    PrefixTuning(length=20).apply(encoder)
    weight: Any = next(parameter for parameter in encoder.parameters() if parameter.requires_grad)
    assert weight.shape == (20, 2 * 2 * 16)
    assert float(weight.std()) == pytest.approx(0.02, rel=0.2)


def test_options_of_peft_reach_peft(tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"))
    TUNINGS.build("loha", {"r": 3, "target_modules": ["query"], "modules_to_save": ["LayerNorm"]}).apply(encoder)
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert all(("query" in name) or ("LayerNorm" in name) for name in trained)
    assert any("LayerNorm" in name for name in trained)
    assert {tuple(p.shape) for n, p in encoder.named_parameters() if "hada_w1_b" in n} == {(3, 16)}
    everywhere = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"))
    TUNINGS.build("loha", {}).apply(everywhere)
    assert sum("hada_w1_b" in name for name, _ in everywhere.named_parameters()) == 2 * 6


@pytest.mark.parametrize(
    ("name", "options", "model", "expected"),
    [
        ("shira", {"r": 4000}, "bert", r"shira does not fit BertModel \(.*more shira params"),
        ("loha", {"target_modules": ["nowhere"]}, "bert", r"loha does not fit BertModel \(.*nowhere"),
        ("hra", {}, "gpt2", r"hra does not fit GPT2Model \(.*Conv1D"),
        ("osf", {}, "gpt2", r"osf finds nothing to train in GPT2Model"),
        ("trainable_tokens", {"token_indices": [3]}, "vit", r"trainable_tokens does not fit ViTModel"),
        ("loha", {}, "resnet", r"ResNetModel has no linear layers to adapt"),
        ("lora", {}, "resnet", r"ResNetModel has no linear layers to adapt"),
        ("ia3", {}, "resnet", r"ResNetModel has no linear layers to adapt"),
    ],
)
def test_what_does_not_fit_says_why(
    name: str, options: dict[str, Any], model: str, expected: str, tiny_model: Find
) -> None:
    kind = "image_transformer" if model in ("vit", "resnet") else "transformer"
    encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(model)}, TEXT)
    with pytest.raises(InputError, match=rf"tuning: {expected}"):
        TUNINGS.build(name, options).apply(encoder)


@pytest.mark.parametrize("name", [*NAMES, "bias", "adapter", "last"])
def test_an_encoder_without_a_backbone_is_refused(name: str) -> None:
    encoder = ConvnetEncoder([Column(name="photo", type="image", size=8)], width=4)
    with pytest.raises(InputError, match=rf"tuning: {name} needs a pretrained backbone, and ConvnetEncoder has none"):
        TUNINGS.build(name, OPTIONS.get(name, {})).apply(encoder)


def test_a_method_that_changes_the_backbone_itself_is_refused(
    tiny_model: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrap(model: Any, config: Any) -> Any:
        with torch.no_grad():
            model.encoder.layer[0].output.dense.weight.mul_(1.5)
        return get_peft_model(model, config)

    monkeypatch.setattr("peft.get_peft_model", wrap)
    with pytest.raises(InputError, match="loha with these options changes the backbone's own weights"):
        TUNINGS.build("loha", {}).apply(TransformerEncoder(TEXT, checkpoint=tiny_model("bert")))


@pytest.mark.parametrize("change", ["missing", "added", "shape"])
@pytest.mark.parametrize("name", ["lora", "ia3", "prefix", "loha"])
def test_what_was_not_saved_by_it_is_told(name: str, change: str, tiny_model: Find, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tuning, encoder = tuned(name, tiny_model)
    tuning.save(encoder, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    first = next(iter(weights))
    if change == "missing":
        weights["other"] = weights.pop(first)
    elif change == "added":
        weights["other"] = weights[first].clone()
    else:
        weights[first] = torch.cat([weights[first]] * 2)
    save_file(weights, path)
    fresh = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), layers=1, max_tokens=12)
    with pytest.raises(ArtifactError, match=rf"does not fit the recipe's {name}"):
        TUNINGS.build(name, OPTIONS.get(name, {})).restore(fresh, tmp_path)


def test_nothing_but_names_and_numbers_is_read_from_what_was_saved(tiny_model: Find, tmp_path: Path) -> None:
    tuning, encoder = tuned("lora", tiny_model)
    tuning.save(encoder, tmp_path)
    # What stands in the configuration could name a module to import, or a model to fetch.
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "XLORA", "adapters": {"a": "/nowhere"}}))
    fresh = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), layers=1, max_tokens=12)
    tuning.restore(fresh, tmp_path)
    torch.testing.assert_close(tokens(fresh.eval()), tokens(encoder))
