"""The pass of a frozen encoder over many values: the same Features, whatever goes together, and errors that surface."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Column
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.training import encoding
from polyfuse.training.encoding import EncodedSource, encoded, grouped, running, shared_threads, units, workers_of

CPU = torch.device("cpu")
Find = Callable[[str], str]
TEXTS = [" ".join(["one", "two", "cat", "dog", "a", "b"][i % 6 :][: 1 + i % 5] * (1 + i % 4)) for i in range(70)]


def rows(texts: Sequence[str | None] = TEXTS) -> Rows:
    frame = pd.DataFrame({"note": pd.Series(texts, dtype=object), "y": [i % 2 for i in range(len(texts))]})
    table = read_table(frame)
    return read_rows(table, infer_schema(table, "y", types={"note": "text"}), training=True)


class Numbers(Encoder):
    """A value is the number of its letters; no mask, and no pretrained model."""

    reads = frozenset({"text"})

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.threads = 1, set[str]()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def prepare(self, values: Sequence[tuple[str | None, ...] | None]) -> Tensors:
        return {"n": torch.tensor([[float(len(value[0] or ""))] if value else [0.0] for value in values])}

    def forward(self, n: Tensor) -> Features:
        self.threads.add(threading.current_thread().name)
        return Features.of_pooled(n * self.weight)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def bert(tiny_model: Find) -> TransformerEncoder:
    encoder = TransformerEncoder([Column(name="note", type="text")], checkpoint=tiny_model("bert"))
    encoder.requires_grad_(False)
    return encoder.eval()


def collected(encoder: Encoder, table: Rows, chosen: Sequence[int], way: str = "float32") -> dict[int, Tensor]:
    """Return the tokens and the pooled vector of each row: (tokens + 1, dim)."""
    found = {}
    for part in encoded(encoder, table, "text", chosen, CPU, way):  # type: ignore[arg-type]
        features = part.features
        for i, row in enumerate(part.rows):
            assert row not in found
            tokens = features.tokens[i][features.mask[i]].float()
            found[row] = torch.cat([tokens, features.pooled[i, None].float()])
    return found


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("window", "budget"), [(2048, 1024), (16, 1024), (16, 1), (2048, 40)])
def test_rows_are_the_same_in_any_company(
    workers: int,
    window: int,
    budget: int,
    bert: TransformerEncoder,
    monkeypatch: pytest.MonkeyPatch,
    threads: Callable[[int], None],
) -> None:
    monkeypatch.setattr(encoding, "WINDOW", window)
    monkeypatch.setattr(encoding, "_BUDGET", {"cpu": budget})
    threads(workers)
    table = rows()
    found = collected(bert, table, range(len(TEXTS)))
    assert sorted(found) == list(range(len(TEXTS)))
    assert torch.get_num_threads() == workers
    with torch.inference_mode():
        for row in (0, 1, 2, 37, 69):
            alone = bert(**bert.prepare([table.value("text", row)]))
            expected = torch.cat([alone.tokens[0], alone.pooled])
            torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_twice_the_same_is_the_same_to_the_bit(bert: TransformerEncoder, threads: Callable[[int], None]) -> None:
    threads(2)
    for way in ("float32", "bf16"):
        first, second = (collected(bert, rows(), range(len(TEXTS)), way) for _ in range(2))
        assert list(first) == list(second)
        assert all(torch.equal(first[row], second[row]) for row in first)


def test_ways_agree_within_their_bounds(bert: TransformerEncoder) -> None:
    expected = collected(bert, rows(), range(len(TEXTS)))
    for way, bound in (("medium", 0.999), ("bf16", 0.999)):
        found = collected(bert, rows(), range(len(TEXTS)), way)
        least = min(float(torch.cosine_similarity(found[row], expected[row]).min()) for row in expected)
        assert least >= bound, way


def test_a_source_encodes_what_it_is_asked_for(bert: TransformerEncoder) -> None:
    texts: list[str | None] = [*TEXTS]
    texts[3] = texts[50] = None
    table = rows(texts)
    asked = [50, 4, 3, 0, 69, *range(10, 45)]
    found = EncodedSource(bert, table, "text", CPU, "float32").batch(asked)
    expected = collected(bert, table, [row for row in asked if texts[row]])
    for i, row in enumerate(asked):
        if texts[row] is None:
            assert not found.mask[i].any()
            assert not found.pooled[i].any()
        else:
            both = torch.cat([found.tokens[i][found.mask[i]], found.pooled[i, None]])
            torch.testing.assert_close(both, expected[row], rtol=1e-4, atol=1e-5)
    nothing = EncodedSource(bert, table, "text", CPU, "float32").batch([3, 50])
    assert (nothing.tokens.shape, nothing.mask.any().item()) == ((2, 1, bert.dim), False)


def test_few_values_and_none(bert: TransformerEncoder) -> None:
    for count in (0, 1, 2, 3):
        assert sorted(collected(bert, rows(), range(count))) == list(range(count))


def test_without_a_mask_and_without_a_pretrained_model(threads: Callable[[int], None]) -> None:
    threads(2)
    encoder, table = Numbers(), rows()
    found = collected(encoder, table, range(len(TEXTS)))
    assert [int(found[row][-1]) for row in range(len(TEXTS))] == [len(text) for text in TEXTS]
    # What is promised of transformers' models holds of no other: one thread runs it.
    assert workers_of(encoder, CPU) == len(encoder.threads) == 1


def test_an_error_comes_out_as_it_was(bert: TransformerEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(Exception):
        pass

    table, value = rows(), Rows.value

    def fails(self: Rows, modality: str, row: int) -> object:
        if row == 40:
            raise Strange("row 40")
        return value(self, modality, row)

    monkeypatch.setattr(Rows, "value", fails)
    with pytest.raises(Strange, match="row 40"):
        collected(bert, table, range(len(TEXTS)))
    monkeypatch.setattr(Rows, "value", value)
    before = torch.get_float32_matmul_precision()
    calls = []

    def breaks(**tensors: Tensor) -> Features:
        calls.append(len(tensors["ids"]))
        raise Strange("forward")

    monkeypatch.setattr(bert, "forward", breaks)
    with pytest.raises(Strange, match="forward"):
        collected(bert, table, range(len(TEXTS)), "medium")
    assert torch.get_float32_matmul_precision() == before
    assert calls == [2]
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_two_at_once_leave_torch_its_threads(threads: Callable[[int], None]) -> None:
    threads(2)
    inside, done, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with shared_threads(2):
            seen.append(torch.get_num_threads())
            inside.set()
            done.wait(10)
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=other)
    with shared_threads(2):
        assert torch.get_num_threads() == 1
        thread.start()
        assert inside.wait(10)
    done.set()
    thread.join(10)
    assert (seen, torch.get_num_threads()) == ([1, 2], 2)


def test_one_who_stops_reading_stops_the_work(bert: TransformerEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_BUDGET", {"cpu": 1})
    before = torch.get_num_threads()
    work = encoded(bert, rows(), "text", range(len(TEXTS)), CPU, "float32")
    next(work)
    work.close()
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
    assert torch.get_num_threads() == before


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 600))
def test_groups_hold_all_rows_and_little_padding(lengths: list[int], most: int) -> None:
    groups = grouped(torch.tensor(lengths, dtype=torch.long), most)
    assert sorted(at for group in groups for at in group.tolist()) == list(range(len(lengths)))
    longest = [max(lengths[at] for at in group.tolist()) for group in groups]
    assert longest == sorted(longest)
    assert all(len(group) == 1 or long * len(group) <= most for group, long in zip(groups, longest, strict=True))


def test_lengths_are_counted_in_what_the_mask_counts() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert units({"ids": torch.zeros(2, 3), "mask": mask}).tolist() == [2, 1]
    assert units({"pixels": torch.zeros(3, 4)}).tolist() == [1, 1, 1]


def test_weights_are_packed_where_that_pays(bert: TransformerEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[torch.dtype] = []
    monkeypatch.setattr(encoding, "packed", lambda module, dtype: packed.append(dtype) or module)
    for values in (2, 70):
        for way in ("bf16", "float32", "medium"):
            with running(bert, CPU, way, values=values) as run:  # type: ignore[arg-type]
                run(bert.prepare([("one",)]))
    assert packed in ([torch.bfloat16, torch.float32], [torch.float32, torch.float32])
