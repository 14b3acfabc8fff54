"""What is dropped, how often, and where it is drawn from."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from polyfuse.layers.dropout import Dropout, drawing_from


def drawn(seed: int, *, shape: tuple[int, ...] = (64, 7), share: float = 0.3) -> Tensor:
    with drawing_from(torch.Generator().manual_seed(seed)):
        found: Tensor = Dropout(share).train()(torch.ones(shape))
    return found


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_as_many_are_dropped_as_asked_in_each_place_and_the_mean_stays(share: float) -> None:
    count = 400_000
    found = drawn(1, shape=(count, 4), share=share)
    dropped = (found == 0).double()
    # Four standard deviations, in each of the places that one random word serves.
    assert ((dropped.mean(0) - share).abs() < 4 * (share * (1 - share) / count) ** 0.5 + 2**-17).all()
    kept = found[found != 0].double()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=2**-16 / (1 - share), atol=0.0)
    # Places that share a word know nothing of each other.
    together = torch.corrcoef(dropped.T) - torch.eye(4)
    assert together.abs().max() < 5 / count**0.5


def test_gradients_pass_where_something_was_kept() -> None:
    x = torch.randn(5, 3, 2, requires_grad=True)
    y = Dropout(0.5).train()(x.transpose(0, 1))
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y, (x * x.grad).transpose(0, 1))
    assert 0 < int((x.grad == 0).sum()) < x.numel()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_all(share: float) -> None:
    assert drawn(0, share=share).equal(torch.full((64, 7), 1 - share))
    assert drawn(0, shape=(0, 7)).shape == (0, 7)


def test_answers_are_left_alone() -> None:
    x = torch.randn(9)
    assert Dropout(0.5).eval()(x) is x


def test_each_thread_draws_from_its_own_generator() -> None:
    before = torch.get_rng_state()
    found: dict[int, Tensor] = {}

    def draw(seed: int) -> None:
        with drawing_from(torch.Generator().manual_seed(seed)):
            layer = Dropout(0.3).train()
            started.wait()
            found[seed] = torch.stack([layer(torch.ones(50)) for _ in range(200)])

    started = threading.Barrier(2)
    threads = [threading.Thread(target=draw, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        together = found[seed]
        started = threading.Barrier(1)
        draw(seed)
        assert found[seed].equal(together)
    assert not found[1].equal(found[2])
    assert torch.get_rng_state().equal(before)


def test_without_one_it_follows_the_seed_of_all() -> None:
    layer, x = Dropout(0.3).train(), torch.ones(100)
    torch.manual_seed(5)
    first = layer(x)
    assert not layer(x).equal(first)
    torch.manual_seed(5)
    assert layer(x).equal(first)
