"""The contract of a tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.types import Features, Tensors
from polyfuse.core.weights import base_weights, weights_digest
from polyfuse.testing.assertions import all_trained, same_features, weighted_sum
from polyfuse.testing.encoders import check_rows_alone, encode

_UPDATES = 4


def check_tuning(
    make: Callable[[], Tuning],
    make_encoder: Callable[[], Encoder],
    values: Sequence[tuple[Any, ...] | None],
    *,
    starts_unchanged: bool = True,
) -> None:
    """Check a tuning against its contract.

    Args:
        make: makes the tuning.
        make_encoder: makes an encoder that it can tune, the same one each time.
        values: at least two present values, of different lengths where lengths differ.
        starts_unchanged: whether the tuned encoder has to begin as the encoder was.

    Raises:
        AssertionError: the contract is broken.
    """
    plain, encoder, tuning = make_encoder().eval(), make_encoder(), make()
    tensors = plain.prepare(values)
    before = encode(plain, tensors)
    tuning.apply(encoder)
    encoder.eval()
    if starts_unchanged:
        same_features(encode(encoder, tensors), before, "the encoder, as it is tuned")
    _check_rates(tuning, encoder)
    _check_training(tuning, encoder, plain, tensors)
    trained = encode(encoder, tensors)
    check_rows_alone(encoder, values, trained)
    _check_cached(tuning, encoder, tensors, trained)
    _check_restored(make, tuning, encoder, make_encoder, tensors, trained)
    _check_merged(tuning, encoder, plain, tensors, trained)


def _check_rates(tuning: Tuning, encoder: Encoder) -> None:
    moving = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    assert bool(moving) != tuning.frozen, f"frozen={tuning.frozen}, and {len(moving)} parameters require a gradient"
    own = set(encoder.parameters())
    for parameter, rate in tuning.rates(encoder).items():
        assert parameter in own, "rates: a parameter is not the encoder's"
        assert rate > 0, f"rates: {rate} is no learning rate"


def _check_training(tuning: Tuning, encoder: Encoder, plain: Encoder, tensors: Tensors) -> None:
    """Make some updates as the training does; only what says so moves, and all of that gets a gradient."""
    still = {name: p.detach().clone() for name, p in encoder.named_parameters() if not p.requires_grad}
    moving = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    before = encode(encoder, tensors)
    tuning.begin(encoder, _UPDATES)
    if moving:
        optimizer = torch.optim.AdamW(moving, lr=1e-2)
        for update in range(1, _UPDATES + 1):
            encoder.train()
            penalty = tuning.penalty(encoder)
            loss = weighted_sum(encoder(**tensors)) + (0 if penalty is None else penalty)
            torch.autograd.backward(loss)
            all_trained(encoder, type(tuning).__name__)
            optimizer.step()
            tuning.updated(encoder, update)
            optimizer.zero_grad(set_to_none=True)
        encoder.eval()
        after = encode(encoder, tensors)
        moved = not (after.pooled.equal(before.pooled) and after.tokens.equal(before.tokens))
        assert moved, "after some updates, the Features are what they were"
    for name, parameter in encoder.named_parameters():
        if name in still:
            assert parameter.grad is None, f"{name!r} is not trained and has a gradient"
            assert parameter.equal(still[name]), f"{name!r} is not trained and has changed"
    if plain.backbone is not None and encoder.backbone is not None and _adds(tuning, encoder):
        kept = weights_digest(base_weights(encoder.backbone)) == weights_digest(base_weights(plain.backbone))
        assert kept, "the backbone's own weights have changed, or their names have, beside what the tuning added"


def _adds(tuning: Tuning, encoder: Encoder) -> bool:
    """Tell whether a tuning has weights of its own beside the backbone's."""
    with TemporaryDirectory() as folder:
        return tuning.save(encoder, Path(folder))


def _check_cached(tuning: Tuning, encoder: Encoder, tensors: Tensors, expected: Features) -> None:
    cached = tuning.cached(encoder)
    if cached is None:
        return
    kept = encode(cached.eval(), tensors)
    if cached is not encoder:
        with torch.no_grad():
            kept = encoder.resume(kept.tokens, kept.mask)
    same_features(kept, expected, "from what is computed once")


def _check_restored(
    make: Callable[[], Tuning],
    tuning: Tuning,
    encoder: Encoder,
    make_encoder: Callable[[], Encoder],
    tensors: Tensors,
    expected: Features,
) -> None:
    second, anew = make_encoder(), make()
    with TemporaryDirectory() as folder:
        if tuning.save(encoder, Path(folder)):
            unsafe = [path.name for path in Path(folder).rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
            assert not unsafe, f"save writes {unsafe}, which may be pickles"
            anew.restore(second, Path(folder))
        else:
            anew.apply(second)
            second.load_state_dict(encoder.state_dict())
    second.eval()
    same_features(encode(second, tensors), expected, "restored from what save wrote")
    names = [{name for name, p in each.named_parameters() if p.requires_grad} for each in (encoder, second)]
    assert names[0] == names[1], f"restored, other parameters are trained: {sorted(names[0] ^ names[1])[:3]}"


def _check_merged(tuning: Tuning, encoder: Encoder, plain: Encoder, tensors: Tensors, expected: Features) -> None:
    """Merge, last of all, for the encoder is another one then."""
    before = weights_digest(encoder.state_dict())
    merged = tuning.merge(encoder)
    encoder.eval()
    same_features(encode(encoder, tensors), expected, f"after merge, which returned {merged}")
    if merged:
        names = encoder.state_dict().keys() ^ plain.state_dict().keys()
        assert not names, f"merge returned True, and the weights' names are not the plain model's: {sorted(names)[:3]}"
    else:
        assert weights_digest(encoder.state_dict()) == before, "merge returned False, and weights have changed"
