"""The feature cache: once ever, whole or not there, never stale, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Tensors
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.training.cache import CachedSource, FeatureCache, default_limit, encoder_key

CPU = torch.device("cpu")


class Letters(Encoder):
    """Each letter is a token: ragged, and cheap to count."""

    reads = frozenset({"text"})

    def __init__(self, *, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        self.dim, self.scale, self.encoded = 4, scale, 0
        self.table = nn.Embedding(256, 4, _weight=torch.randn(256, 4, generator=torch.Generator().manual_seed(seed)))

    def prepare(self, values: Sequence[tuple[str | None, ...] | None]) -> Tensors:
        texts = ["" if value is None else "".join(cell or "" for cell in value) for value in values]
        longest = max([1, *map(len, texts)])
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = torch.tensor([ord(letter) % 256 for letter in text])
            mask[i, : max(1, len(text))] = True
        return {"ids": ids, "mask": mask}

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        self.encoded += len(ids)
        return Features.of_tokens(self.table(ids) * self.scale, mask)

    def preparation(self) -> dict[str, float]:
        return {"scale": self.scale}


def rows(texts: Sequence[str | None]) -> Rows:
    frame = pd.DataFrame({"note": pd.Series(texts, dtype=object), "y": [i % 2 for i in range(len(texts))]})
    table = read_table(frame)
    schema = infer_schema(table, "y", types={"note": "text"})
    return read_rows(table, schema, training=True)


TEXTS = [f"note number {i % 30} {'x' * (i % 7)}" for i in range(60)] + [None, None]


def source(cache: FeatureCache, encoder: Encoder, texts: Sequence[str | None] = TEXTS) -> CachedSource:
    return cache.source(encoder, rows(texts), "text", tokens=True, device=CPU, precision="float32")


def test_features_equal_those_of_the_encoder(tmp_path: Path) -> None:
    encoder = Letters()
    table = rows(TEXTS)
    found = source(FeatureCache(tmp_path), encoder).batch(list(range(len(TEXTS))))
    direct = encoder(**encoder.prepare([table.value("text", row) for row in range(len(TEXTS))]))
    here = table.present[:, 0]
    assert here.sum() == 60
    torch.testing.assert_close(found.pooled[here], direct.pooled[here])
    assert torch.equal(found.mask[here], direct.mask[here])
    torch.testing.assert_close(found.tokens[found.mask], direct.tokens[here][direct.mask[here]], rtol=1e-3, atol=1e-3)
    assert not found.mask[~here].any()


def test_each_distinct_value_is_encoded_once_ever(tmp_path: Path) -> None:
    first = Letters()
    source(FeatureCache(tmp_path), first)
    assert first.encoded == len({text for text in TEXTS if text})
    again = Letters()
    source(FeatureCache(tmp_path), again)
    assert again.encoded == 0
    more = Letters()
    source(FeatureCache(tmp_path), more, [*TEXTS[:20], *(f"a new one {i}" for i in range(12))])
    assert more.encoded == 12


def test_it_never_serves_a_stale_entry(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    plain = source(cache, Letters()).batch([0])
    for other in (Letters(seed=1), Letters(scale=2.0)):
        changed = source(cache, other).batch([0])
        assert other.encoded > 0
        assert not torch.equal(changed.pooled, plain.pooled)
    assert encoder_key(Letters(), "float32") != encoder_key(Letters(), "bf16")
    assert encoder_key(Letters(), "float32") == encoder_key(Letters(), "float32")


def test_the_configuration_of_a_backbone_is_part_of_the_key() -> None:
    encoders = [Letters(), Letters()]
    for encoder, heads in zip(encoders, (2, 4), strict=True):
        encoder.backbone = nn.Linear(1, 1, bias=False)
        nn.init.ones_(encoder.backbone.weight)
        encoder.backbone.config = BertConfig(num_attention_heads=heads, name_or_path=str(heads))
    assert encoder_key(encoders[0], "float32") != encoder_key(encoders[1], "float32")
    encoders[1].backbone.config = BertConfig(num_attention_heads=2, name_or_path="elsewhere")
    assert encoder_key(encoders[0], "float32") == encoder_key(encoders[1], "float32")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set POLYFUSE_CACHE"):
        source(FeatureCache(tmp_path / "file"), Letters())


def test_a_damaged_entry_is_seen_and_made_anew(tmp_path: Path) -> None:
    expected = source(FeatureCache(tmp_path), Letters()).batch([0, 5])
    (shard,) = tmp_path.glob("*/*.safetensors")
    raw = bytearray(shard.read_bytes())
    for damaged in (
        raw[:-7],
        raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :],
        b"",
        b"x" * 64,
    ):
        shard.write_bytes(damaged)
        encoder = Letters()
        found = source(FeatureCache(tmp_path), encoder).batch([0, 5])
        assert encoder.encoded > 0
        assert torch.equal(found.pooled, expected.pooled)
        assert torch.equal(found.tokens, expected.tokens)


def test_killed_half_way_it_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyfuse.training.cache._SHARD_BYTES", 1)
    monkeypatch.setattr("polyfuse.training.cache._WINDOW", 8)
    texts = [f"value {i}" for i in range(32)]

    class Failing(Letters):
        def forward(self, ids: Tensor, mask: Tensor) -> Features:
            if self.encoded >= 16:
                raise KeyboardInterrupt
            return super().forward(ids, mask)

    failing = Failing()
    with pytest.raises(KeyboardInterrupt):
        source(FeatureCache(tmp_path), failing, texts)
    # What a kill in the middle of writing leaves behind is no entry.
    folder = next(tmp_path.iterdir())
    (folder / ".half.tmp").write_bytes(b"half")
    again = Failing()
    source(FeatureCache(tmp_path), again, texts)
    assert again.encoded == 16


def test_its_size_has_a_limit_and_the_oldest_go_first(tmp_path: Path) -> None:
    big = FeatureCache(tmp_path, limit=10**9)
    source(big, Letters(seed=1))
    one = big.size()
    source(big, Letters(seed=2))
    small = FeatureCache(tmp_path, limit=int(one * 2.5))
    source(small, Letters(seed=1))  # used again: now seed 2 is the oldest
    source(small, Letters(seed=3))
    assert small.size() <= small.limit
    kept = {path.name for path in tmp_path.iterdir() if any(path.glob("*.safetensors"))}
    assert kept == {encoder_key(Letters(seed=seed), "float32") for seed in (1, 3)}


def test_the_limit_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYFUSE_CACHE_GB", "0.5")
    assert default_limit() == 5 * 10**8
    for wrong in ("many", "-1", "nan"):
        monkeypatch.setenv("POLYFUSE_CACHE_GB", wrong)
        with pytest.raises(InputError, match="POLYFUSE_CACHE_GB"):
            default_limit()


def test_large_values_keep_their_range(tmp_path: Path) -> None:
    found = source(FeatureCache(tmp_path), Letters(scale=1e6)).batch([0])
    assert np.isfinite(found.tokens.numpy()).all()
    assert found.tokens.abs().max() > 6e4
