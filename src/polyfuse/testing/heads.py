"""The contract of a head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from polyfuse.core.contract import Head
from polyfuse.core.types import Features
from polyfuse.testing.assertions import all_trained, copy_state, own_chance, same


def check_head(head: Head, answers: Sequence[Any], dim: int) -> None:
    """Check a head against its contract.

    Args:
        head: made for features of width `dim`.
        answers: at least two answers, as they stand in a table, not all the same.
        dim: width of the fused features.

    Raises:
        AssertionError: the contract is broken.
    """
    assert len(answers) >= 2, "answers: give at least two"
    assert head.task, "task is empty"
    assert head.metrics, "metrics is empty: name at least the one that decides when training stops"
    head.eval()
    batch = len(answers)
    pooled = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0))
    target = head.encode(answers)
    assert len(target) == batch, f"encode gives {len(target)} rows for {batch} answers"
    output = _answer(head, pooled)
    assert len(output) == batch, f"forward gives {len(output)} rows for {batch}"
    same(_answer(head, pooled), output, "the same features answered twice in evaluation mode")
    order = torch.arange(batch).flip(0)
    same(_answer(head, pooled[order]), output[order], "rows in reverse order")
    same(torch.cat([_answer(head, row) for row in torch.split(pooled, 1)]), output, "rows answered alone")
    _check_loss(head, pooled, answers)
    loss = head.loss(output, target)
    same(head.loss(output[order], target[order]), loss, "loss of the rows in reverse order")
    _check_scores(head, output, batch)
    truth = head.truth(target)
    assert len(truth) == batch, f"truth gives {len(truth)} rows for {batch}"
    own_chance(head, lambda: _answer(head, pooled), "forward")
    second = copy.deepcopy(head)
    copy_state(head, second, "state_dict")
    same(_answer(second, pooled), output, "a second head with the first one's state")


def _answer(head: Head, pooled: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = head(Features.of_pooled(pooled))
    return output


def _check_loss(head: Head, pooled: torch.Tensor, answers: Sequence[Any]) -> None:
    head.zero_grad(set_to_none=True)
    loss = head.loss(head(Features.of_pooled(pooled)), head.encode(answers))
    assert loss.shape == (), f"loss is {tuple(loss.shape)}, not a scalar"
    assert bool(loss.isfinite()), f"loss is {loss}"
    torch.autograd.backward(loss)
    all_trained(head, type(head).__name__)
    step = [(parameter, parameter.grad) for parameter in head.parameters() if parameter.grad is not None]
    second = copy.deepcopy(head)
    with torch.no_grad():
        for parameter, (_, gradient) in zip(second.parameters(), step, strict=True):
            parameter.sub_(gradient, alpha=1e-3)
        after = second.loss(_answer(second, pooled), second.encode(answers))
    before = loss.detach()
    assert bool(after < before), f"a small step against the gradient moves the loss from {before} to {after}"
    head.zero_grad(set_to_none=True)


def _check_scores(head: Head, output: torch.Tensor, batch: int) -> None:
    scores = head.scores(output)
    assert len(scores) == batch, f"scores gives {len(scores)} rows for {batch}"
    assert bool(scores.isfinite().all()), "scores are not finite"
    prior = head.prior()
    assert prior.shape == scores.shape[1:], f"prior is {tuple(prior.shape)}, and a row of scores {scores.shape[1:]}"
    for what, some in (("scores", scores), ("the prior", prior.unsqueeze(0))):
        decoded = head.decode(some)
        assert isinstance(decoded, list), f"decode gives {type(decoded).__name__}, not a list"
        assert len(decoded) == len(some), f"decode gives {len(decoded)} answers for {len(some)} rows of {what}"
        assert len(head.encode(decoded)) == len(some), f"the answers decoded from {what} cannot be encoded again"
