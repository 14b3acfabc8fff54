"""Where and how precisely tensors are computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["bf16", "float32"]
#: How a frozen encoder is run: bf16 is autocast, "medium" is float32 whose matrix products may be less precise, and
#: "onnx" is float32 in ONNX Runtime.
Way: TypeAlias = Literal["bf16", "onnx", "medium", "float32"]
Compute: TypeAlias = Literal["auto", "bf16", "onnx", "medium", "float32"]


def default_device() -> torch.device:
    """Return the GPU that torch sees, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Tell whether the hardware computes in bfloat16 itself; emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which a forward pass has this precision; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def in_torch(way: Way, device: torch.device) -> Way:
    """Return how torch runs on a device what was chosen elsewhere.

    ONNX Runtime computes in float32, so torch's float32 gives the same; where there is no bf16, so does float32 within
    the bound that bf16 was chosen by.
    """
    if way == "onnx" or (way == "bf16" and not has_bf16(device)):
        return "float32"
    return way


class _Medium:
    """The setting of torch by which products of matrices are less precise: one for the whole process."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, "highest"

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("medium")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        # Only the last of several threads finds what stood there before the first.
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.set_float32_matmul_precision(self._before)


_MEDIUM = _Medium()


def matmul_precision(way: Way) -> AbstractContextManager[None]:
    """Return the context in which torch multiplies matrices of float32 as the way says, in all threads."""
    return _MEDIUM if way == "medium" else nullcontext()


@contextmanager
def computing(device: torch.device, way: Way) -> Iterator[None]:
    """Let torch compute in a way, as long as the block runs."""
    with matmul_precision(way), autocast(device, "bf16" if way == "bf16" else "float32"):
        yield
