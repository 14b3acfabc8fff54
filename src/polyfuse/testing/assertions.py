"""Assertions that the checks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from polyfuse.core.types import Features
from polyfuse.layers.dropout import drawing_from


def same(given: Tensor, expected: Tensor, what: str, tolerance: float = 1e-4) -> None:
    """Assert that two tensors have one shape and differ by less than a share of the largest entry."""
    assert given.shape == expected.shape, f"{what}: shape {tuple(given.shape)}, not {tuple(expected.shape)}"
    if not given.numel():
        return
    given, expected = given.detach().double(), expected.detach().double()
    assert bool(given.isfinite().all()), f"{what}: not finite"
    gap = float((given - expected).abs().max())
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    assert gap <= allowed, f"{what}: differs by {gap:.2g}, more than {allowed:.2g}"


def same_features(given: Features, expected: Features, what: str) -> None:
    """Assert that two Features agree in their real tokens and their pooled vectors."""
    counts, wanted = given.mask.sum(1), expected.mask.sum(1)
    assert counts.equal(wanted), f"{what}: {counts.tolist()} real tokens, not {wanted.tolist()}"
    same(given.tokens[given.mask], expected.tokens[expected.mask], f"{what}: tokens")
    same(given.pooled, expected.pooled, f"{what}: pooled")


def well_formed(features: Features, batch: int, dim: int, what: str) -> None:
    """Assert shapes, types, and that what counts is finite."""
    assert isinstance(features, Features), f"{what} returns {type(features).__name__}, not Features"
    tokens, mask, pooled = features.tokens, features.mask, features.pooled
    assert tokens.ndim == 3, f"{what}: tokens are (batch, tokens, dim), not {tuple(tokens.shape)}"
    assert tokens.shape[::2] == (batch, dim), f"{what}: tokens {tuple(tokens.shape)} for batch={batch}, dim={dim}"
    assert mask.shape == tokens.shape[:2], f"{what}: mask {tuple(mask.shape)} beside tokens {tuple(tokens.shape)}"
    assert mask.dtype == torch.bool, f"{what}: mask is {mask.dtype}, not bool"
    assert pooled.shape == (batch, dim), f"{what}: pooled {tuple(pooled.shape)}, not {(batch, dim)}"
    for name, tensor in (("tokens", tokens[mask]), ("pooled", pooled)):
        assert tensor.is_floating_point(), f"{what}: {name} are {tensor.dtype}, not floating point"
        assert bool(tensor.isfinite().all()), f"{what}: {name} are not finite"


def weighted_sum(features: Features) -> Tensor:
    """Return a scalar on which every real token and every pooled entry has a weight of its own."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for part in (features.tokens[features.mask], features.pooled):
        total = total + (part * torch.randn(part.shape, generator=generator)).sum()
    return total


def own_chance(module: nn.Module, answer: Callable[[], Tensor], what: str) -> None:
    """Assert that all that a module draws in training comes from the generator that it is given.

    Candidates are trained side by side: what one of them draws from torch's own, the others miss.
    """
    before, found = torch.get_rng_state(), []
    module.train()
    with torch.no_grad():
        for _ in range(2):
            with drawing_from(torch.Generator().manual_seed(0)):
                found.append(answer())
    module.eval()
    advice = "drop with polyfuse.layers.dropout.Dropout"
    assert torch.get_rng_state().equal(before), f"{what} draws from torch's own generator in training: {advice}"
    same(found[1], found[0], f"{what} in training, drawing from the same seed twice")


def all_trained(module: nn.Module, what: str) -> None:
    """Assert that every trainable parameter has a finite gradient."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad or not parameter.numel():
            continue
        assert parameter.grad is not None, f"{what}: the parameter {name!r} gets no gradient"
        assert bool(parameter.grad.isfinite().all()), f"{what}: the gradient of {name!r} is not finite"


def copy_state(source: nn.Module, target: nn.Module, what: str) -> None:
    """Bring the state of one module into another, by way of safetensors, after the other's was spoilt."""
    with torch.no_grad():
        for tensor in target.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1.0)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in source.state_dict().items()}
    outcome = target.load_state_dict(load(save(state)), strict=False)
    assert not outcome.missing_keys, f"{what}: a second one has state that the first lacks: {outcome.missing_keys}"
    assert not outcome.unexpected_keys, f"{what}: a second one lacks the state {outcome.unexpected_keys}"
