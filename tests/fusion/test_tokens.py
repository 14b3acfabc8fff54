"""Fewer tokens: means of neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyfuse.core.types import Features
from polyfuse.fusion import FUSIONS
from polyfuse.layers.tokens import shortened


def features(lengths: list[int], longest: int = 9, dim: int = 3, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), longest, dim, generator=generator)
    return Features.of_tokens(tokens, torch.arange(longest) < torch.tensor(lengths)[:, None])


@pytest.mark.parametrize("most", [1, 2, 4, 7, 9, 20])
def test_groups_of_neighbours_are_averaged(most: int) -> None:
    lengths = [9, 1, 4, 5, 0, 8]
    given = features(lengths)
    found = shortened(given, most)
    torch.testing.assert_close(found.pooled, given.pooled)
    for row, length in enumerate(lengths):
        real = given.tokens[row, :length].numpy()
        expected = real
        if length > most:
            groups = [j * most // length for j in range(length)]
            expected = np.array([real[[g == group for g in groups]].mean(0) for group in range(most)])
        assert int(found.mask[row].sum()) == len(expected)
        np.testing.assert_allclose(found.tokens[row][found.mask[row]].numpy(), expected, atol=1e-6)
    twice = shortened(found, most)
    torch.testing.assert_close(twice.tokens, found.tokens)


def test_padding_and_garbage_do_not_matter() -> None:
    given = features([9, 3, 6])
    garbage = given.tokens.masked_fill(~given.mask.unsqueeze(-1), float("nan"))
    spoilt = shortened(Features(garbage, given.mask, given.pooled), 4)
    torch.testing.assert_close(spoilt.tokens, shortened(given, 4).tokens)
    # Real tokens need not be the first ones.
    order = torch.tensor([0, 8, 1, 7, 2, 6, 3, 5, 4])
    place = order.argsort()
    mask = given.mask[:, place]
    moved = Features(given.tokens[:, place], mask, given.pooled)
    assert shortened(moved, 4).mask.sum(1).tolist() == [4, 3, 4]


@pytest.mark.parametrize("name", [name for name in FUSIONS if "most_tokens" in FUSIONS.options(name)])
def test_a_fusion_with_few_tokens_is_the_fusion_of_shortened_features(name: str) -> None:
    torch.manual_seed(0)
    few = FUSIONS.build(name, {"dim": 8, "heads": 2, "most_tokens": 3}, {"text": 3}).eval()
    every = FUSIONS.build(name, {"dim": 8, "heads": 2}, {"text": 3}).eval()
    every.load_state_dict(few.state_dict())
    given, present = features([9, 2, 5, 7]), torch.tensor([[True], [True], [False], [True]])
    with torch.no_grad():
        found, expected = few(given_of(given), present), every(given_of(shortened(given, 3)), present)
        torch.testing.assert_close(found.pooled, expected.pooled)
        assert not torch.allclose(every(given_of(given), present).pooled, expected.pooled)


def given_of(features: Features) -> dict[str, Features]:
    return {"text": features}
