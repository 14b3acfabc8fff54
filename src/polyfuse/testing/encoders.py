"""The contract of an encoder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.testing.assertions import all_trained, copy_state, same, same_features, weighted_sum, well_formed


def check_encoder(encoder: Encoder | Callable[[], Encoder], values: Sequence[tuple[Any, ...] | None]) -> None:
    """Check an encoder against its contract.

    Args:
        encoder: the encoder, or what makes it: then a second one, made anew, must answer like the first with the
            first one's state.
        values: at least two present values, of different lengths where lengths differ; None is added.

    Raises:
        AssertionError: the contract is broken.
    """
    first = encoder if isinstance(encoder, Encoder) else encoder()
    second = copy.deepcopy(first) if isinstance(encoder, Encoder) else encoder()
    assert sum(value is not None for value in values) >= 2, "values: give at least two that are present"
    first.eval(), second.eval()
    assert first.reads, "reads: name the column types that the encoder reads"
    _check_preparation(first)
    rows = [*values, None]
    tensors = _check_prepared(first, rows)
    features = encode(first, tensors)
    _check_features(first, features, rows)
    same_features(encode(first, tensors), features, "the same values encoded twice in evaluation mode")
    check_rows_alone(first, rows, features)
    _check_padding(first, tensors, features)
    _check_gradients(first, tensors)
    _check_restored(first, rows, tensors)
    _check_shifted(first, tensors, features)
    copy_state(first, second, "state_dict")
    same_features(encode(second, second.prepare(rows)), features, "a second encoder with the first one's state")


def encode(encoder: Encoder, tensors: Tensors) -> Features:
    """Return Features without gradients."""
    with torch.no_grad():
        features: Features = encoder(**tensors)
    return features


def _check_preparation(encoder: Encoder) -> None:
    about = encoder.preparation()
    assert json.loads(json.dumps(about)) is not None, "preparation() is not JSON"
    assert json.dumps(about) == json.dumps(encoder.preparation()), "preparation() differs from call to call"


def _check_prepared(encoder: Encoder, rows: Sequence[tuple[Any, ...] | None]) -> Tensors:
    tensors = encoder.prepare(rows)
    for name, tensor in tensors.items():
        assert isinstance(tensor, torch.Tensor), f"prepare gives {type(tensor).__name__} as {name!r}, not a tensor"
        assert tensor.device.type == "cpu", f"prepare gives {name!r} on {tensor.device}, not on the CPU"
        assert len(tensor) == len(rows), f"prepare gives {len(tensor)} rows of {name!r} for {len(rows)} values"
    for name, again in encoder.prepare(rows).items():
        assert again.equal(tensors[name]), f"prepare gives another {name!r} for the same values"
    if "mask" in tensors:
        assert tensors["mask"].dtype == torch.bool, f"the prepared mask is {tensors['mask'].dtype}, not bool"
    for name, (low, high) in encoder.continuous.items():
        assert name in tensors, f"continuous names {name!r}, and prepare gives {sorted(tensors)}"
        tensor = tensors[name]
        assert tensor.is_floating_point(), f"{name!r} is declared continuous and is {tensor.dtype}"
        if tensor.numel():
            found = float(tensor.min()), float(tensor.max())
            assert low <= found[0] <= found[1] <= high, f"{name!r} lies in {found}, outside its bounds {(low, high)}"
    return tensors


def _check_features(encoder: Encoder, features: Features, rows: Sequence[tuple[Any, ...] | None]) -> None:
    well_formed(features, len(rows), encoder.dim, "forward")
    for i, value in enumerate(rows):
        if value is not None:
            assert bool(features.mask[i].any()), f"value {i} is present and has no real token"


def check_rows_alone(encoder: Encoder, rows: Sequence[tuple[Any, ...] | None], features: Features) -> None:
    """Assert that a row's Features depend on that row alone."""
    order = list(reversed(range(len(rows))))
    turned = encode(encoder, encoder.prepare([rows[i] for i in order]))
    same_features(turned, _pick(features, order), "rows in reverse order")
    for i, value in enumerate(rows):
        if value is not None:
            same_features(encode(encoder, encoder.prepare([value])), _pick(features, [i]), f"value {i} encoded alone")


def _check_padding(encoder: Encoder, tensors: Tensors, features: Features) -> None:
    """Put something else where the padding is; that a row may be padded at all is seen where rows are encoded alone."""
    mask = tensors.get("mask")
    if mask is None or mask.ndim != 2:
        return
    for filling in (0, 1):
        changed = dict(tensors)
        for name, tensor in tensors.items():
            if name != "mask" and tensor.shape[:2] == mask.shape:
                changed[name] = tensor.clone()
                changed[name][~mask] = filling
        same_features(encode(encoder, changed), features, f"the padding filled with {filling}")


def _check_gradients(encoder: Encoder, tensors: Tensors) -> None:
    leaves = {name: tensors[name].clone().requires_grad_() for name in encoder.continuous}
    encoder.zero_grad(set_to_none=True)
    total = weighted_sum(encoder(**{**tensors, **leaves}))
    if total.requires_grad:
        torch.autograd.backward(total)
    all_trained(encoder, type(encoder).__name__)
    for name, leaf in leaves.items():
        if not leaf.numel():
            continue
        assert leaf.grad is not None, f"{name!r} is declared continuous and gets no gradient"
        same(leaf.grad, leaf.grad, f"gradient of {name!r}")
        assert bool(leaf.grad.any()), f"{name!r} is declared continuous and its gradient is zero everywhere"
    encoder.zero_grad(set_to_none=True)


def _check_restored(encoder: Encoder, rows: Sequence[tuple[Any, ...] | None], tensors: Tensors) -> None:
    """Alter what may be altered: values come back from which the same is prepared again."""
    for name, (low, high) in encoder.continuous.items():
        free = encoder.alterable(tensors)
        assert free.shape == tensors[name].shape, f"alterable is {tuple(free.shape)}, {name!r} another shape"
        moved = tensors[name] * 0.9 + (0.1 if low == 0 else 0.0)
        altered = {**tensors, name: torch.where(free, moved.clamp(low, high), tensors[name])}
        back = encoder.restore(altered, rows)
        assert [value is None for value in back] == [value is None for value in rows], "restore: another presence"
        again = encoder.prepare(back)
        for key, tensor in tensors.items():
            what = f"{key!r} prepared from restored values"
            if key == name:  # images are rounded to 8 bits
                same(again[key][: len(rows) - 1], altered[key][: len(rows) - 1], what, tolerance=2e-3)
            else:
                assert again[key].equal(tensor), f"{what} is another"


def _check_shifted(encoder: Encoder, tensors: Tensors, features: Features) -> None:
    """Shift embeddings by nothing, and by something."""
    with torch.no_grad():
        embedded = encoder.embedded(tensors)
    if embedded is None:
        return
    nothing = torch.zeros_like(embedded)
    same_features(encode(encoder, {**tensors, "shift": nothing}), features, "embeddings shifted by nothing")
    moved = encode(encoder, {**tensors, "shift": embedded.flip(2)})  # a constant would go with the first norm
    here = features.mask.any(1)
    assert not torch.allclose(moved.pooled[here], features.pooled[here]), "a shift of embeddings changes nothing"


def _pick(features: Features, rows: Sequence[int]) -> Features:
    at = torch.tensor(rows)
    return Features(features.tokens[at], features.mask[at], features.pooled[at])
