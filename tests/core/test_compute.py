"""Ways to compute: what is set is set back."""

from __future__ import annotations

import threading

import pytest
import torch

from polyfuse.core.compute import computing, has_bf16, in_torch, matmul_precision

CPU = torch.device("cpu")


def test_the_precision_of_matrix_products_is_set_back_even_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    seen = []

    def fails() -> None:
        seen.append(torch.get_float32_matmul_precision())
        raise KeyError

    with pytest.raises(KeyError), computing(CPU, "medium"):
        fails()
    assert seen == ["medium"]
    assert torch.get_float32_matmul_precision() == before
    with matmul_precision("float32"):
        assert torch.get_float32_matmul_precision() == before


def test_what_stood_there_before_comes_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with matmul_precision("medium"), matmul_precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_last_of_several_threads_sets_it_back() -> None:
    before = torch.get_float32_matmul_precision()
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with matmul_precision("medium"):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    with matmul_precision("medium"):
        thread.start()
        assert inside.wait(10)
    assert torch.get_float32_matmul_precision() == "medium"
    done.set()
    thread.join(10)
    assert torch.get_float32_matmul_precision() == before


def test_bf16_is_autocast() -> None:
    layer = torch.nn.Linear(2, 2)
    for way, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32), ("medium", torch.float32)):
        with computing(CPU, way):  # type: ignore[arg-type]
            assert layer(torch.ones(1, 2)).dtype == dtype


def test_what_a_machine_cannot_do_is_done_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_torch("onnx", CPU) == "float32"
    assert in_torch("medium", CPU) == "medium"
    assert in_torch("bf16", CPU) == ("bf16" if has_bf16(CPU) else "float32")
    monkeypatch.setattr("polyfuse.core.compute.has_bf16", lambda _: False)
    assert in_torch("bf16", CPU) == "float32"
