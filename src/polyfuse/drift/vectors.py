"""The columns of a table as vectors, so that what they say together can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from polyfuse.data.schema import Column
from polyfuse.drift.sample import Sample
from polyfuse.drift.statistics import common
from polyfuse.metrics.metric import Array

TABULAR = frozenset({"number", "category", "datetime"})
_MOST_LEVELS = 30


def table_vectors(columns: Sequence[Column], reference: Sample, new: Sample) -> Array:
    """Return the rows of both samples as vectors (rows, dim), made without a look at which sample a row is of.

    A number is the normal score of its rank among all, 0 where it is missing; a level that is not rare is a 1 in a
    place of its own; that a cell is missing is another one. Dates are left out.
    """
    from scipy.stats import rankdata  # a second of importing, for which no other work is to wait

    share = len(new) / (len(reference) + len(new))
    parts: list[Array] = []
    for column in columns:
        if column.type == "number":
            key = column.name, "values"
            values = np.concatenate([reference.numbers[key], new.numbers[key]])
            known = ~np.isnan(values)
            scores = np.zeros(len(values))
            scores[known] = ndtri(rankdata(values[known]) / (known.sum() + 1))
            parts += [scores, *([(~known).astype(float)] if not known.all() else [])]
        elif column.type == "category":
            codes = common(np.concatenate([reference.codes[column.name], new.codes[column.name]]), share)
            levels, counts = np.unique(codes, return_counts=True)
            kept = levels[np.argsort(-counts, kind="stable")[:_MOST_LEVELS]]
            parts += [(codes == level).astype(float) for level in kept if len(levels) > 1]
    return np.stack(parts, axis=1) if parts else np.zeros((len(reference) + len(new), 0))
