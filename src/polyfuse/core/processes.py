"""The processes of one run, as torchrun starts them: how many there are, which one this is, and what they agree on.

What differs between processes, e.g. a time that was measured, must not decide what they do together: the first one says
what holds. Without torchrun there is one process, and all of this costs nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor, distributed

T = TypeVar("T")

_alone = False
_round: distributed.Work | None = None


def started() -> int:
    """Return how many processes torchrun started; they may not have met yet."""
    launched = distributed.is_available() and distributed.is_torchelastic_launched()
    return int(os.environ.get("WORLD_SIZE", "1")) if launched else 1


def first() -> bool:
    """Tell whether this is the first process: the one that shows, writes and saves."""
    return started() == 1 or int(os.environ.get("RANK", "0")) == 0


def count() -> int:
    """Return how many processes work together now."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """Return which of them this is, from 0."""
    return distributed.get_rank() if _together() else 0


def leave_at_exit() -> None:
    """Part from the other processes when Python ends: threads that still listen to them would break it off."""
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def wait() -> None:
    """Wait until all processes are here; what they did together before is over then, in every thread.

    A thread that drops the last hold on what it sent needs Python, and aborts if that ends meanwhile. This round sees
    off all before it, and is held here, so that Python may end after it.
    """
    global _round
    if _together():
        _round = distributed.barrier(async_op=True)
        _round.wait()


def agreed(value: T) -> T:
    """Return what the first process gives."""
    if not _together():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def gathered(value: T) -> list[T]:
    """Return what each process gives, in their order."""
    if not _together():
        return [value]
    boxes: list[T | None] = [None] * count()
    distributed.all_gather_object(boxes, value)
    return boxes  # type: ignore[return-value]


def total(value: Tensor) -> Tensor:
    """Return the sum of what each process gives, in the place of `value`; any NaN makes it NaN everywhere."""
    if _together():
        distributed.all_reduce(value)
    return value


@contextmanager
def alone() -> Iterator[None]:
    """Let this process work for itself, as long as the block runs: what is in it is done by no other, or by each."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def _together() -> bool:
    return not _alone and distributed.is_available() and distributed.is_initialized()
