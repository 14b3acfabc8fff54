"""What candidates learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from polyfuse.core.types import Features
from polyfuse.layers.tokens import shortened
from polyfuse.search import material
from polyfuse.search.material import TOKENS, joined


class Ragged:
    """Features of rows of these lengths, padded to the longest of those asked for."""

    def __init__(self, lengths: Sequence[int]) -> None:
        drawn = torch.Generator().manual_seed(0)
        self.rows = [torch.randn(length, 3, generator=drawn) for length in lengths]
        self.lengths = None

    def batch(self, rows: Sequence[int]) -> Features:
        longest = max(1, *(len(self.rows[row]) for row in rows))
        tokens, mask = torch.zeros(len(rows), longest, 3), torch.zeros(len(rows), longest, dtype=torch.bool)
        for at, row in enumerate(rows):
            tokens[at, : len(self.rows[row])], mask[at, : len(self.rows[row])] = self.rows[row], True
        return Features.of_tokens(tokens, mask)


@given(lengths=st.lists(st.integers(0, 3 * TOKENS), min_size=1, max_size=20), chunk=st.integers(1, 7))
def test_few_tokens_of_all_rows_are_those_of_each_batch(lengths: list[int], chunk: int) -> None:
    source, rows = Ragged(lengths), len(lengths)
    before = material._CHUNK
    material._CHUNK = chunk
    try:
        found = material._shortened(source, rows).features
    finally:
        material._CHUNK = before
    starts = range(0, rows, chunk)
    expected = joined([shortened(source.batch(range(start, min(start + chunk, rows))), TOKENS) for start in starts])
    length = min(found.mask.shape[1], expected.mask.shape[1])
    assert not bool(expected.mask[:, length:].any())
    assert found.mask[:, :length].equal(expected.mask[:, :length])
    assert found.tokens[found.mask].equal(expected.tokens[expected.mask])
    assert found.pooled.equal(expected.pooled)
