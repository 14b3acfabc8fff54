"""What the tests of the fusions share: inputs, the common parts a second time in plain numpy, and a short training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from polyfuse.core.contract import Fusion
from polyfuse.core.types import Features
from polyfuse.fusion.aligned import AlignedFusion

Array = NDArray[np.float64]

# A module has members of its own named like the first three.
WIDTHS = {"forward": 5, "keys": 3, "name": 4, "text": 2, "a.b": 6, "": 3}


def dims(count: int) -> dict[str, int]:
    """Return the widths of the first modalities."""
    return dict(list(WIDTHS.items())[:count])


def subsets(count: int) -> Tensor:
    """Return the rows of a batch, one for each subset of the modalities: (2^count, count) bool."""
    return torch.tensor([[bool(row >> i & 1) for i in range(count)] for row in range(2**count)])


def features(widths: Mapping[str, int], batch: int, tokens: int = 3) -> dict[str, Features]:
    """Return random Features of each modality, float64, of different lengths."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, dim in widths.items():
        values = torch.randn(batch, tokens, dim, generator=generator, dtype=torch.float64)
        lengths = torch.randint(1, tokens + 1, (batch, 1), generator=generator)
        made[name] = Features.of_tokens(values, torch.arange(tokens) < lengths)
    return made


def build(kind: type[AlignedFusion], widths: Mapping[str, int], **options: Any) -> Any:
    """Return a fusion in float64 and evaluation mode, none of whose parameters has a special value."""
    torch.manual_seed(0)
    fusion = kind(widths, **{"dim": 4, **options}).double().eval()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return fusion


def array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().numpy()
    return found


def linear(layer: Any, x: Array) -> Array:
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


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


def attention(layer: Any, queries: Array, tokens: Array) -> Array:
    q, k, v = linear(layer.query, queries), linear(layer.key, tokens), linear(layer.value, tokens)
    size = q.shape[-1] // layer.heads
    mixed = [
        softmax(q[:, at] @ k[:, at].T / np.sqrt(size)) @ v[:, at]
        for at in (slice(h * size, (h + 1) * size) for h in range(layer.heads))
    ]
    return linear(layer.out, np.concatenate(mixed, axis=-1))


def pool(layer: Any, z: Array) -> Array:
    """Return what the queries of an AttentionPool read of one row's tokens."""
    x, size = norm(layer.norm, z), z.shape[-1] // len(layer.queries)
    biases = array(layer.values.bias).reshape(-1, size)
    read = [
        softmax(x @ query) @ x @ weight + bias
        for query, weight, bias in zip(array(layer.queries), array(layer.values.weight), biases, strict=True)
    ]
    return linear(layer.out, np.concatenate(read))


def block(layer: Any, z: Array) -> Array:
    normed = norm(layer.norm_attention, z)
    z = z + attention(layer.attention, normed, normed)
    return z + linear(layer.mlp[-1], gelu(linear(layer.mlp[0], norm(layer.norm_mlp, z))))


def project(fusion: Any, modality: int, x: Array) -> Array:
    layers = fusion.projections[modality]
    return linear(layers[1], norm(layers[0], x))


def aligned(fusion: Any, given: Mapping[str, Features], present: Tensor, row: int) -> list[Array]:
    """Return h_i of one row."""
    return [
        project(fusion, i, array(each.pooled[row])) if present[row, i] else array(fusion.absent[i])
        for i, each in enumerate(given.values())
    ]


def aligned_tokens(fusion: Any, given: Mapping[str, Features], present: Tensor, row: int) -> list[Array]:
    """Return the real tokens of each modality in one row."""
    return [
        project(fusion, i, array(each.tokens[row][each.mask[row]]))
        if present[row, i]
        else array(fusion.absent[i])[None]
        for i, each in enumerate(given.values())
    ]


def reordered(
    fusion: AlignedFusion, widths: Mapping[str, int], order: Sequence[int], move: Callable[[str, Tensor], Tensor]
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """Return the widths in another order, and the state of a fusion for them that should answer alike.

    Args:
        fusion: made for the widths.
        widths: of its modalities.
        order: places in `widths`, in the new order.
        move: brings any other tensor of the state into the new order, by its name.
    """
    names = list(widths)
    state = {}
    for key, value in fusion.state_dict().items():
        part, _, rest = key.partition(".")
        if part in ("projections", "absent"):
            at, dot, rest = rest.partition(".")
            state[f"{part}.{order.index(int(at))}{dot}{rest}"] = value
        else:
            state[key] = move(key, value)
    return {names[i]: widths[names[i]] for i in order}, state


def columns(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Return the weight of a linear layer on [h_1; …; h_k] for another order of the h_i."""
    return weight.unflatten(1, (len(order), -1))[:, list(order)].flatten(1)


def signs(count: int, rows: int, generator: torch.Generator) -> tuple[dict[str, Features], Tensor]:
    """Return modalities of width 4 that hold a sign each, amid noise, and the signs (rows, count)."""
    planted = torch.randint(0, 2, (rows, count), generator=generator) * 2.0 - 1
    made = {}
    for i in range(count):
        values = torch.randn(rows, 4, generator=generator)
        values[:, 0] = 2 * planted[:, i]
        made[f"m{i}"] = Features.of_pooled(values)
    return made, planted


def fit(
    fusion: Fusion,
    outputs: int,
    draw: Callable[[torch.Generator], tuple[dict[str, Features], Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    *,
    steps: int,
    rate: float = 1e-2,
) -> tuple[float, nn.Linear]:
    """Train a fusion and a linear head on fresh rows, and return the loss on other rows, and the head."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = nn.Linear(fusion.dim, outputs)
    optimizer = torch.optim.AdamW([*fusion.parameters(), *head.parameters()], lr=rate, weight_decay=0.01)
    fusion.train()
    for _ in range(steps):
        given, target = draw(generator)
        present = torch.ones(len(target), len(given), dtype=torch.bool)

        def of(part: Features, rows: Tensor, target: Tensor = target) -> Tensor:
            return loss(head(part.rows(rows).pooled), target[rows])

        fused, penalty = fusion.with_penalty(given, present, of)
        total = loss(head(fused.pooled), target)
        total = total if penalty is None else total + penalty
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    fusion.eval()
    given, target = draw(generator)
    with torch.no_grad():
        found = loss(head(fusion(given, torch.ones(len(target), len(given), dtype=torch.bool)).pooled), target)
    return float(found), head


def survives_extremes(fusion: Fusion, widths: Mapping[str, int]) -> None:
    """Assert that huge, tiny and constant features give finite answers and gradients, in float32."""
    present = subsets(len(widths))
    for value in (0.0, 1e-30, 1e6, 1e15, -1e15):
        given = {name: Features.of_pooled(torch.full((len(present), dim), value)) for name, dim in widths.items()}
        for each in given.values():
            each.pooled[:, 0] *= -1
            each.pooled.requires_grad_()
        fusion.zero_grad()
        fused = fusion(given, present)
        assert fused.pooled.isfinite().all(), value
        assert fused.tokens[fused.mask].isfinite().all(), value
        (fused.pooled.square().sum() + fused.tokens[fused.mask].square().sum()).backward()
        for name, parameter in fusion.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), (name, value)
