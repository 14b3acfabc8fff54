"""How far apart two samples are, for many ways to deal the same rows to the two at once.

`labels` (dealings, rows) float32 are 1 for new rows and 0 for those of the reference; the first dealing is the true
one. Each function returns a statistic of each dealing (dealings,), greater where the samples differ more. Whatever else
it computes (the order of the rows, which levels are rare, the width of a kernel) does not look at the labels: so the
true dealing is one of many that were equally likely, where nothing has drifted.
"""

from __future__ import annotations

import numpy as np

from polyfuse.metrics.metric import Array, Floats, tie_ends

#: Rows of a level, expected in the smaller sample, below which it is counted with the other rare ones.
LEAST_EXPECTED = 5
_MOST_LEVELS = 200
_FOLDS = 5
_MOST_DIRECTIONS = 64
_ROWS_A_DIRECTION = 10
_RIDGE = 1e-2
_WIDTH_ROWS = 1000
_BLOCK = 32


def dealings(reference: int, new: int, count: int, seed: int) -> Floats:
    """Return labels (1 + count, reference + new): the true dealing, then others drawn at random."""
    random = np.random.default_rng(seed)
    true = np.repeat(np.array([0, 1], dtype=np.float32), [reference, new])
    labels: Floats = np.concatenate([true[None], random.permuted(np.tile(true, (count, 1)), axis=1)])
    return labels


def kolmogorov(values: Array, labels: Floats) -> Floats:
    """Return √(nm / (n + m)) · max_x |F(x) - G(x)|, of numbers (rows,), those that are nan left out.

    Kolmogorov 1933, Smirnov 1939.
    """
    known = ~np.isnan(values)
    order = np.flatnonzero(known)[np.argsort(values[known], kind="stable")]
    ends = tie_ends(values[order])
    found = []
    for start in range(0, len(labels), _BLOCK):  # what fits into the processor's own memory is ten times faster
        above = np.cumsum(labels[start : start + _BLOCK, order], axis=1, dtype=np.float64)
        m = above[:, -1]
        n = len(order) - m
        # A/m - (r - A)/n = (A - r·m/(n + m)) · (n + m)/(nm), at the r-th of all rows, A of them new.
        gap = np.abs(above[:, ends] - (ends + 1) * (m / (n + m))[:, None]).max(axis=1)
        found.append(gap * np.sqrt((n + m) / np.maximum(n * m, 1)))
    return np.concatenate(found)


def homogeneity(codes: Array, labels: Floats) -> Floats:
    """Return χ² of levels (rows,) int64, those below 0 left out (Pearson 1900). Rare levels are counted together."""
    counted = common(codes, float(labels[0].mean()))
    known = counted >= 0
    found, place = np.unique(counted[known], return_inverse=True)
    each = np.eye(len(found), dtype=np.float32)[place]
    some = labels[:, known]
    n, m = sizes(some)
    share = (m / (n + m))[:, None]
    total = each.sum(axis=0, dtype=np.float64)
    off = some @ each - share * total
    spread = np.maximum(share * (1 - share), 1e-12) * total
    return np.asarray((off**2 / spread).sum(axis=1), dtype=np.float64)


def common(codes: Array, share: float) -> Array:
    """Return codes in which all rare levels are one: the largest int64.

    Args:
        codes: (rows,) int64, below 0 where there is none.
        share: of the rows that are new.
    """
    levels, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    rare = counts * min(share, 1 - share) < LEAST_EXPECTED
    rare |= np.argsort(np.argsort(-counts, kind="stable"), kind="stable") >= _MOST_LEVELS
    rare &= levels >= 0
    lumped: Array = np.where(rare, np.iinfo(np.int64).max, levels)[place]
    return lumped


def shares(flags: Array, labels: Floats) -> Floats:
    """Return |p - q| / √(r(1 - r)(1/n + 1/m)), of flags (rows,) bool; r is the share of all rows."""
    n, m = sizes(labels)
    new = labels @ flags.astype(np.float32)
    rate = flags.mean()
    spread = np.sqrt(max(rate * (1 - rate), 1e-12) * (1 / n + 1 / m))
    return np.asarray(np.abs(new / m - (flags.sum() - new) / n) / spread, dtype=np.float64)


def marks(flags: Array, labels: Floats) -> Floats:
    """Return the sum of squares of `shares`, of labels of which each row has some: flags (rows, labels) bool."""
    return np.asarray(sum(shares(column, labels) ** 2 for column in flags.T), dtype=np.float64)


def rise(values: Array, labels: Floats) -> Floats:
    """Return by how much the mean of the new rows is above that of the reference, of numbers (rows,) without nan."""
    known = ~np.isnan(values)
    some = labels[:, known].astype(np.float64)
    n, m = sizes(some)
    new = some @ values[known]
    return np.asarray(new / np.maximum(m, 1) - (values[known].sum() - new) / np.maximum(n, 1))


def discrepancy(vectors: Array, labels: Floats) -> Floats:
    """Return MMD², unbiased, with k(x, y) = exp(-‖x - y‖² / 2σ²): (rows, dim) vectors.

    Gretton et al. 2012; σ is the median distance.
    """
    x = np.asarray(vectors, dtype=np.float32)
    x = x - x.mean(axis=0)
    lengths = (x**2).sum(axis=1)
    apart = np.maximum(lengths[:, None] + lengths - 2 * x @ x.T, 0)
    np.fill_diagonal(apart, 0)
    every = apart[:: len(x) // _WIDTH_ROWS + 1]
    median = float(np.median(every[every > 0])) if (every > 0).any() else 1.0
    kernel = np.exp(apart / np.float32(-median))
    np.fill_diagonal(kernel, 0)
    n, m = sizes(labels)
    near = labels @ kernel
    within = np.einsum("br,br->b", near, labels, dtype=np.float64)
    cross = labels.astype(np.float64) @ kernel.sum(axis=1, dtype=np.float64) - within
    rest = kernel.sum(dtype=np.float64) - within - 2 * cross
    pairs, others = np.maximum(m * (m - 1), 1), np.maximum(n * (n - 1), 1)
    return np.asarray(within / pairs + rest / others - 2 * cross / np.maximum(n * m, 1))


def told_apart(vectors: Array, labels: Floats, seed: int = 0) -> Floats:
    """Return how well a linear classifier tells new rows from the others, on rows that it has not seen: the AUC.

    A classifier two-sample test (Lopez-Paz and Oquab 2017). The classifier is Fisher's discriminant, fitted by least
    squares on the first principal directions, by five folds: its answers are linear in the labels, so that one product
    of matrices fits it for every dealing. The AUC, not the accuracy, for it asks for no threshold where one sample is
    larger. vectors: (rows, dim).
    """
    random = np.random.default_rng(seed)
    # Equal rows get equal answers, and stand in the order of the rows: one that does not follow the true labels.
    order = random.permutation(len(vectors))
    z, labels = principal(vectors)[order], labels[:, order]
    fold = random.permutation(len(z)) % _FOLDS
    said = np.empty_like(labels)
    for held in range(_FOLDS):
        inside = fold != held
        known, answers = z[inside], labels[:, inside]
        answers = answers - answers.mean(axis=1, keepdims=True)
        gram = known.T @ known + _RIDGE * len(known) * np.eye(z.shape[1], dtype=np.float32)
        said[:, ~inside] = (z[~inside] @ np.linalg.solve(gram, known.T @ answers.T)).T
    return areas(said, labels)


def principal(vectors: Array) -> Floats:
    """Return the first principal components, each of variance 1: one for ten rows, at most 64. vectors: (rows, dim)."""
    x = np.asarray(vectors, dtype=np.float64)
    x = x - x.mean(axis=0)
    most = max(1, min(_MOST_DIRECTIONS, len(x) // _ROWS_A_DIRECTION, x.shape[1]))
    variances, directions = np.linalg.eigh(x.T @ x / max(len(x), 1))
    kept = np.flatnonzero(variances > 1e-9 * max(variances[-1], 1e-30))[-most:]
    found: Floats = (x @ (directions[:, kept] / np.sqrt(variances[kept]))).astype(np.float32)
    return found if found.shape[1] else np.zeros((len(x), 1), dtype=np.float32)


def areas(scores: Floats, labels: Floats) -> Floats:
    """Return the area under the ROC curve of each dealing, from the ranks (Mann and Whitney 1947).

    Args:
        scores: (dealings, rows); ties do not matter, where they are as rare as between sums of numbers.
        labels: (dealings, rows).
    """
    n, m = sizes(labels)
    order = np.argsort(scores, axis=1)
    sorted_labels = np.take_along_axis(labels, order, axis=1).astype(np.float64)
    ranks = sorted_labels @ np.arange(1, labels.shape[1] + 1, dtype=np.float64)
    return np.asarray((ranks - m * (m + 1) / 2) / np.maximum(n * m, 1))


def sizes(labels: Floats) -> tuple[Floats, Floats]:
    """Return how many rows of each dealing are of the reference, and how many are new."""
    new = labels.sum(axis=1, dtype=np.float64)
    return labels.shape[1] - new, new
