"""Shards: files of some values' Features.

A shard is named by the hash of its own content: it is whole or not there, and a damaged one is seen.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyfuse.core.types import Features

#: digests (n, 16) uint8, pooled (n, dim), and where all tokens are kept: ends (n,) int64, tokens (Σ, dim).
Tensors: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Shard:
    """A shard, mapped into memory.

    Attributes:
        path: of the file.
        tensors: what it holds.
        seconds: how long its values took to be encoded.
    """

    path: Path
    tensors: Tensors
    seconds: float

    def __len__(self) -> int:
        return len(self.tensors["digests"])

    def digests(self) -> list[bytes]:
        """Return the digests of its values."""
        return _digests(self.tensors["digests"])


def read_shard(path: Path, wanted: set[bytes], *, tokens: bool) -> Shard | None:
    """Map a shard if it holds a wanted value; a damaged one is removed.

    Args:
        path: of the file.
        wanted: digests of values.
        tokens: whether all tokens are wanted too.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if wanted.isdisjoint(_digests(file.get_tensor("digests"))) or (tokens and "tokens" not in file.keys()):  # noqa: SIM118
                return None
            if _checksum(path) == path.stem:
                os.utime(path)
                return _mapped(path, file)
    except OSError:  # removed by another process, or not readable just now: that is no damage
        return None
    except SafetensorError:
        pass
    path.unlink(missing_ok=True)
    return None


def write_shard(
    folder: Path, digests: Sequence[bytes], parts: Sequence[Features], *, tokens: bool, seconds: float
) -> Shard:
    """Write a shard.

    Args:
        folder: where it is to lie.
        digests: of the values.
        parts: their Features.
        tokens: whether all tokens are kept, or the pooled vectors only.
        seconds: how long they took to be encoded.
    """
    shard = {
        "digests": torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(digests), -1),
        "pooled": torch.cat([part.pooled.float() for part in parts]),
    }
    if tokens:
        shard["tokens"] = _half(torch.cat([part.tokens[part.mask] for part in parts]))
        shard["ends"] = torch.cat([part.mask.sum(1) for part in parts]).cumsum(0)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        save_file(shard, temporary, metadata={"seconds": f"{seconds:.6f}"})
        path = folder / f"{_checksum(temporary)}.safetensors"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # From the file again: what is mapped needs no memory of its own.
    with safe_open(path, framework="pt") as file:
        return _mapped(path, file)


def _mapped(path: Path, file: Any) -> Shard:
    seconds = float((file.metadata() or {}).get("seconds", 0.0))
    return Shard(path, {key: file.get_tensor(key) for key in file.keys()}, seconds)  # noqa: SIM118


def beyond_half(tokens: Tensor) -> bool:
    """Tell whether some values lie beyond the range of half precision."""
    return bool(tokens.numel() and tokens.abs().max() >= 6e4)


def _half(tokens: Tensor) -> Tensor:
    """Return tokens as they are kept: half precision halves the disk; values beyond its range stay whole."""
    return tokens.float() if beyond_half(tokens) else tokens.half()


def _digests(tensor: Tensor) -> list[bytes]:
    return [row.tobytes() for row in tensor.numpy()]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
