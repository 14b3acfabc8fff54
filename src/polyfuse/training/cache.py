"""The feature cache: each distinct value goes through a frozen encoder once, ever.

A shard is a safetensors file of some values' Features, named by the hash of its own content: a shard is whole or not
there, and a damaged one is seen. It lies in a folder named by all that the Features depend on beside the value, so
another checkpoint or another preparation never meets them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyfuse.core.compute import Precision, autocast
from polyfuse.core.contract import HIDDEN, Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress, Silent
from polyfuse.core.types import Features, Tensors
from polyfuse.core.weights import weights_digest
from polyfuse.data.batches import by_length, pick

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows

_FORMAT = 1
_WINDOW = 256  # values prepared together, then sorted by length
_BATCH = 32
_SHARD_BYTES = 64 << 20
_ORPHAN_SECONDS = 3600  # a temporary file older than this was left by a process that was killed

Shard: TypeAlias = dict[str, Tensor]  # digests (n, 16) uint8, ends (n,) int64, tokens (Σ, dim), pooled (n, dim)


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


class CachedSource:
    """Features of a table's rows, read from shards that are mapped into memory.

    Args:
        shards: opened shards.
        places: for each row (shard, position in it); None where the modality is absent.
        dim: width.
        tokens: whether a batch carries all tokens, or only the pooled vector as its one token.
    """

    def __init__(
        self, shards: Sequence[Shard], places: Sequence[tuple[int, int] | None], dim: int, *, tokens: bool
    ) -> None:
        self._shards, self._places, self._tokens = shards, places, tokens
        self._ends = [[0, *shard["ends"].tolist()] for shard in shards]
        spans = [self._span(row) for row in range(len(places))] if tokens else []
        self.lengths = np.array([end - start for _, start, end in spans]) if tokens else None
        self.pooled = torch.zeros(len(places), dim)
        for number, shard in enumerate(shards):
            here = [(row, place[1]) for row, place in enumerate(places) if place is not None and place[0] == number]
            if here:
                to, at = torch.tensor(here).T
                self.pooled[to] = shard["pooled"][at]

    def batch(self, rows: Sequence[int]) -> Features:
        """Return Features; those of an absent value are zero."""
        pooled = self.pooled[torch.as_tensor(rows)]
        if not self._tokens:
            return Features.of_pooled(pooled)
        spans = [self._span(int(row)) for row in rows]
        lengths = torch.tensor([end - start for _, start, end in spans])
        mask = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
        tokens = torch.zeros(*mask.shape, pooled.shape[1])
        for i, (shard, start, end) in enumerate(spans):
            tokens[i, : end - start] = self._shards[shard]["tokens"][start:end]
        return Features(tokens, mask, pooled)

    def _span(self, row: int) -> tuple[int, int, int]:
        """Return in which shard a row's tokens stand, and from where to where."""
        place = self._places[row]
        if place is None:
            return 0, 0, 0
        shard, position = place
        return shard, self._ends[shard][position], self._ends[shard][position + 1]


class HiddenSource:
    """What is kept of the lower part of encoders, as a batch holds it.

    Args:
        source: Features of that part.
    """

    def __init__(self, source: CachedSource) -> None:
        self._source, self.lengths = source, source.lengths

    def batch(self, rows: Sequence[int]) -> Tensors:
        """Return what `Encoder.resume` takes."""
        features = self._source.batch(rows)
        return {HIDDEN: features.tokens, "mask": features.mask}


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
        precision: Precision,
        progress: Progress | None = None,
    ) -> CachedSource:
        """Return the Features of a modality's values, encoding those that are not there yet.

        Args:
            encoder: a frozen encoder.
            rows: whose values.
            modality: which of them.
            tokens: whether batches are to carry all tokens.
            device: where the encoder runs.
            precision: how precisely it runs.
            progress: shows how far it is.

        Raises:
            InputError: the folder cannot be written.
        """
        folder = self.folder / encoder_key(encoder, precision)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the feature cache {self.folder} cannot be written ({error.strerror}): set POLYFUSE_CACHE to a folder"
                " that can"
            ) from error
        digests = [rows.digest(modality, row) for row in range(len(rows))]
        first = {digest: row for row, digest in reversed(list(enumerate(digests))) if digest is not None}
        shards: list[Shard] = []
        found: dict[bytes, tuple[int, int]] = {}
        used = set()
        for path in sorted(folder.glob("*.safetensors")):
            shard = _read(path, set(first))
            if shard is not None:
                _index(shard, len(shards), found)
                shards.append(shard)
                used.add(path)
        missing = [row for digest, row in first.items() if digest not in found]
        for path, shard in _encode(encoder, rows, modality, missing, folder, device, precision, progress or Silent()):
            _index(shard, len(shards), found)
            shards.append(shard)
            used.add(path)
        self._evict(used)
        places = [None if digest is None else found[digest] for digest in digests]
        return CachedSource(shards, places, encoder.dim, tokens=tokens)

    def size(self) -> int:
        """Return the bytes in use."""
        return sum(size for size, *_ in self._shards())

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


def encoder_key(encoder: Encoder, precision: Precision) -> str:
    """Hash all that Features depend on beside the value: class, preparation, precision, configuration, every weight."""
    kind = type(encoder)
    config: Any = getattr(encoder.backbone, "config", None)
    model = config.to_dict() if config is not None else {}
    about = [
        {key: value for key, value in model.items() if key not in ("_name_or_path", "transformers_version")},
        _FORMAT,
        kind.__module__,
        kind.__qualname__,
        encoder.preparation(),
        precision,
        weights_digest(encoder.state_dict()),
    ]
    return hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _read(path: Path, wanted: set[bytes]) -> Shard | None:
    """Map a shard if it holds a wanted value; a damaged one is removed."""
    try:
        with safe_open(path, framework="pt") as file:
            digests = file.get_tensor("digests")
            if wanted.isdisjoint(_rows_of(digests)):
                return None
            if _checksum(path) == path.stem:
                os.utime(path)
                return _mapped(file)
    except OSError:  # removed by another process, or not readable just now: that is no damage
        return None
    except SafetensorError:
        pass
    path.unlink(missing_ok=True)
    return None


def _mapped(file: Any) -> Shard:
    return {key: file.get_tensor(key) for key in ("digests", "ends", "tokens", "pooled")}


def _index(shard: Shard, number: int, found: dict[bytes, tuple[int, int]]) -> None:
    for position, digest in enumerate(_rows_of(shard["digests"])):
        found[digest] = (number, position)


def _rows_of(digests: Tensor) -> list[bytes]:
    return [row.tobytes() for row in digests.numpy()]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _encode(
    encoder: Encoder,
    rows: Rows,
    modality: str,
    missing: list[int],
    folder: Path,
    device: torch.device,
    precision: Precision,
    progress: Progress,
) -> Iterator[tuple[Path, Shard]]:
    """Yield (path, shard) for the missing rows, each shard written as soon as it is full."""
    if not missing:
        return
    with progress.bar(f"Encoding {modality}", len(missing)) as bar:
        encoder.to(device).eval()
        digests: list[bytes] = []
        parts: list[Features] = []
        for start in range(0, len(missing), _WINDOW):
            window = missing[start : start + _WINDOW]
            values = [rows.value(modality, row) for row in window]
            prepared = encoder.prepare(values)
            for batch in by_length({modality: prepared}, len(window), _BATCH):
                tensors = pick(prepared, batch)
                with torch.inference_mode(), autocast(device, precision):
                    features: Features = encoder(**{key: tensor.to(device) for key, tensor in tensors.items()})
                parts.append(features.to("cpu"))
                digests.extend(rows.digest(modality, window[i]) or b"" for i in batch.tolist())
                bar.advance(len(batch))
            if sum(part.mask.sum() for part in parts) * encoder.dim * 2 >= _SHARD_BYTES:
                yield _write(folder, digests, parts)
                digests, parts = [], []
        if parts:
            yield _write(folder, digests, parts)


def _write(folder: Path, digests: list[bytes], parts: Sequence[Features]) -> tuple[Path, Shard]:
    tokens = torch.cat([part.tokens[part.mask].float() for part in parts])
    # Half precision halves the disk and keeps 11 bits; values beyond its range stay whole.
    if tokens.numel() == 0 or tokens.abs().max() < 6e4:
        tokens = tokens.half()
    shard = {
        "digests": torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(len(digests), -1),
        "ends": torch.cat([part.mask.sum(1) for part in parts]).cumsum(0),
        "tokens": tokens,
        "pooled": torch.cat([part.pooled.float() for part in parts]),
    }
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        save_file(shard, temporary)
        path = folder / f"{_checksum(temporary)}.safetensors"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # From the file again: what is mapped needs no memory of its own.
    with safe_open(path, framework="pt") as file:
        return path, _mapped(file)
