"""The trial: the fastest of the faithful ways, kept, and never one that is not faithful."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from polyfuse.core.compute import Way
from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Column
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.training import trial as room
from polyfuse.training.encoding import Run, running
from polyfuse.training.exported import ExportError
from polyfuse.training.trial import FAITHFUL, Trial, remember, remembered, trial_key, tried

CPU = torch.device("cpu")
Find = Callable[[str], str]
VALUES = [("one two",), ("cat",), ("a b c d e f g",), ("dog dog dog",)] * 3


@pytest.fixture
def bert(tiny_model: Find) -> TransformerEncoder:
    encoder = TransformerEncoder([Column(name="note", type="text")], checkpoint=tiny_model("bert"))
    encoder.requires_grad_(False)
    return encoder.eval()


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says how long each way takes (ms), and what it does to Features."""

    def fake(times: dict[str, float], change: dict[str, Callable[[Features], Features]] | None = None) -> None:
        @contextmanager
        def other(encoder: Encoder, device: torch.device, way: Way, **options: Any) -> Iterator[Run]:
            with running(encoder, device, "float32", **options) as run:

                def slowed(tensors: Tensors) -> Features:
                    time.sleep(times[way] / 1000)
                    return (change or {}).get(way, lambda features: features)(run(tensors))

                yield slowed

        monkeypatch.setattr(room, "running", other)
        monkeypatch.setattr(room, "has_bf16", lambda _: "bf16" in times)
        monkeypatch.setattr(room, "can_export", lambda: "onnx" in times)
        monkeypatch.setattr(room, "_clock", lambda _: time.perf_counter)

    return fake


def noisy(features: Features) -> Features:
    noise = torch.randn(features.tokens.shape, generator=torch.Generator().manual_seed(0))
    return Features(features.tokens + noise, features.mask, features.pooled)


def spoilt_pooled(features: Features) -> Features:
    return Features(features.tokens, features.mask, features.pooled.flip(-1))


def test_the_fastest_is_chosen(bert: TransformerEncoder, faked: Callable[..., None]) -> None:
    faked({"float32": 120, "medium": 60, "bf16": 8})
    found = tried(bert, VALUES, CPU, count=10)
    assert found.way == "bf16"
    assert min(found.cosines.values()) >= FAITHFUL
    assert found.seconds["bf16"] < found.seconds["medium"] < found.seconds["float32"]
    assert found.sentence("text").startswith("text: bf16, ")
    assert "times faster than float32, cosine 1.00000" in found.sentence("text")


@pytest.mark.parametrize("spoil", [noisy, spoilt_pooled])
def test_what_is_not_faithful_is_refused_however_fast(
    spoil: Callable[[Features], Features], bert: TransformerEncoder, faked: Callable[..., None]
) -> None:
    faked({"float32": 20, "medium": 120, "bf16": 1}, {"bf16": spoil})
    found = tried(bert, VALUES, CPU, count=10)
    assert found.way == "float32"
    assert found.cosines["bf16"] < FAITHFUL
    assert "not faithful: bf16" in found.sentence("text")


def test_what_is_no_number_or_of_another_shape_is_refused(bert: TransformerEncoder, faked: Callable[..., None]) -> None:
    def nothing(features: Features) -> Features:
        return Features(features.tokens * torch.nan, features.mask, features.pooled)

    def shorter(features: Features) -> Features:
        return Features(features.tokens[:, :1], features.mask[:, :1], features.pooled)

    faked({"float32": 20, "medium": 1, "bf16": 1}, {"bf16": nothing, "medium": shorter})
    found = tried(bert, VALUES, CPU, count=10)
    assert (found.way, found.cosines["bf16"], found.cosines["medium"]) == ("float32", 0.0, 0.0)


def test_a_little_faster_is_not_enough(bert: TransformerEncoder, faked: Callable[..., None]) -> None:
    faked({"float32": 200, "medium": 195})
    assert tried(bert, VALUES, CPU, count=10).way == "float32"


def test_an_export_is_tried_where_the_work_is_long(
    bert: TransformerEncoder, faked: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    faked({"float32": 40, "medium": 120, "onnx": 5})
    assert "onnx" not in tried(bert, VALUES, CPU, count=10).seconds
    assert tried(bert, VALUES, CPU, count=10**9).way == "onnx"

    def fails(*_: object, **__: object) -> None:
        raise ExportError("no")

    measure = room._measure
    monkeypatch.setattr(room, "_measure", lambda *given: fails() if "onnx" in given[-1] else measure(*given))
    assert tried(bert, VALUES, CPU, count=10**9).way == "float32"


def test_in_earnest(bert: TransformerEncoder) -> None:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    found = tried(bert, VALUES, CPU, count=len(VALUES))
    assert found.cosines[found.way] >= FAITHFUL
    assert found.cosines["float32"] > 1 - 1e-9
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)
    assert tried(bert, VALUES[:1], CPU, count=1).way in found.seconds


def test_what_was_found_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ways" / "a.json"
    assert remembered(path) is None
    found = Trial("bf16", {"float32": 2.0, "bf16": 1.0}, {"float32": 1.0, "bf16": 0.9999})
    remember(found, path)
    assert remembered(path) == found
    for damaged in ("", "{}", "[]", '{"way": "bf16", "seconds": {}, "cosines": {}}'):
        path.write_text(damaged)
        assert remembered(path) is None
    (tmp_path / "file").write_text("")
    remember(found, tmp_path / "file" / "a.json")  # cannot be written: it is tried again another time


def test_another_machine_tries_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    key = trial_key("encoder", CPU)
    assert key == trial_key("encoder", CPU) != trial_key("another", CPU)
    monkeypatch.setattr(room, "has_bf16", lambda _: "changed")
    assert trial_key("encoder", CPU) != key
