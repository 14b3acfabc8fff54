"""Columns that give the answer away: copies of the target, and columns that alone predict it almost perfectly."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.progress import Progress, Silent
from polyfuse.data.cells import CellError, category, is_missing, moment, number
from polyfuse.data.media import MEDIA_TYPES
from polyfuse.data.reading import Table
from polyfuse.data.schema import Schema, Target
from polyfuse.data.splits import folds

#: From so good a prediction on, a column is suspected: accuracy, or R² of a regression.
SUSPICIOUS = 0.99
#: Share of the prior's mistakes that it must avoid, so that a frequent label alone accuses nobody.
SKILL = 0.95
#: Rows with an answer, and among them rows without the most frequent one, below which nobody is accused.
LEAST_ROWS, LEAST_OTHERS = 100, 20
MOST_ROWS = 10_000
_FOLDS = 5
_COPIES = 10  # rows that a copy must be seen in

Array = NDArray[Any]


@dataclass(frozen=True)
class Leak:
    """A column that gives the answer away.

    Attributes:
        column: its name.
        target: that it predicts.
        kind: "copy" where its cells are the answers themselves; "predicts" where they alone predict the answers.
        measure: "accuracy" or "r2".
        score: of the prediction by that column alone, in cross-validation; of a copy, the share of equal cells.
        prior: the same of the best answer that knows no column.
        used: whether a model would read the column; false where it is left out as an identifier and the like.
        reason: in words.
    """

    column: str
    target: str
    kind: Literal["copy", "predicts"]
    measure: str
    score: float
    prior: float
    used: bool
    reason: str


def find_leaks(
    table: Table, schema: Schema, positions: Array, answers: Sequence[Any], *, seed: int, progress: Progress | None
) -> tuple[list[Leak], str]:
    """Find the columns that give the answer away, and say why where they were not looked for.

    A column is a copy where its cells equal the answers in SUSPICIOUS of at least 10 rows that have both. It predicts
    where, from its cells alone and on rows not learned from (5 folds, at most MOST_ROWS rows), accuracy or R² is at
    least SUSPICIOUS and SKILL of the prior's mistakes are avoided. Numbers and times are read by a decision tree, all
    else by the most frequent answer (the mean) of rows with the same cell; of images, recordings and vectors only
    whether they are there. Small tables separate by chance, so that the latter needs LEAST_ROWS rows, of which
    LEAST_OTHERS do not have the most frequent answer, and another column.

    Args:
        table: with all columns, those that are left out too.
        schema: how it is read.
        positions: of the rows whose answers are known.
        answers: of these rows.
        seed: of the rows drawn, and of the folds.
        progress: shows how far it is.
    """
    some = np.arange(len(positions))
    if len(some) > MOST_ROWS:
        some = np.sort(np.random.default_rng(seed).permutation(len(some))[:MOST_ROWS])
    names = [name for name in table.frame.columns if name not in schema.target.names]
    found, reason = [], ""
    with (progress or Silent()).bar("Leaks", len(names) * len(schema.target.names)) as bar:
        for i, target in enumerate(schema.target.each()):
            every = [answers[row][i] if schema.target.parts else answers[row] for row in some.tolist()]
            known = np.array([place for place, answer in enumerate(every) if answer is not None], dtype=np.int64)
            asked = _Asked.of(target, [every[place] for place in known.tolist()], seed)
            reason = reason or asked.reason
            for name in names:
                cells = table.frame[name].iloc[positions[some[known]]].tolist()
                leak = _copy(name, cells, asked, schema) or _predicts(name, cells, asked, schema, alone=len(names) == 1)
                found += [leak] if leak else []
                bar.advance()
    return found, reason


@dataclass(frozen=True)
class _Asked:
    """The answers for one target, as codes or numbers, and the folds that they are predicted in.

    `reason` says why nothing can be said of columns that predict them.
    """

    target: Target
    words: list[str]
    values: Array
    prior: float
    parts: list[NDArray[np.int64]]
    reason: str

    @classmethod
    def of(cls, target: Target, answers: Sequence[Any], seed: int) -> _Asked:
        words = [str(answer) for answer in answers]
        if target.task == "regression":
            values, prior, others = np.asarray(answers, dtype=np.float64), 0.0, len(answers)
            spread = float(np.ptp(values)) if len(values) else 0.0
        else:
            codes: dict[str, int] = {}
            values = np.asarray([codes.setdefault(word, len(codes)) for word in words], dtype=np.int64)
            most = max(Counter(words).values(), default=0)
            prior, others = most / max(1, len(words)), len(words) - most
            spread = float(len(codes) - 1)
        reason = ""
        if len(answers) < LEAST_ROWS or others < LEAST_OTHERS or spread <= 0:
            reason = (
                f"target {target.name!r}: {len(answers)} rows, {others} without the most frequent answer; to say that a"
                f" column alone predicts it takes {LEAST_ROWS} rows and {LEAST_OTHERS}"
            )
        parts: list[NDArray[np.int64]] = []
        if not reason and target.task == "regression":
            parts = folds(answers, "regression", count=_FOLDS, seed=seed)
        elif not reason:
            parts = folds(words, "classification", count=_FOLDS, seed=seed)
        return cls(target, words, values, prior, parts, reason)


def _copy(name: str, cells: Sequence[Any], asked: _Asked, schema: Schema) -> Leak | None:
    """Return a leak where the cells are the answers."""
    both = [(cell, i) for i, cell in enumerate(cells) if not is_missing(cell)]
    if len(both) < max(_COPIES, 0.5 * len(cells)) or len({asked.words[i] for _, i in both}) < 2:
        return None
    if asked.target.task == "regression":
        numbers = np.array([_number(cell) for cell, _ in both])
        near = np.isclose(numbers, asked.values[[i for _, i in both]], rtol=1e-6, atol=1e-6 * asked.target.std)
        share = float(near.mean())
    else:
        share = float(np.mean([_word(cell) == _word(asked.words[i]) for cell, i in both]))
    if share < SUSPICIOUS:
        return None
    reason = f"equals the target in {share:.2%} of the rows that have both{_named(name, asked.target)}"
    measure = "r2" if asked.target.task == "regression" else "accuracy"
    used = name in {column.name for column in schema.columns}
    return Leak(name, asked.target.name, "copy", measure, share, asked.prior, used, reason)


def _predicts(name: str, cells: Sequence[Any], asked: _Asked, schema: Schema, *, alone: bool) -> Leak | None:
    """Return a leak where the cells alone predict the answers."""
    if asked.reason or alone:
        return None
    column = next((column for column in schema.columns if column.name == name), None)
    plain = {"number": _number, "datetime": _moment}.get(column.type if column else "")
    left_out = np.array([_number(cell) for cell in cells]) if column is None else np.full(1, np.nan)
    if plain is not None or np.isfinite(left_out).mean() > 0.9:
        values = np.array([(plain or _number)(cell) for cell in cells])
        predicted = _by_tree(np.where(np.isfinite(values), values, np.nan), asked)
    else:
        media = column is not None and column.type in (*MEDIA_TYPES, "embedding")
        predicted = _by_table([_word(cell, only_there=media) for cell in cells], asked)
    truth = asked.values
    if asked.target.task == "regression":
        rest, whole = np.sum((truth - predicted) ** 2), np.sum((truth - truth.mean()) ** 2)
        score, measure = float(1 - rest / whole) if whole > 0 else float("nan"), "r2"
    else:
        score, measure = float(np.mean(predicted == truth)), "accuracy"
    if not (score >= SUSPICIOUS and score - asked.prior >= SKILL * (1 - asked.prior)):
        return None
    reason = f"alone predicts the target, {measure} {score:.4f} (without it {asked.prior:.4f})"
    return Leak(
        name,
        asked.target.name,
        "predicts",
        measure,
        score,
        asked.prior,
        column is not None,
        reason + _named(name, asked.target),
    )


def _by_tree(values: Array, asked: _Asked) -> Array:
    """Return predictions for each row by a decision tree that has not seen it. values: (rows,), nan where missing."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    predicted = np.zeros_like(asked.values)
    # The trees of scikit-learn read float32: ranks keep what differs apart.
    _, ranks = np.unique(values, return_inverse=True)
    column = np.where(np.isnan(values), -1.0, ranks.reshape(-1)).astype(np.float32)[:, None]
    for held in asked.parts:
        learned = np.setdiff1d(np.arange(len(column)), held)
        kind = DecisionTreeRegressor if asked.target.task == "regression" else DecisionTreeClassifier
        tree = kind(min_samples_leaf=2, random_state=0).fit(column[learned], asked.values[learned])
        predicted[held] = tree.predict(column[held])
    return predicted


def _by_table(words: Sequence[str], asked: _Asked) -> Array:
    """Return predictions for each row by the rows with the same cell, in the other folds."""
    predicted = np.zeros_like(asked.values)
    regression = asked.target.task == "regression"
    for held in asked.parts:
        seen: dict[str, list[Any]] = defaultdict(list)
        learned = np.setdiff1d(np.arange(len(words)), held)
        for row in learned.tolist():
            seen[words[row]].append(asked.values[row])
        answer = {word: _middle(values, regression) for word, values in seen.items()}
        otherwise = _middle(asked.values[learned], regression)
        predicted[held] = [answer.get(words[row], otherwise) for row in held.tolist()]
    return predicted


def _middle(values: Any, regression: bool) -> Any:
    if regression:
        return float(np.mean(values))
    return Counter(np.asarray(values).tolist()).most_common(1)[0][0]


def _number(cell: Any) -> float:
    try:
        return float("nan") if is_missing(cell) else number(cell)
    except CellError:
        return float("nan")


def _moment(cell: Any) -> float:
    try:
        return float("nan") if is_missing(cell) else moment(cell)
    except CellError:
        return float("nan")


def _word(cell: Any, *, only_there: bool = False) -> str:
    """Return a cell in words, numbers alike however they are written: 1, 1.0, "1"."""
    if only_there:
        return "missing" if is_missing(cell) else "there"
    value = _number(cell)
    if value == value:
        return f"{value:.12g}"
    try:
        return "" if is_missing(cell) else category(cell).strip().casefold()
    except CellError:
        return "other"


def _named(name: str, target: Target) -> str:
    """Say where a column's name contains that of the target."""
    mine, theirs = (re.sub(r"[\W_]+", "", some).casefold() for some in (name, target.name))
    return "; its name contains that of the target" if len(theirs) > 1 and theirs in mine else ""
