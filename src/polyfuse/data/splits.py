"""Splits: some rows to learn from, the others to decide by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.errors import InputError
from polyfuse.data.cells import is_missing
from polyfuse.data.schema import Task

Positions: TypeAlias = NDArray[np.int64]
_BINS = 10
#: By which of several answers a row is dealt out: what has the fewest different values, the surest.
_ORDER = ("classification", "multilabel", "regression")


def split(
    answers: Sequence[Any],
    task: Task | Sequence[Task],
    *,
    share: float,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> tuple[Positions, Positions]:
    """Split rows in two, alike in their answers.

    Classes have the same shares on both sides, a class of a single row is on the first; of a multilabel row its rarest
    label counts, of a regression which tenth of the answers it lies in. Of several answers the first one counts that
    the row has, classes before labels before numbers. With groups, whole groups are on one side, and the shares are as
    near to that as they allow. A row without a group is one of its own.

    Args:
        answers: of each row.
        task: what they are; where they are tuples of several, what each of those is.
        share: of the rows that are on the second side, in (0, 1).
        seed: the same gives the same split.
        groups: of each row; no group is on both sides.

    Returns:
        Positions of the first and of the second side, ascending; neither is empty.

    Raises:
        InputError: fewer than two rows or groups, or a share out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"share = {share}: the share of rows to decide by lies between 0 and 1")
    if len(answers) < 2:
        raise InputError(f"{len(answers)} rows cannot be split; at least two are needed")
    strata = strata_of(answers, task)
    if groups is not None:
        return _grouped(strata, _group_codes(groups), share, seed)
    return _plain(strata, share, seed)


def folds(
    answers: Sequence[Any],
    task: Task | Sequence[Task],
    *,
    count: int,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> list[Positions]:
    """Deal rows out to parts alike in their answers, as `split` understands it: what each of several folds holds out.

    Args:
        answers: of each row.
        task: what they are, as in `split`.
        count: number of parts, at least 2; fewer where there are fewer rows or groups.
        seed: the same gives the same parts.
        groups: of each row; no group is in two parts.

    Returns:
        Positions of each part, ascending; every row is in one.

    Raises:
        InputError: fewer than two rows or groups.
    """
    strata = strata_of(answers, task)
    whole = np.arange(len(strata)) if groups is None else _group_codes(groups)
    count = min(count, int(whole.max(initial=-1)) + 1)
    if count < 2:
        raise InputError("all rows are of one group; folds need at least two" if len(strata) else "no rows to split")
    random = np.random.default_rng(seed)
    # Sorted by answer, in random order among equals, and dealt out in turn.
    order = np.lexsort((random.random(len(strata)), random.permutation(int(strata.max()) + 1)[strata]))
    dealt = np.empty(len(strata), dtype=np.int64)
    dealt[order] = np.arange(len(strata)) % count
    if groups is not None:
        from sklearn.model_selection import StratifiedGroupKFold

        parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(strata, strata, whole)
        for number, (_, held) in enumerate(parts):
            dealt[held] = number
    return [np.flatnonzero(dealt == number) for number in range(count)]


def strata_of(answers: Sequence[Any], task: Task | Sequence[Task]) -> NDArray[np.int64]:
    """Return for each row a code: rows of the same one are to be spread over both sides."""
    if not isinstance(task, str):
        return _strata_of_several(answers, task)
    if task == "classification":
        return _codes(answers)
    if task == "multilabel":
        counts = Counter(label for labels in answers for label in labels)
        return _codes([min(labels, key=lambda label: (counts[label], str(label)), default=None) for labels in answers])
    ranks = np.argsort(np.argsort(np.asarray(answers, dtype=np.float64), kind="stable"), kind="stable")
    bins = max(1, min(_BINS, len(answers) // 4))
    return (ranks * bins // len(answers)).astype(np.int64)


def _strata_of_several(answers: Sequence[tuple[Any, ...]], tasks: Sequence[Task]) -> NDArray[np.int64]:
    """Return codes of rows with several answers, each by the first one that it has, in the order of the tasks."""
    strata = np.full(len(answers), -1, dtype=np.int64)
    for place in sorted(range(len(tasks)), key=lambda place: _ORDER.index(tasks[place])):
        rows = [row for row in np.flatnonzero(strata < 0).tolist() if answers[row][place] is not None]
        found = strata_of([answers[row][place] for row in rows], tasks[place])
        strata[rows] = found + strata.max(initial=-1) + 1
    # What has no answer at all is alike.
    strata[strata < 0] = strata.max(initial=-1) + 1
    return strata


def _group_codes(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return a code for each row's group; a row without one is a group of its own."""
    return _codes([("", i) if is_missing(group) else group for i, group in enumerate(groups)])


def _codes(values: Sequence[Hashable]) -> NDArray[np.int64]:
    numbers: dict[Hashable, int] = {}
    return np.asarray([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _plain(strata: NDArray[np.int64], share: float, seed: int) -> tuple[Positions, Positions]:
    """Split rows at random, each stratum by the same share."""
    from sklearn.model_selection import train_test_split

    counts = np.bincount(strata)
    single = counts[strata] < 2
    some = np.flatnonzero(~single)
    wanted = min(len(strata) - 1, max(1, round(share * len(strata))))
    classes = int((counts > 1).sum())
    # scikit-learn stratifies only where either side has room for every class.
    if classes and classes <= wanted <= len(some) - classes:
        kept, held = train_test_split(some, test_size=wanted, random_state=seed, stratify=strata[some])
    else:
        some = some if wanted < len(some) else np.arange(len(strata))
        single = np.isin(np.arange(len(strata)), some, invert=True)
        kept, held = train_test_split(some, test_size=wanted, random_state=seed)
    first = np.concatenate([kept, np.flatnonzero(single)])
    return np.sort(first).astype(np.int64), np.sort(held).astype(np.int64)


def _grouped(
    strata: NDArray[np.int64], groups: NDArray[np.int64], share: float, seed: int
) -> tuple[Positions, Positions]:
    """Split whole groups: of several random choices of the wanted size, the one whose strata are most alike."""
    from sklearn.model_selection import GroupShuffleSplit

    count = int(groups.max()) + 1
    if count < 2:
        raise InputError("all rows are of one group; a split needs at least two, or none")
    wanted = min(count - 1, max(1, round(share * count)))
    whole = np.bincount(strata) / len(strata)

    def unlike(sides: tuple[Positions, Positions]) -> float:
        held = sides[1]
        shares = np.bincount(strata[held], minlength=len(whole)) / len(held)
        return float(np.abs(shares - whole).sum() + abs(len(held) / len(strata) - share))

    tries = GroupShuffleSplit(n_splits=20, test_size=wanted, random_state=seed).split(strata, groups=groups)
    first, second = min(tries, key=unlike)
    return np.sort(first).astype(np.int64), np.sort(second).astype(np.int64)
