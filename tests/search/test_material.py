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


@given(
    lengths=st.lists(st.integers(0, 3 * TOKENS), min_size=1, max_size=20), chunk=st.integers(1, 7), large=st.booleans()
)
def test_few_tokens_of_all_rows_are_those_of_each_batch(lengths: list[int], chunk: int, large: bool) -> None:
    source, rows = Ragged(lengths), len(lengths)
    if large and len(source.rows[-1]):
        source.rows[-1][:] = 1e6  # beyond half precision
    before = material._CHUNK
    material._CHUNK = chunk
    try:
        kept = material._shortened(source, source.batch(range(rows)).pooled)
    finally:
        material._CHUNK = before
    found = kept.batch(range(rows))
    assert found.tokens.dtype is torch.float32
    starts = range(0, rows, chunk)
    expected = joined([shortened(source.batch(range(start, min(start + chunk, rows))), TOKENS) for start in starts])
    length = min(found.mask.shape[1], expected.mask.shape[1])
    assert not bool(expected.mask[:, length:].any())
    assert found.mask[:, :length].equal(expected.mask[:, :length])
    torch.testing.assert_close(found.tokens[found.mask], expected.tokens[expected.mask], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.pooled, expected.pooled)
    assert kept.features.tokens.dtype is (torch.float32 if float(expected.tokens.abs().max()) > 6e4 else torch.half)
