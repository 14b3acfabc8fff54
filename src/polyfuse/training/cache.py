"""The feature cache: each distinct value goes through a frozen encoder once, ever.

Shards lie in a folder named by all that the Features depend on beside the value, so another checkpoint, another
preparation or another arithmetic never meets them. Beside those folders stands what was found about the fastest way to
run an encoder, so that it is found once.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from polyfuse.core import processes
from polyfuse.core.compute import Compute, Way, in_torch
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress, Silent
from polyfuse.core.types import Features
from polyfuse.core.weights import weights_digest
from polyfuse.training.cached import CachedSource, HiddenSource
from polyfuse.training.encoding import encoded, units, workers_of
from polyfuse.training.shards import Shard, read_shard, write_shard
from polyfuse.training.trial import SAMPLE, Trial, remember, remembered, trial_key, tried

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows

__all__ = ["CachedSource", "FeatureCache", "HiddenSource", "default_folder", "default_limit", "encoder_key"]

_FORMAT = 2
_SHARD_BYTES = 64 << 20
_SHARD_SECONDS = 60.0  # work that is lost at most when it is interrupted
_TOKENS_SHARE = 0.25  # of the size limit: tokens that would take more are kept only if they are asked for
_ORPHAN_SECONDS = 3600  # a temporary file older than this was left by a process that was killed


def default_folder() -> Path:
    """Return where Features are kept: POLYFUSE_CACHE, else polyfuse/features in the user's cache folder."""
    given = os.environ.get("POLYFUSE_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "polyfuse" / "features"


def default_limit() -> int:
    """Return the size limit in bytes: POLYFUSE_CACHE_GB, else 20 GB.

    Raises:
        InputError: POLYFUSE_CACHE_GB is not a positive number.
    """
    given = os.environ.get("POLYFUSE_CACHE_GB", "20")
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = -1.0
    if not gigabytes > 0:
        raise InputError(f"POLYFUSE_CACHE_GB={given!r}: the cache's size limit is a positive number of gigabytes")
    return int(gigabytes * 1e9)


@dataclass(frozen=True)
class _Wanted:
    """Values that are asked for.

    Attributes:
        encoder: at rest.
        rows: of a table.
        modality: which of their values.
        device: where the encoder runs.
        identity: of the encoder, without the way in which it runs.
        digests: of each row's value, None where it is absent.
        first: of each distinct value the first row that has it.
    """

    encoder: Encoder
    rows: Rows
    modality: str
    device: torch.device
    identity: str
    digests: list[bytes | None]
    first: dict[bytes, int]

    @classmethod
    def of(cls, encoder: Encoder, rows: Rows, modality: str, device: torch.device) -> _Wanted:
        digests = [rows.digest(modality, row) for row in range(len(rows))]
        first = {digest: row for row, digest in reversed(list(enumerate(digests))) if digest is not None}
        return cls(encoder, rows, modality, device, _identity(encoder), digests, first)

    def some(self, among: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return a few values, of rows that stand evenly among others."""
        step = max(1, len(among) // SAMPLE)
        values = [self.rows.value(self.modality, row) for row in among[::step][:SAMPLE]]
        return [value for value in values if value is not None]


class FeatureCache:
    """Features on disk.

    Args:
        folder: where they lie.
        limit: size in bytes above which the shards unused for longest are removed.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or default_folder()
        self.limit = default_limit() if limit is None else limit

    def source(
        self,
        encoder: Encoder,
        rows: Rows,
        modality: str,
        *,
        tokens: bool,
        device: torch.device,
        way: Compute = "auto",
        progress: Progress | None = None,
    ) -> CachedSource:
        """Return the Features of a modality's values, encoding those that are not there yet.

        Args:
            encoder: a frozen encoder.
            rows: whose values.
            modality: which of them.
            tokens: whether batches are to carry all tokens.
            device: where the encoder runs.
            way: how it runs; "auto" is the fastest faithful way, found by a trial once for each encoder and machine.
            progress: shows how far it is.

        Raises:
            InputError: the folder cannot be written, or the encoder cannot be run in the way that is asked for.
        """
        progress = progress or Silent()
        wanted = _Wanted.of(encoder, rows, modality, device)
        chosen, trial = self._way(wanted, way, progress)
        folder = self._folder(wanted, chosen)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the feature cache {self.folder} cannot be written ({error.strerror}): set POLYFUSE_CACHE to a folder"
                " that can"
            ) from error
        shards = list(_found(folder, wanted, tokens=tokens))
        missing = _missing(wanted, shards)
        if processes.count() > 1:
            processes.wait()  # until all have looked, so that what is missing is the same to all
            mine = missing[processes.rank() :: processes.count()]
            for _ in self._encode(wanted, mine, folder, chosen, progress, tokens=tokens):
                pass
            processes.wait()
            shards = list(_found(folder, wanted, tokens=tokens))
            missing = _missing(wanted, shards)  # what another machine keeps in a folder of its own
        shards += self._encode(wanted, missing, folder, chosen, progress, tokens=tokens)
        self._evict({shard.path for shard in shards})
        where = {digest: (i, at) for i, shard in enumerate(shards) for at, digest in enumerate(shard.digests())}
        used = Counter(where[digest][0] for digest in wanted.first)
        return CachedSource(
            [shard.tensors for shard in shards],
            [None if digest is None else where[digest] for digest in wanted.digests],
            encoder.dim,
            tokens=tokens,
            way=chosen,
            seconds=sum(shard.seconds * used[i] / len(shard) for i, shard in enumerate(shards)),
            report=trial.sentence(modality) if trial else "",
        )

    def estimate(
        self,
        encoder: Encoder,
        rows: Rows,
        modality: str,
        *,
        tokens: bool,
        device: torch.device,
        way: Compute = "auto",
        progress: Progress | None = None,
    ) -> float:
        """Return about how many seconds `source` would need for what is not there yet.

        Where the encoder was never tried on this machine, it is tried for that, which takes about a second.
        The arguments are those of `source`.
        """
        wanted = _Wanted.of(encoder, rows, modality, device)
        chosen, trial = self._way(wanted, way, progress or Silent())
        missing = _missing(wanted, _found(self._folder(wanted, chosen), wanted, tokens=tokens))
        if not missing:
            return 0.0
        trial = trial or self._trial(wanted)
        each = trial.seconds.get(chosen, trial.seconds["float32"])
        length = float(units(encoder.prepare(wanted.some(missing))).double().mean())
        return each * length * len(missing) / workers_of(encoder, device) / processes.count()

    def size(self) -> int:
        """Return the bytes in use."""
        return sum(size for size, *_ in self._shards())

    def _way(self, wanted: _Wanted, way: Compute, progress: Progress) -> tuple[Way, Trial | None]:
        """Return how an encoder is run, and the trial that said so."""
        if way != "auto":
            return ("onnx" if way == "onnx" and wanted.device.type == "cpu" else in_torch(way, wanted.device)), None
        if wanted.encoder.backbone is None or not wanted.first:
            return "float32", None
        trial = self._trial(wanted, progress)
        return trial.way, trial

    def _trial(self, wanted: _Wanted, progress: Progress | None = None) -> Trial:
        trial = processes.agreed(self._tried(wanted, progress) if processes.rank() == 0 else None)
        assert trial is not None
        return trial

    def _tried(self, wanted: _Wanted, progress: Progress | None = None) -> Trial:
        path = self.folder / "ways" / f"{trial_key(wanted.identity, wanted.device)}.json"
        known = remembered(path)
        if known is not None:
            return known
        every = list(wanted.first.values())
        trial = tried(wanted.encoder, wanted.some(every), wanted.device, count=len(every))
        remember(trial, path)
        if progress is not None:
            progress.say(trial.sentence(wanted.modality))
        return trial

    def _folder(self, wanted: _Wanted, way: Way) -> Path:
        return self.folder / _key(wanted.identity, in_torch(way, wanted.device))

    def _encode(
        self, wanted: _Wanted, missing: list[int], folder: Path, way: Way, progress: Progress, *, tokens: bool
    ) -> Iterator[Shard]:
        """Encode the missing rows, and yield each shard as soon as it is full and written."""
        if not missing:
            return
        digests: list[bytes] = []
        parts: list[Features] = []
        done, taken = 0, 0.0
        begun = time.monotonic()
        bar = progress.bar(f"Encoding {wanted.modality}", len(missing))
        work = encoded(wanted.encoder, wanted.rows, wanted.modality, missing, wanted.device, way)
        with bar as shown, closing(work):
            for part in work:
                digests += [wanted.digests[row] or b"" for row in part.rows]
                parts.append(part.features)
                done += len(part.rows)
                shown.advance(len(part.rows))
                taken += float(part.features.mask.sum()) * wanted.encoder.dim * 2
                seconds = time.monotonic() - begun
                if taken >= _SHARD_BYTES or seconds >= _SHARD_SECONDS or done == len(missing):
                    kept = tokens or taken / len(digests) * len(missing) <= _TOKENS_SHARE * self.limit
                    yield write_shard(folder, digests, parts, tokens=kept, seconds=seconds)
                    digests, parts, taken, begun = [], [], 0.0, time.monotonic()

    def _shards(self, pattern: str = "*/*.safetensors") -> list[tuple[int, float, Path]]:
        """Return size, time of last use and path of each file; another process may remove some meanwhile."""
        found = []
        for path in self.folder.glob(pattern):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_size, status.st_mtime, path))
        return found

    def _evict(self, used: set[Path]) -> None:
        """Remove the shards unused for longest until the limit holds; those just used go last."""
        for _, changed, orphan in self._shards("*/.*.tmp"):
            if time.time() - changed > _ORPHAN_SECONDS:
                orphan.unlink(missing_ok=True)
        shards = self._shards()
        total = sum(size for size, *_ in shards)
        for size, _, path in sorted(shards, key=lambda shard: (shard[2] in used, shard[1])):
            if total <= self.limit:
                break
            total -= size
            path.unlink(missing_ok=True)


def encoder_key(encoder: Encoder, way: Way) -> str:
    """Hash all that Features depend on beside the value: class, preparation, way, configuration, every weight."""
    return _key(_identity(encoder), way)


def _key(identity: str, way: Way) -> str:
    return hashlib.blake2b(f"{identity} {way}".encode(), digest_size=16).hexdigest()


def _identity(encoder: Encoder) -> str:
    kind = type(encoder)
    config: Any = getattr(encoder.backbone, "config", None)
    model = config.to_dict() if config is not None else {}
    about = [
        {key: value for key, value in model.items() if key not in ("_name_or_path", "transformers_version")},
        _FORMAT,
        kind.__module__,
        kind.__qualname__,
        encoder.preparation(),
        weights_digest(encoder.state_dict()),
    ]
    return hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _found(folder: Path, wanted: _Wanted, *, tokens: bool) -> Iterator[Shard]:
    """Yield the shards that hold some of the values."""
    for path in sorted(folder.glob("*.safetensors")):
        shard = read_shard(path, set(wanted.first), tokens=tokens)
        if shard is not None:
            yield shard


def _missing(wanted: _Wanted, shards: Iterable[Shard]) -> list[int]:
    """Return the first row of each value that no shard holds."""
    there = {digest for shard in shards for digest in shard.digests()}
    return [row for digest, row in wanted.first.items() if digest not in there]
