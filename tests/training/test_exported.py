"""ONNX Runtime gives what the encoder's forward gives, at any batch and length."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from polyfuse.core import errors
from polyfuse.core.errors import MissingExtra
from polyfuse.data.schema import Column
from polyfuse.encoders import ENCODERS
from polyfuse.training.exported import ExportError, can_export, exported
from training.test_cache import Letters

pytestmark = pytest.mark.skipif(not can_export(), reason="polyfuse[onnx] is not installed")
Find = Callable[[str], str]


@pytest.mark.parametrize(
    ("kind", "column", "name"), [("transformer", "text", "bert"), ("image_transformer", "image", "vit")]
)
def test_features_are_those_of_forward(kind: str, column: str, name: str, tiny_model: Find) -> None:
    encoder = ENCODERS.build(kind, {"checkpoint": tiny_model(name)}, [Column(name="c", type=column)])  # type: ignore[arg-type]
    encoder.eval().requires_grad_(False)
    short, long = encoder.examples()
    level = logging.root.manager.disable
    with exported(encoder) as run:
        assert logging.root.manager.disable == level
        for values in ([short], [long], [long, short, long, long, short]):
            tensors = encoder.prepare(values)
            with torch.inference_mode():
                expected = encoder(**tensors)
            found = run(tensors)
            torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-4, atol=1e-5)
            assert found.mask.equal(expected.mask)


def test_what_cannot_be_exported_says_so(tiny_model: Find) -> None:
    with pytest.raises(ExportError, match=r"Letters gives no examples.*choose auto"), exported(Letters()):
        pass
    encoder = ENCODERS.build(
        "audio_transformer", {"checkpoint": tiny_model("wav2vec2")}, [Column(name="c", type="audio")]
    )
    with pytest.raises(ExportError, match="AudioTransformerEncoder cannot be exported"), exported(encoder.eval()):
        pass


def test_where_it_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"polyfuse\[onnx\]"), exported(Letters()):
        pass
