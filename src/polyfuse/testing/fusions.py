"""The contract of a fusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from polyfuse.core.contract import Fusion
from polyfuse.core.types import Features
from polyfuse.testing.assertions import (
    all_trained,
    copy_state,
    own_chance,
    same,
    same_features,
    weighted_sum,
    well_formed,
)

# A module has methods of its own named like the last two.
_DIMS = {"image": 6, "keys": 9, "forward": 5}
_TOKENS = 4
_GARBAGE = (float("nan"), float("inf"), 1e30)
# Each modality is absent somewhere; the last row has none at all.
_PRESENT = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()


def check_fusion(make: Callable[[Mapping[str, int]], Fusion]) -> None:
    """Check a fusion against its contract.

    Args:
        make: makes the fusion for the widths of some modalities, e.g. its class.

    Raises:
        AssertionError: the contract is broken.
    """
    fusion, second = make(_DIMS).eval(), make(_DIMS).eval()
    features = _features(_TOKENS)
    fused = _fuse(fusion, features, _PRESENT)
    well_formed(fused, len(_PRESENT), fusion.dim, "forward")
    assert bool(fused.mask.any(1).all()), "a fused row has no real token"
    assert fusion.needs in ("tokens", "pooled"), f"needs={fusion.needs!r} is neither 'tokens' nor 'pooled'"
    same_features(_fuse(fusion, features, _PRESENT), fused, "the same features fused twice in evaluation mode")
    _check_absence(fusion, features)
    _check_padding(fusion, features)
    _check_rows(fusion, features, fused)
    _check_pooled(fusion)
    own_chance(fusion, lambda: _fuse(fusion, features, _PRESENT).pooled, "forward")
    copy_state(fusion, second, "state_dict")
    same_features(_fuse(second, features, _PRESENT), fused, "a second fusion with the first one's state")


def _features(tokens: int) -> dict[str, Features]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, dim in _DIMS.items():
        values = torch.randn(len(_PRESENT), tokens, dim, generator=generator)
        lengths = torch.randint(1, tokens + 1, (len(_PRESENT),), generator=generator)
        made[name] = Features.of_tokens(values, torch.arange(tokens) < lengths[:, None])
    return made


def _fuse(fusion: Fusion, features: Mapping[str, Features], present: Tensor) -> Features:
    with torch.no_grad():
        fused: Features = fusion(features, present)
    return fused


def _gradients(fusion: Fusion, features: Mapping[str, Features]) -> dict[str, Tensor]:
    """Return the gradient of each parameter, and of each modality's features."""
    fusion.zero_grad(set_to_none=True)
    leaves = {
        name: Features(each.tokens.clone().requires_grad_(), each.mask, each.pooled.clone().requires_grad_())
        for name, each in features.items()
    }
    torch.autograd.backward(weighted_sum(fusion(leaves, _PRESENT)))
    all_trained(fusion, type(fusion).__name__)
    found = {name: p.grad.clone() for name, p in fusion.named_parameters() if p.grad is not None}
    for name, leaf in leaves.items():
        for kind, tensor in (("tokens", leaf.tokens), ("pooled", leaf.pooled)):
            if tensor.grad is not None:
                found[f"{kind} of {name}"] = tensor.grad.clone()
    fusion.zero_grad(set_to_none=True)
    return found


def _check_absence(fusion: Fusion, features: Mapping[str, Features]) -> None:
    fused, gradients = _fuse(fusion, features, _PRESENT), _gradients(fusion, features)
    for garbage in _GARBAGE:
        spoilt = {}
        for i, (name, each) in enumerate(features.items()):
            absent = ~_PRESENT[:, i]
            tokens, mask, pooled = each.tokens.clone(), each.mask.clone(), each.pooled.clone()
            tokens[absent], pooled[absent], mask[absent] = garbage, garbage, False
            spoilt[name] = Features(tokens, mask, pooled)
        what = f"with {garbage} in the slots of absent modalities"
        same_features(_fuse(fusion, spoilt, _PRESENT), fused, what)
        for name, gradient in _gradients(fusion, spoilt).items():
            same(gradient, gradients[name], f"gradient of {name} {what}")


def _check_padding(fusion: Fusion, features: Mapping[str, Features]) -> None:
    fused = _fuse(fusion, features, _PRESENT)
    for garbage in (0.0, *_GARBAGE):
        longer = {}
        for name, each in features.items():
            tokens = each.tokens.masked_fill(~each.mask.unsqueeze(-1), garbage)
            more = tokens.new_full((len(tokens), 3, tokens.shape[-1]), garbage)
            mask = torch.cat([each.mask, torch.zeros(len(tokens), 3, dtype=torch.bool)], dim=1)
            longer[name] = Features(torch.cat([tokens, more], dim=1), mask, each.pooled)
        same_features(_fuse(fusion, longer, _PRESENT), fused, f"tokens padded with {garbage}")


def _check_rows(fusion: Fusion, features: Mapping[str, Features], fused: Features) -> None:
    orders = [torch.arange(len(_PRESENT)).flip(0), *torch.split(torch.arange(len(_PRESENT)), 1)]
    for order in orders:
        some = {name: _pick(each, order) for name, each in features.items()}
        what = f"the rows {order.tolist()} alone, in this order"
        same_features(_fuse(fusion, some, _PRESENT[order]), _pick(fused, order), what)


def _check_pooled(fusion: Fusion) -> None:
    pooled = {name: Features.of_pooled(each.pooled) for name, each in _features(_TOKENS).items()}
    well_formed(_fuse(fusion, pooled, _PRESENT), len(_PRESENT), fusion.dim, "forward of one token each")


def _pick(features: Features, rows: Tensor) -> Features:
    return Features(features.tokens[rows], features.mask[rows], features.pooled[rows])
