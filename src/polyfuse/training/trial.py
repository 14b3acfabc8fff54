"""The fastest faithful way to run a frozen encoder here, found by a short trial on real values."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyfuse.core.compute import Way, has_bf16, matmul_precision
from polyfuse.core.contract import Encoder
from polyfuse.core.files import whole_file
from polyfuse.core.types import Features, Tensors
from polyfuse.data.batches import pick
from polyfuse.training.encoding import Run, budget, running, shared_threads, units, workers_of
from polyfuse.training.exported import ExportError, can_export

#: The least cosine that any token, or any pooled vector, has with that of float32.
FAITHFUL = 0.999
#: Values that a trial looks at, at most.
SAMPLE = 32
_SECONDS = 0.15  # of float32 in one round
_ROUNDS = 2  # after a first one, which makes ready what later ones use
_HOPELESS = 1.6  # a way that needs so many times as long as the best in the first round is not measured again
_BETTER = 0.9  # a way is taken in the place of a plainer one if it needs less than this share of its time
_EXPORT_PAYS = 60.0  # seconds of work from which an export is worth trying


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        way: the fastest of those that are faithful.
        seconds: of each way, for one unit of length, on one processor or the GPU.
        cosines: of each way the least cosine of a token, or of a pooled vector, with that of float32.
    """

    way: Way
    seconds: dict[Way, float]
    cosines: dict[Way, float]

    def sentence(self, modality: str) -> str:
        """Say what was chosen, and why."""
        if self.way != "float32":
            times = self.seconds["float32"] / self.seconds[self.way]
            return f"{modality}: {self.way}, {times:.1f} times faster than float32, cosine {self.cosines[self.way]:.5f}"
        refused = [f"{way} (cosine {self.cosines[way]:.3f})" for way in self.seconds if self.cosines[way] < FAITHFUL]
        return f"{modality}: float32" + (f"; not faithful: {', '.join(refused)}" if refused else "")


def tried(encoder: Encoder, values: Sequence[tuple[Any, ...]], device: torch.device, *, count: int) -> Trial:
    """Run an encoder in all ways that there are here, and choose.

    Args:
        encoder: at rest.
        values: some of those that it will be run on.
        device: where.
        count: on how many it will be run.
    """
    workers = workers_of(encoder, device)
    # On one thread each, as in the work itself.
    with shared_threads(torch.get_num_threads()) if device.type == "cpu" else nullcontext():
        prepared = _sample(encoder, values, device)
        ways: list[Way] = ["float32"]
        if device.type in ("cpu", "cuda"):
            ways.append("medium")
        if has_bf16(device):
            ways.append("bf16")
        seconds, cosines = _measure(encoder, prepared, device, ways)
        way = _chosen(seconds, cosines)
        length = float(units(prepared).double().mean()) * count
        work = seconds[way] * length / workers
        # In float32 it cannot be as fast as bf16 where the hardware has that.
        if way != "bf16" and device.type == "cpu" and work > _EXPORT_PAYS and can_export():
            with suppress(ExportError):
                seconds, cosines = _measure(encoder, prepared, device, [*ways, "onnx"])
        return Trial(_chosen(seconds, cosines), seconds, cosines)


def machine(device: torch.device) -> str:
    """Describe what the choice of a way depends on beside the encoder."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} {name} {has_bf16(device)} {can_export()} {torch.__version__}"


def remembered(path: Path) -> Trial | None:
    """Return what an earlier trial found, None where there was none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        trial = Trial(found["way"], found["seconds"], found["cosines"])
        return trial if trial.way in trial.seconds and trial.way in trial.cosines else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(trial: Trial, path: Path) -> None:
    """Keep what a trial found, so that the next run does the same; where that cannot be written, it is tried again."""
    with suppress(OSError), whole_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(trial), indent=1), encoding="utf-8")


def trial_key(identity: str, device: torch.device) -> str:
    """Return a name for the trial of an encoder on a machine. identity: of the encoder."""
    return hashlib.blake2b(f"{identity} {machine(device)}".encode(), digest_size=16).hexdigest()


def _sample(encoder: Encoder, values: Sequence[tuple[Any, ...]], device: torch.device) -> Tensors:
    """Return some prepared values of all lengths, as many as float32 needs a moment for."""
    prepared = encoder.prepare(values)
    order = units(prepared).argsort(stable=True)
    some = pick(prepared, order[[0, -1]] if len(order) > 1 else order)
    with running(encoder, device, "float32", values=1) as run:
        features, _ = _timed(run, some, device, "float32")  # the first call makes ready what later ones use
        _, needed = _timed(run, some, device, "float32")
    longest = int(units(prepared).max()) * float(features.mask.sum()) / max(1.0, float(units(some).sum()))
    rows = min(_SECONDS / max(needed / len(features.mask), 1e-9), budget(device) / max(longest, 1.0), len(order))
    at = torch.linspace(0, len(order) - 1, max(1, int(rows))).round().long()
    return pick(prepared, order[at])


def _measure(
    encoder: Encoder, prepared: Tensors, device: torch.device, ways: Sequence[Way]
) -> tuple[dict[Way, float], dict[Way, float]]:
    """Return of each way the seconds for a unit of length, padding included, and the least cosine with float32."""
    size = max(1, len(units(prepared)) * int(units(prepared).max()))
    seconds: dict[Way, float] = {}
    cosines: dict[Way, float] = {}
    with ExitStack() as stack:
        with running(encoder, device, "float32", values=1) as plain:
            reference, _ = _timed(plain, prepared, device, "float32")
        runs = {way: stack.enter_context(running(encoder, device, way)) for way in ways}
        for way, run in runs.items():
            found, needed = _timed(run, prepared, device, way)
            cosines[way], seconds[way] = _cosine(found, reference), needed / size
        worth = [way for way in runs if seconds[way] < _HOPELESS * min(seconds.values())]
        # One after the other in each round, so that what else the machine does falls on all of them.
        for way in worth * _ROUNDS:
            seconds[way] = min(seconds[way], _timed(runs[way], prepared, device, way)[1] / size)
    return seconds, cosines


def _timed(run: Run, prepared: Tensors, device: torch.device, way: Way) -> tuple[Features, float]:
    clock = _clock(device)
    with matmul_precision(way):
        begun = clock()
        features = run(prepared)
        return features, clock() - begun


def _clock(device: torch.device) -> Callable[[], float]:
    # On one thread, the time that it has had tells more than that on the wall, in which others may have had their turn.
    return time.thread_time if device.type == "cpu" else time.perf_counter


def _chosen(seconds: dict[Way, float], cosines: dict[Way, float]) -> Way:
    best: Way = "float32"
    for way in seconds:  # the plainer ones first
        if cosines[way] >= FAITHFUL and seconds[way] < _BETTER * seconds[best]:
            best = way
    return best


def _cosine(found: Features, reference: Features) -> float:
    """Return the least cosine of two Features' tokens and pooled vectors, 0 where they are of different shapes."""
    if found.tokens.shape != reference.tokens.shape or not found.mask.equal(reference.mask):
        return 0.0
    mask = reference.mask
    pairs = ((found.tokens[mask], reference.tokens[mask]), (found.pooled, reference.pooled))
    return min((_least(a.double(), b.double()) for a, b in pairs if len(b)), default=1.0)


def _least(found: Tensor, reference: Tensor) -> float:
    alike = F.cosine_similarity(found, reference, dim=-1)
    alike = torch.where((found == reference).all(-1), 1.0, alike)  # a vector of zeros has no direction
    return float(torch.nan_to_num(alike, nan=0.0).min())
