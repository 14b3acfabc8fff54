"""Where and how precisely tensors are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["bf16", "float32"]


def default_device() -> torch.device:
    """Return the accelerator that torch sees, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_bf16(device: torch.device) -> bool:
    """Tell whether the hardware computes in bfloat16 itself; emulation would be slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which a forward pass has this precision; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
