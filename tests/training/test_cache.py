"""The feature cache: once ever, whole or not there, never stale, bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BertConfig

from polyfuse.core.compute import has_bf16, in_torch
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Silent
from polyfuse.core.types import Features, Tensors
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Column
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.training.cache import CachedSource, FeatureCache, default_limit, encoder_key
from polyfuse.training.trial import Trial, tried

CPU = torch.device("cpu")
Find = Callable[[str], str]


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
    return cache.source(encoder, rows(texts), "text", tokens=True, device=CPU, way="float32")


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
        for other in tmp_path.glob("*/*.safetensors"):
            other.unlink()
        shard.write_bytes(damaged)
        encoder = Letters()
        found = source(FeatureCache(tmp_path), encoder).batch([0, 5])
        assert encoder.encoded > 0
        assert torch.equal(found.pooled, expected.pooled)
        assert torch.equal(found.tokens, expected.tokens)


def test_killed_half_way_it_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyfuse.training.cache._SHARD_BYTES", 1)
    monkeypatch.setattr("polyfuse.training.encoding.WINDOW", 8)
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
    assert again.encoded == 32 - 2 - 16  # the first two tell how long values are; then a window


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


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_shards_are_closed_in_time_so_that_little_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyfuse.training.cache._SHARD_SECONDS", 0.0)
    texts = [f"value {i}" for i in range(40)]
    source(FeatureCache(tmp_path), Letters(), texts)
    assert len(files(tmp_path)) > 1


def test_tokens_that_would_take_too_much_are_kept_only_if_they_are_asked_for(tmp_path: Path) -> None:
    table = rows(TEXTS)

    def read(cache: FeatureCache, encoder: Encoder, *, tokens: bool) -> CachedSource:
        return cache.source(encoder, table, "text", tokens=tokens, device=CPU, way="float32")

    whole = FeatureCache(tmp_path / "whole")
    read(whole, Letters(), tokens=False)
    (shard,) = files(whole.folder)
    with safe_open(shard, framework="pt") as file:
        size = file.get_tensor("tokens").numel() * 2
    small = FeatureCache(tmp_path / "small", limit=4 * size - 8)
    expected = read(small, Letters(), tokens=False)
    (shard,) = files(small.folder)
    with safe_open(shard, framework="pt") as file:
        assert sorted(file.keys()) == ["digests", "pooled"]
    encoder = Letters()
    assert torch.equal(read(small, encoder, tokens=False).pooled, expected.pooled)
    assert encoder.encoded == 0
    found = read(small, encoder, tokens=True)
    assert encoder.encoded == len({text for text in TEXTS if text})
    assert torch.equal(found.pooled, expected.pooled)
    assert found.lengths is not None
    assert found.lengths.max() > 1
    again = Letters()
    read(small, again, tokens=True)
    read(small, again, tokens=False)
    assert again.encoded == 0
    fits = FeatureCache(tmp_path / "fits", limit=4 * size + 8)
    read(fits, Letters(), tokens=False)
    with safe_open(files(fits.folder)[0], framework="pt") as file:
        assert "tokens" in file.keys()  # noqa: SIM118


def test_what_encoding_cost_is_remembered(tmp_path: Path) -> None:
    class Slow(Letters):
        def forward(self, ids: Tensor, mask: Tensor) -> Features:
            time.sleep(0.1)
            return super().forward(ids, mask)

    texts = [f"value {i}" for i in range(40)]
    cache = FeatureCache(tmp_path)
    begun = time.monotonic()
    cost = source(cache, Slow(), texts).seconds
    assert 0.2 <= cost <= time.monotonic() - begun
    (shard,) = files(tmp_path)
    with safe_open(shard, framework="pt") as file:
        assert float(file.metadata()["seconds"]) == pytest.approx(cost, abs=1e-5)
    assert source(cache, Slow(), texts).seconds == pytest.approx(cost, abs=1e-5)
    assert source(cache, Slow(), texts[:10] * 4).seconds == pytest.approx(cost / 4, abs=1e-5)
    more = source(cache, Slow(), [*texts[:20], *(f"a new one {i}" for i in range(20))]).seconds
    assert more >= cost / 2 + 0.2


def test_the_way_is_found_once(tmp_path: Path, tiny_model: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def counted(*given: Any, **options: Any) -> Trial:
        tries.append(options["count"])
        return tried(*given, **options)

    monkeypatch.setattr("polyfuse.training.cache.tried", counted)
    said: list[str] = []

    class Telling(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    table = rows([*["one", "two cat", "dog", "a b c"] * 3, None])

    def read(folder: Path = tmp_path) -> CachedSource:
        encoder = TransformerEncoder([Column(name="note", type="text")], checkpoint=tiny_model("bert"))
        encoder.requires_grad_(False)
        return FeatureCache(folder).source(encoder, table, "text", tokens=True, device=CPU, progress=Telling())

    first, second = read(), read()
    assert tries == [4]
    assert said == [first.report]
    assert first.report.startswith(f"text: {first.way}")
    assert (second.way, second.report) == (first.way, first.report)
    assert torch.equal(first.batch(range(13)).tokens, second.batch(range(13)).tokens)
    encoder = TransformerEncoder([Column(name="note", type="text")], checkpoint=tiny_model("bert"))
    assert [path.parent.name for path in files(tmp_path)] == [encoder_key(encoder, in_torch(first.way, CPU))]
    # A trial that is lost, or damaged, is made anew.
    (kept,) = (tmp_path / "ways").iterdir()
    kept.write_text("{}")
    read()
    assert len(tries) == 2


def test_a_given_way_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyfuse.training.cache.tried", None)
    found = source(FeatureCache(tmp_path), Letters())
    assert (found.way, found.report) == ("float32", "")
    # Nor is an encoder without a pretrained model, or where nothing is there to be tried on.
    cache = FeatureCache(tmp_path / "other")
    assert cache.source(Letters(), rows(TEXTS), "text", tokens=True, device=CPU).way == "float32"


def test_how_long_it_will_take_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "polyfuse.training.cache.tried",
        lambda *_, **__: Trial("float32", {"float32": 0.5, "medium": 0.25}, {"float32": 1.0, "medium": 1.0}),
    )
    cache, encoder, table = FeatureCache(tmp_path), Letters(), rows([*["abcd"] * 8, "efghij", "klmnop", None])

    def seconds(**options: Any) -> float:
        return cache.estimate(encoder, table, "text", tokens=True, device=CPU, **options)

    length = 4 + 6 + 6
    assert seconds(way="float32") == pytest.approx(0.5 * length)
    assert seconds(way="medium") == pytest.approx(0.25 * length)
    assert seconds() == pytest.approx(0.5 * length)
    assert encoder.encoded == 0
    source(cache, encoder, ["abcd"] * 10)
    assert seconds() == pytest.approx(0.5 * (length - 4))
    cache.source(encoder, table, "text", tokens=True, device=CPU)
    assert seconds() == 0


def test_bf16_and_float32_do_not_meet_and_onnx_is_float32(tmp_path: Path, tiny_model: Find) -> None:
    encoder = TransformerEncoder([Column(name="note", type="text")], checkpoint=tiny_model("bert")).eval()
    encoder.requires_grad_(False)
    table = rows(["one", "two cat", "dog", "a b c"] * 3)
    found = {
        way: FeatureCache(tmp_path).source(encoder, table, "text", tokens=True, device=CPU, way=way)
        for way in ("float32", "onnx", "medium", "bf16")
    }
    assert len({path.parent.name for path in files(tmp_path)}) == 2 + has_bf16(CPU)
    assert torch.equal(found["onnx"].pooled, found["float32"].pooled)
    assert found["onnx"].way == "onnx"
    least = torch.cosine_similarity(found["bf16"].pooled, found["float32"].pooled).min()
    assert least >= 0.999
