"""Learning rates: one for a backbone, or falling from layer to layer, as far as the optimizer."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from torch import nn

from polyfuse.core.errors import InputError
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.training.optimization import make_optimizer
from polyfuse.training.settings import TrainingSettings
from polyfuse.tuning import TUNINGS
from polyfuse.tuning.backbone import count
from polyfuse.tuning.bias import BiasTuning
from polyfuse.tuning.last import LastTuning
from polyfuse.tuning.whole import FullTuning

Find = Callable[[str], str]
TEXT = [Column(name="title", type="text")]
PHOTO = [Column(name="photo", type="image", size=8)]


@pytest.mark.parametrize(
    ("kind", "model", "layer", "after"),
    [
        ("transformer", "bert", r"encoder\.layer\.(\d)\.", "nothing"),
        ("transformer", "bart", r"layers\.(\d)\.", "nothing"),  # its first norm is registered behind the layers
        ("transformer", "gpt2", r"h\.(\d)\.", "ln_f"),
        ("image_transformer", "vit", r"layers\.(\d)\.", "layernorm"),
        ("audio_transformer", "wav2vec2", r"encoder\.layers\.(\d)\.", "nothing"),
    ],
)
def test_rates_fall_from_layer_to_layer(kind: str, model: str, layer: str, after: str, tiny_model: Find) -> None:
    encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(model)}, TEXT)
    tuning = FullTuning(learning_rate=1e-3, layer_decay=0.5)
    tuning.apply(encoder)
    rates = tuning.rates(encoder)
    assert encoder.backbone is not None
    for name, parameter in encoder.backbone.named_parameters():
        found = re.match(layer, name)
        depth = int(found.group(1)) + 1 if found else 2 if name.startswith(after) else 0
        assert rates[parameter] == pytest.approx(1e-3 * 0.5 ** (2 - depth)), name
    encoder.requires_grad_(True)
    made = make_optimizer(encoder, rates, TrainingSettings(learning_rate=1.0))
    assert {group["lr"] for group in made.param_groups} == {1e-3, 0.5e-3, 0.25e-3}


def test_the_last_layers_follow_the_same_rule(tiny_model: Find) -> None:
    encoder = ENCODERS.build("image_transformer", {"checkpoint": tiny_model("vit")}, TEXT)
    tuning = LastTuning(layers=2, learning_rate=1e-3, layer_decay=0.1)
    tuning.apply(encoder)
    rates = {name: tuning.rates(encoder)[p] for name, p in encoder.named_parameters() if p.requires_grad}
    assert rates["backbone.layernorm.weight"] == 1e-3
    assert rates["backbone.layers.1.mlp.fc1.weight"] == 1e-3
    assert rates["backbone.layers.0.mlp.fc1.weight"] == pytest.approx(1e-4)
    assert set(LastTuning(learning_rate=2e-4).rates(encoder).values()) == {2e-4}


def test_without_a_backbone_the_rate_of_the_training_holds() -> None:
    encoder = ConvnetEncoder(PHOTO, width=4)
    FullTuning().apply(encoder)
    assert FullTuning().rates(encoder) == {}
    with pytest.raises(InputError, match="full with layer_decay needs a pretrained backbone"):
        FullTuning(layer_decay=0.9).apply(encoder)


@pytest.mark.parametrize("name", ["bias", "lora", "adalora", "ia3", "adapter", "prefix", "loha", "last", "full"])
def test_every_tuning_has_a_rate_of_its_own(name: str, tiny_model: Find) -> None:
    encoder = ENCODERS.build("transformer", {"checkpoint": tiny_model("bert"), "max_tokens": 12}, TEXT)
    tuning = TUNINGS.build(name, {"learning_rate": 0.0123})
    tuning.apply(encoder)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert {tuning.rates(encoder)[parameter] for parameter in trained} == {0.0123}


def test_biases_alone_move(tiny_model: Find) -> None:
    encoder = ENCODERS.build("transformer", {"checkpoint": tiny_model("bert")}, TEXT)
    BiasTuning().apply(encoder)
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == name.endswith(".bias")
    with pytest.raises(InputError, match=r"T5EncoderModel has no biases"):
        BiasTuning().apply(ENCODERS.build("transformer", {"checkpoint": tiny_model("t5")}, TEXT))


def test_weights_are_counted(tiny_model: Find) -> None:
    def fresh() -> nn.Module:
        return ENCODERS.build("transformer", {"checkpoint": tiny_model("bert"), "max_tokens": 12}, TEXT)

    whole = sum(parameter.numel() for parameter in fresh().parameters())
    expected = {
        "frozen": (0, 0),
        "full": (whole, 0),
        # A layer has six matrices: four of 16 × 16 and two between 16 and 32.
        "lora": (2 * 3 * (4 * 32 + 2 * 48),) * 2,
        "ia3": (2 * (16 + 16 + 32),) * 2,
        "adapter": (2 * (16 * 4 + 4 + 4 * 16 + 16),) * 2,
        "prefix": (3 * 2 * 2 * 16,) * 2,
    }
    options = {"lora": {"rank": 3}, "adapter": {"size": 4}, "prefix": {"length": 3}}
    for name, (trained, added) in expected.items():
        encoder = fresh()
        TUNINGS.build(name, options.get(name, {})).apply(encoder)  # type: ignore[arg-type]
        found = count(encoder)  # type: ignore[arg-type]
        assert (found.trained, found.all, found.added) == (trained, whole + added, added), name
    assert count(ENCODERS.build("embedding", {}, [Column(name="v", type="embedding", size=3)])).all == 0
