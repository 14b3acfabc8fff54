"""Which values are nearly the same: candidates from buckets of fingerprints, each verified, grouped around a leader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.quality.looks import SIDE, Look

Ints: TypeAlias = NDArray[np.int64]
Array: TypeAlias = NDArray[Any]

#: Share of shingles that two near texts have in common (Jaccard).
JACCARD = 0.8
#: Correlation of the pictures of two near images, and of two near recordings.
CORRELATION = 0.99
#: Bits of 63 in which the hashes of near pictures may differ.
RADIUS = 10

_SHINGLE = 5  # characters
_LONGEST = 20_000  # characters of a text that are compared
_BANDS, _ROWS = 16, 4  # of MinHash: pairs with a Jaccard of 0.8 share a band with probability 0.9998
_WINDOW = 16  # neighbours in a bucket that a value is compared with
_LOW = 8  # frequencies of a perceptual hash, in either direction
_FLAT = 2.0  # standard deviation of the grey values, of 255, below which there is nothing to see
_CHUNK = 16_384


def near_texts(texts: Sequence[str]) -> Ints:
    """Return a class for each distinct text: the position of the first one that it is near to, or its own.

    Near are texts whose sets of 5 characters in a row, in lower case and with single spaces, have a Jaccard similarity
    of at least JACCARD. Candidates come from MinHash (Broder 1997) with 16 bands of 4 rows; a text of fewer than 5
    characters is near only to the same one.
    """
    plain = [" ".join(text[:_LONGEST].lower().split()) for text in texts]
    random = np.random.default_rng(0)
    factors = random.integers(1, 1 << 63, _BANDS * _ROWS, dtype=np.uint64) << np.uint64(1) | np.uint64(1)
    shifts = random.integers(0, 1 << 63, _BANDS * _ROWS, dtype=np.uint64)
    least = np.empty((len(plain), _BANDS * _ROWS), dtype=np.uint32)
    for i, text in enumerate(plain):
        least[i] = ((_shingles(text)[:, None] * factors + shifts) >> np.uint64(32)).min(0)
    bands = np.zeros((len(plain), _BANDS), dtype=np.uint64)
    for row in range(_ROWS):
        bands = bands * np.uint64(0x9E3779B97F4A7C15) + least[:, row::_ROWS]
    pairs = _candidates(bands)
    # The share of equal minima estimates the similarity, with a standard error of 0.05: what is far below is none.
    alike = [(least[some[:, 0]] == least[some[:, 1]]).mean(1) for some in _chunks(pairs)]
    pairs = pairs[np.concatenate([*alike, np.zeros(0)]) >= JACCARD - 0.2]

    @lru_cache(maxsize=4096)
    def shingles(i: int) -> Array:
        return _shingles(plain[i])

    def near(i: int, j: int) -> bool:
        first, second = shingles(i), shingles(j)
        if min(len(first), len(second)) < JACCARD * max(len(first), len(second)):
            return False
        both = len(np.intersect1d(first, second, assume_unique=True))
        return both >= JACCARD * (len(first) + len(second) - both)

    return _led(len(plain), pairs, near)


def near_looks(looks: Sequence[Look]) -> list[tuple[int, ...]]:
    """Return a class for each distinct cell of images or of a recording, as `near_texts`: of several images, of each.

    Near are pictures (images in 32 × 32 grey values; log-mel spectrograms) whose perceptual hashes, the signs of the
    low frequencies of a cosine transform (Zauner 2010), differ in at most RADIUS bits of 63, and whose values correlate
    by at least CORRELATION; of recordings, the lengths differ by at most 2 %. What is nearly of one shade is near only
    to the same content.
    """
    parts = [(i, picture) for i, found in enumerate(looks) for picture in found.pictures]
    if not parts:
        return [()] * len(looks)
    owners = [i for i, _ in parts]
    pictures = np.stack([picture for _, picture in parts]).reshape(len(parts), -1)
    hashes, flat = _perceptual(pictures)
    unit = pictures.astype(np.float32) - pictures.mean(1, keepdims=True, dtype=np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    seconds = np.array([looks[i].seconds for i in owners])
    bands = np.stack([(hashes >> np.uint64(9 * band)) & np.uint64(511) for band in range(7)], axis=1)
    pairs = _candidates(bands, hashes)
    pairs = pairs[np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= RADIUS]
    pairs = pairs[~(flat[pairs[:, 0]] | flat[pairs[:, 1]])]
    cosine = [np.einsum("ij,ij->i", unit[some[:, 0]], unit[some[:, 1]]) for some in _chunks(pairs)]
    pairs = pairs[np.concatenate([*cosine, np.zeros(0)]) >= CORRELATION]

    def near(i: int, j: int) -> bool:
        longer = max(seconds[i], seconds[j])
        return abs(seconds[i] - seconds[j]) <= 0.02 * longer and float(unit[i] @ unit[j]) >= CORRELATION

    classes: list[list[int]] = [[] for _ in looks]
    for part, leader in enumerate(_led(len(parts), pairs, near).tolist()):
        # Flat pictures stand apart by content: each is its cell's own.
        classes[owners[part]].append(-1 - owners[part] if flat[part] else leader)
    return [tuple(found) for found in classes]


def near_vectors(vectors: Sequence[Array]) -> list[bytes]:
    """Return a key for each embedding: the same where, scaled to length 1, all numbers agree in three digits."""
    keys = []
    for vector in vectors:
        length = float(np.linalg.norm(vector))
        keys.append(np.round(vector / length if length > 0 else vector, 3).astype(np.float32).tobytes())
    return keys


def near_number(value: float) -> float:
    """Return a number in four significant digits.

    >>> near_number(1234.56), near_number(0.1 + 0.2)
    (1235.0, 0.3)
    """
    return float(f"{value:.4g}")


def _shingles(text: str) -> Array:
    """Return hashes of all runs of _SHINGLE characters, sorted and unique; of a short text one of the whole."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    width = min(_SHINGLE, max(1, len(codes)))
    if len(codes) < _SHINGLE:
        codes = np.concatenate([codes, np.full(1, 0x110000, dtype=np.uint64)])
        width = len(codes)
    hashed = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for place in range(width):
        hashed = hashed * np.uint64(0x100000001B3) + codes[place : place + len(hashed)]
    hashed ^= hashed >> np.uint64(29)
    return np.unique(hashed * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32))


def _perceptual(pictures: Array) -> tuple[Array, Array]:
    """Return the hash (uint64, 63 bits) of each picture (n, SIDE²), and whether it is nearly of one shade."""
    from scipy.fft import dctn

    hashes = np.empty(len(pictures), dtype=np.uint64)
    powers = np.uint64(1) << np.arange(_LOW * _LOW - 1, dtype=np.uint64)
    for start in range(0, len(pictures), _CHUNK):
        some = pictures[start : start + _CHUNK].astype(np.float32).reshape(-1, SIDE, SIDE)
        low = dctn(some, axes=(1, 2))[:, :_LOW, :_LOW].reshape(len(some), -1)[:, 1:]
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + len(some)] = (bits * powers).sum(1, dtype=np.uint64)
    return hashes, pictures.std(axis=1) < _FLAT


def _candidates(bands: Array, tie: Array | None = None) -> Ints:
    """Return pairs (n, 2), the lower first, that share a band; in a crowded bucket each with _WINDOW neighbours.

    Args:
        bands: (values, bands).
        tie: (values,) by which a bucket is ordered, so that neighbours are the likeliest.
    """
    found, most = [np.zeros((0, 2), dtype=np.int64)], len(bands)
    for band in bands.T:
        order = np.argsort(band, kind="stable") if tie is None else np.lexsort((tie, band))
        keys = band[order]
        for shift in range(1, min(_WINDOW, most - 1) + 1):
            same = np.flatnonzero(keys[:-shift] == keys[shift:])
            if not len(same):
                break
            found.append(np.stack([order[same], order[same + shift]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    codes = np.unique(pairs[:, 0] * most + pairs[:, 1])
    return np.stack([codes // max(most, 1), codes % max(most, 1)], axis=1)


def _led(count: int, pairs: Ints, near: Callable[[int, int], bool]) -> Ints:
    """Return the leader of each value: the first one among its candidates' leaders that it is near to, or itself.

    Leaders that are near to each other, which shows where their followers are candidates, are one in the end. That all
    is measured at leaders keeps a chain of small steps from becoming one group.
    """
    leaders = np.arange(count)
    tried: dict[tuple[int, int], bool] = {}

    def agree(first: int, second: int) -> bool:
        key = (first, second)
        if key not in tried:
            tried[key] = near(first, second)
        return tried[key]

    ordered = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist()
    for first, second in ordered:
        leader = int(leaders[first])
        if leaders[second] == second and agree(leader, second):
            leaders[second] = leader
    final = np.arange(count)
    for first, second in ordered:
        one, other = sorted((int(final[leaders[first]]), int(final[leaders[second]])))
        if one != other and agree(one, other):
            final[final == other] = one
    return final[leaders]


def _chunks(pairs: Ints) -> list[Ints]:
    return [pairs[i : i + _CHUNK] for i in range(0, len(pairs), _CHUNK)]
