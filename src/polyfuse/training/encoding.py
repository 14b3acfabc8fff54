"""Running a frozen encoder over many values.

Rows of like length share a batch, so that little is padded. Batches are small enough for what a layer makes of them to
stay in a processor's own cache, and each processor works on one of its own: threads that share a batch wait for each
other in every layer, which is slow, and very slow where other programs run. Values are prepared meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.core.compute import Way, autocast, in_torch, matmul_precision
from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import pick
from polyfuse.layers.packed import packed
from polyfuse.training.exported import exported

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows

WINDOW = 2048  # values prepared together, then sorted by length
_WINDOW_BYTES = 64 << 20
_FIRST = 2  # values of the first batch, which tells how many tokens a value has
_BUDGET = {"cpu": 1024, "cuda": 16384}  # tokens of a batch, padding included
_PACKED_FROM = 32  # values for which packing weights pays
_MOST_WORKERS = 8  # more would wait for Python

Run: TypeAlias = Callable[[Tensors], Features]


@dataclass(frozen=True)
class Part:
    """Some rows, encoded.

    Attributes:
        rows: which.
        features: theirs, in the same order, on the CPU.
    """

    rows: list[int]
    features: Features


def encoded(
    encoder: Encoder, rows: Rows, modality: str, chosen: Sequence[int], device: torch.device, way: Way
) -> Generator[Part, None, None]:
    """Yield the Features of some rows, in an order that makes the work short.

    Args:
        encoder: at rest.
        rows: of a table.
        modality: which of their values.
        chosen: those that are meant; each has the value.
        device: where the encoder runs.
        way: how it runs.
    """
    if not len(chosen):
        return
    with ExitStack() as stack:
        workers = workers_of(encoder, device)
        stack.enter_context(shared_threads(workers))
        stack.enter_context(matmul_precision(way))
        run = stack.enter_context(running(encoder, device, way, values=len(chosen)))
        preparing, forward = _Pool(stack, 1), _Pool(stack, workers)
        first = list(chosen[:_FIRST])
        prepared = _prepare(encoder, rows, modality, first)
        part = forward.submit(run, prepared).result()
        yield Part(first, part)
        each = float(part.mask.sum()) / max(1.0, float(units(prepared).sum()))
        size = _window(prepared)
        windows = [chosen[start : start + size] for start in range(_FIRST, len(chosen), size)]
        under_way: deque[tuple[list[int], Future[Features]]] = deque()
        for numbers, tensors in _batches(encoder, rows, modality, windows, preparing, each, budget(device)):
            under_way.append((numbers, forward.submit(run, tensors)))
            if len(under_way) > workers:
                yield _finished(under_way)
        while under_way:
            yield _finished(under_way)


class EncodedSource:
    """Features of a modality, encoded when they are asked for: for many rows at once, each asked for once.

    Args:
        encoder: at rest.
        rows: of a table.
        modality: which of their values.
        device: where the encoder runs.
        way: how it runs.
    """

    lengths: NDArray[np.int64] | None = None

    def __init__(self, encoder: Encoder, rows: Rows, modality: str, device: torch.device, way: Way) -> None:
        self._given = encoder, rows, modality
        self._device, self._way = device, way

    def batch(self, rows: Sequence[int]) -> Features:
        """Return Features; those of an absent value are zero."""
        encoder, table, modality = self._given
        here = table.present[:, list(table.schema.modalities).index(modality)]
        place = {row: i for i, row in enumerate(rows) if here[row]}
        parts = list(encoded(encoder, table, modality, list(place), self._device, self._way))
        longest = max([1, *(part.features.mask.shape[1] for part in parts)])
        tokens = torch.zeros(len(rows), longest, encoder.dim)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        pooled = torch.zeros(len(rows), encoder.dim)
        for part in parts:
            at, length = [place[row] for row in part.rows], part.features.mask.shape[1]
            tokens[at, :length] = part.features.tokens.float()
            mask[at, :length] = part.features.mask
            pooled[at] = part.features.pooled.float()
        return Features(tokens, mask, pooled)


def units(prepared: Tensors) -> Tensor:
    """Return how long each value is: (batch,), in what its mask counts."""
    if "mask" in prepared:
        return prepared["mask"].flatten(1).sum(1)
    return torch.ones(len(next(iter(prepared.values()))), dtype=torch.long)


def budget(device: torch.device) -> int:
    """Return how many tokens a batch has at most, padding included."""
    return _BUDGET.get(device.type, _BUDGET["cpu"])


def grouped(lengths: Tensor, most: float) -> list[Tensor]:
    """Return positions in groups of like length, each of which padded is no longer than `most` in all, or one alone.

    Args:
        lengths: (batch,).
        most: lengths that a group holds.
    """
    order = lengths.argsort(stable=True)
    groups, start = [], 0
    for at, length in enumerate(lengths[order].tolist()):
        if at > start and length * (at + 1 - start) > most:
            groups.append(order[start:at])
            start = at
    return [*groups, order[start:]] if len(order) else []


def workers_of(encoder: Encoder, device: torch.device) -> int:
    """Return how many threads run an encoder side by side.

    Only a pretrained model is run by several: what transformers promises of its models holds of no other.
    """
    several = device.type == "cpu" and encoder.backbone is not None
    return min(torch.get_num_threads(), _MOST_WORKERS) if several else 1


class _Threads:
    """How many threads torch has where nothing is shared out: a setting of the whole process."""

    def __init__(self) -> None:
        self.lock, self.inside, self.all = threading.Lock(), 0, 1


_THREADS = _Threads()


@contextmanager
def shared_threads(workers: int) -> Iterator[None]:
    """Share torch's threads out among workers, as long as the block runs; a worker has one at least."""
    with _THREADS.lock:
        if not _THREADS.inside:  # else what stands there now is another's share
            _THREADS.all = torch.get_num_threads()
        _THREADS.inside += 1
        torch.set_num_threads(max(1, _THREADS.all // workers))
    try:
        yield
    finally:
        with _THREADS.lock:
            _THREADS.inside -= 1
            torch.set_num_threads(_THREADS.all)


@contextmanager
def running(encoder: Encoder, device: torch.device, way: Way, *, values: int = 1 << 30) -> Iterator[Run]:
    """Give a function that runs an encoder at rest, from several threads if need be; its Features are on the CPU.

    Where the way is "medium", it is to be called within `matmul_precision`.

    Args:
        encoder: is moved to the device.
        device: where it runs.
        way: how it runs.
        values: how many it will be run on: for few, nothing is made ready that takes its time.

    Raises:
        ExportError: ONNX Runtime cannot run it.
    """
    encoder.to(device).eval()
    if way == "onnx" and values >= _PACKED_FROM and device.type == "cpu":
        with exported(encoder) as session:
            yield session
        return
    way = in_torch(way, device)
    module = encoder
    if way != "medium" and device.type == "cpu" and encoder.backbone is not None and values >= _PACKED_FROM:
        module = packed(encoder, torch.bfloat16 if way == "bf16" else torch.float32)

    def run(tensors: Tensors) -> Features:
        with torch.inference_mode(), autocast(device, "bf16" if way == "bf16" else "float32"):
            features: Features = module(**{key: tensor.to(device) for key, tensor in tensors.items()})
            return features.to("cpu")

    yield run


class _Pool(ThreadPoolExecutor):
    """Threads that end with a block; what they have not begun then is dropped."""

    def __init__(self, stack: ExitStack, workers: int) -> None:
        super().__init__(workers)
        stack.callback(self.shutdown, wait=True, cancel_futures=True)


def _prepare(encoder: Encoder, rows: Rows, modality: str, chosen: Sequence[int]) -> Tensors:
    return encoder.prepare([rows.value(modality, row) for row in chosen])


def _batches(
    encoder: Encoder,
    rows: Rows,
    modality: str,
    windows: Sequence[Sequence[int]],
    preparing: ThreadPoolExecutor,
    each: float,
    most: int,
) -> Iterator[tuple[list[int], Tensors]]:
    """Yield rows and what is prepared of them, while the next window is prepared. each: tokens of a unit of length."""
    following = [preparing.submit(_prepare, encoder, rows, modality, window) for window in windows[:1]]
    for number, window in enumerate(windows):
        prepared = following.pop().result()
        following += [preparing.submit(_prepare, encoder, rows, modality, after) for after in windows[number + 1 :][:1]]
        for group in grouped(units(prepared), most / max(each, 1e-9)):
            yield [window[at] for at in group.tolist()], pick(prepared, group)


def _window(prepared: Tensors) -> int:
    """Return how many values are prepared together, so that they fit in little memory."""
    size = sum(tensor.nbytes for tensor in prepared.values()) / len(next(iter(prepared.values())))
    return max(16, min(WINDOW, int(_WINDOW_BYTES / max(size, 1))))


def _finished(under_way: deque[tuple[list[int], Future[Features]]]) -> Part:
    rows, future = under_way.popleft()
    return Part(rows, future.result())
