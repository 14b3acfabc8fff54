"""Each fusion's formula, derived a second time in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fusion.reference import pool
from polyfuse.core.types import Features
from polyfuse.fusion import FUSIONS
from polyfuse.fusion.aligned import AlignedFusion
from polyfuse.fusion.attention import AttentionFusion
from polyfuse.fusion.concat import ConcatFusion
from polyfuse.fusion.deep import DeepFusion
from polyfuse.fusion.gated import GatedFusion
from polyfuse.layers.transformer import Attention

DIMS = {"text": 5, "image": 3}
PRESENT = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
Array = NDArray[np.float64]


def features(tokens: int = 3) -> dict[str, Features]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([3, 2, 1, 3]).clamp(max=tokens)
    made = {}
    for name, dim in DIMS.items():
        values = torch.randn(4, tokens, dim, generator=generator, dtype=torch.float64)
        made[name] = Features.of_tokens(values, torch.arange(tokens) < lengths[:, None])
    return made


def array(tensor: torch.Tensor) -> Array:
    found: Array = tensor.detach().numpy()
    return found


def linear(layer: Any, x: Array) -> Array:
    return x @ array(layer.weight).T + array(layer.bias)


def norm(layer: Any, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * array(layer.weight) + array(layer.bias)


def gelu(x: Array) -> Array:
    return x * array(torch.special.ndtr(torch.from_numpy(x)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    found: Array = e / e.sum(-1, keepdims=True)
    return found


def aligned(fusion: AlignedFusion, row: int) -> list[Array]:
    """Return h_i of one row."""
    found = []
    for i, each in enumerate(features().values()):
        projection: Any = fusion.projections[i]
        here = bool(PRESENT[row, i])
        h = linear(projection[1], norm(projection[0], array(each.pooled[row]))) if here else array(fusion.absent[i])
        found.append(h)
    return found


def make(kind: type[AlignedFusion], **options: Any) -> Any:
    torch.manual_seed(0)
    fusion = kind(DIMS, dim=4, **options).double().eval()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return fusion


def attention(layer: Any, queries: Array, tokens: Array) -> Array:
    q, k, v = linear(layer.query, queries), linear(layer.key, tokens), linear(layer.value, tokens)
    size = q.shape[-1] // layer.heads
    mixed = [
        softmax(q[:, at] @ k[:, at].T / np.sqrt(size)) @ v[:, at]
        for at in (slice(h * size, (h + 1) * size) for h in range(layer.heads))
    ]
    return linear(layer.out, np.concatenate(mixed, axis=-1))


def test_concat() -> None:
    fusion = make(ConcatFusion)
    found = array(fusion(features(), PRESENT).pooled)
    for row in range(4):
        np.testing.assert_allclose(found[row], linear(fusion.out, np.concatenate(aligned(fusion, row))))


def test_deep() -> None:
    fusion = make(DeepFusion, depth=2)
    found = array(fusion(features(), PRESENT).pooled)
    for row in range(4):
        z = linear(fusion.join, np.concatenate(aligned(fusion, row)))
        for block in fusion.blocks:
            z = z + linear(block[4], gelu(linear(block[1], norm(block[0], z))))
        np.testing.assert_allclose(found[row], norm(fusion.norm, z))


def test_gated_and_its_weights_read_back() -> None:
    fusion = make(GatedFusion)
    found, weights = array(fusion(features(), PRESENT).pooled), array(fusion.weights(features(), PRESENT))
    for row in range(4):
        h = aligned(fusion, row)
        here = array(PRESENT[row]) if PRESENT[row].any() else np.array([True, True])
        gates = softmax(np.where(here, linear(fusion.gate, np.concatenate(h)), -np.inf))
        mixed = sum(g * np.tanh(linear(value, each)) for g, value, each in zip(gates, fusion.values, h, strict=True))
        np.testing.assert_allclose(weights[row], gates)
        np.testing.assert_allclose(found[row], norm(fusion.norm, mixed))
    assert weights[1].tolist() == [1.0, 0.0]
    assert weights[2].tolist() == [0.0, 1.0]


def test_attention_over_the_tokens_of_what_is_present() -> None:
    fusion = make(AttentionFusion, depth=2, heads=2)
    given = features()
    found = array(fusion(given, PRESENT).pooled)
    for row in range(4):
        tokens = []
        for i, each in enumerate(given.values()):
            projection, kind = fusion.projections[i], array(fusion.kinds[i])
            real = array(each.tokens[row][each.mask[row]])
            here = (
                linear(projection[1], norm(projection[0], real)) if PRESENT[row, i] else array(fusion.absent[i])[None]
            )
            tokens.append(here + kind)
        z = np.concatenate(tokens)
        for block in fusion.blocks:
            normed = norm(block.norm_attention, z)
            z = z + attention(block.attention, normed, normed)
            z = z + linear(block.mlp[-1], gelu(linear(block.mlp[0], norm(block.norm_mlp, z))))
        np.testing.assert_allclose(found[row], norm(fusion.norm, pool(fusion.pool, z)))


@pytest.mark.parametrize("name", FUSIONS)
def test_dropout_acts_in_training_only(name: str) -> None:
    options = {"dim": 8, "dropout": 0.5, **({"heads": 2} if name == "attention" else {})}
    fusion: nn.Module = FUSIONS.build(name, options, DIMS).double()
    assert not fusion.train()(features(), PRESENT).pooled.equal(fusion(features(), PRESENT).pooled)
    assert fusion.eval()(features(), PRESENT).pooled.equal(fusion(features(), PRESENT).pooled)


@pytest.mark.parametrize(("name", "option", "value"), [("deep", "depth", 3), ("attention", "depth", 3)])
def test_depth_adds_blocks(name: str, option: str, value: int) -> None:
    assert len(FUSIONS.build(name, {option: value}, DIMS).blocks) == 3  # type: ignore[arg-type]


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="dim=128 cannot be shared by heads=3"):
        Attention(128, 3)
    with pytest.raises(ValueError, match="heads=5"):
        FUSIONS.build("attention", {"heads": 5}, DIMS)
