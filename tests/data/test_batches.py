"""Batches that are trained on have few lengths, and no row says anything else for that."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from polyfuse.data.batches import PreparedSource, stepped
from polyfuse.training.cached import CachedSource, HiddenSource

LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=12)


@given(lengths=LENGTHS, data=st.data())
def test_prepared_rows_keep_their_tokens_and_have_few_lengths(lengths: list[int], data: st.DataObject) -> None:
    most = max(lengths)
    mask = torch.arange(most) < torch.tensor(lengths)[:, None]
    ids = torch.where(mask, torch.arange(1, most + 1), 0)
    rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1))
    batch = PreparedSource({"ids": ids, "mask": mask, "size": torch.tensor(lengths)}).batch(rows)
    longest = max(lengths[row] for row in rows)
    assert batch["mask"].shape[1] in {-(-longest // 16) * 16, most}
    assert longest <= batch["mask"].shape[1] <= most
    for at, row in enumerate(rows):
        assert batch["ids"][at, batch["mask"][at]].tolist() == list(range(1, lengths[row] + 1))
    assert batch["size"].tolist() == [lengths[row] for row in rows]


@given(lengths=LENGTHS, data=st.data())
def test_what_is_kept_of_lower_layers_has_few_lengths(lengths: list[int], data: st.DataObject) -> None:
    tokens = torch.cat([torch.full((length, 2), float(row + 1)) for row, length in enumerate(lengths)])
    shard = {"tokens": tokens, "ends": torch.tensor(lengths).cumsum(0), "pooled": torch.zeros(len(lengths), 2)}
    places = [(0, row) for row in range(len(lengths))]
    source = HiddenSource(CachedSource([shard], places, 2, tokens=True))
    rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1))
    batch = source.batch(rows)
    longest = max(lengths[row] for row in rows)
    assert batch["mask"].shape[1] == min(stepped(longest), max(lengths))
    hidden = batch[next(key for key in batch if key != "mask")]
    assert hidden.shape == (len(rows), batch["mask"].shape[1], 2)
    for at, row in enumerate(rows):
        assert batch["mask"][at].sum() == lengths[row]
        assert bool((hidden[at, batch["mask"][at]] == row + 1).all())
    assert not bool(hidden[~batch["mask"]].any())
