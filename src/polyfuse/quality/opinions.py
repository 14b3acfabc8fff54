"""What each modality says of each row, by fast models that have not learned from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.progress import Progress, Silent
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Column, Target
from polyfuse.data.splits import folds
from polyfuse.encoders import ENCODERS
from polyfuse.encoders.table import TableEncoder
from polyfuse.learners import LEARNERS
from polyfuse.learners.learner import Array, Cells, Design
from polyfuse.learners.words import WordStatistics
from polyfuse.quality.clouds import shapes_of
from polyfuse.quality.doubles import Looks
from polyfuse.quality.looks import vectors

#: Rows that a kernel is taken at: a sixth of all, within these bounds.
_POINTS = (600, 1500)
_WIDTH = 2.0  # of the kernel, in median distances, as an exponent's factor
_PAIRS = 300


@dataclass(frozen=True)
class Opinions:
    """Scores of rows by models that have not learned from them.

    Attributes:
        joint: by all modalities together: probabilities (rows, labels), of a regression values (rows,).
        alone: by each modality alone, nan in rows without it; empty where there is only one.
        models: how they came about, in words.
    """

    joint: Array
    alone: dict[str, Array]
    models: str


def find_opinions(
    rows: Rows,
    looks: Looks,
    target: Target,
    answers: Array,
    groups: Sequence[int],
    *,
    count: int,
    seed: int,
    alone: bool = True,
    progress: Progress | None = None,
) -> Opinions:
    """Cross-validate fast models of each modality, and of all of them.

    Images are histograms of gradients, small grey values and colours; recordings small log-mel spectrograms; both, and
    embeddings, as seen through a Gaussian kernel at 600 to 1,500 of the rows (Williams and Seeger 2001). Texts are
    their words, tables as they are. A linear model learns from them; from tables boosted trees learn too, and both are
    averaged.

    Args:
        rows: to be told about.
        looks: at their images and recordings.
        target: with the labels that occur.
        answers: codes (rows,), 0/1 (rows, labels) or numbers (rows,).
        groups: of each row; rows of one group are in one fold, so that no double of a row tells its answer.
        count: number of folds.
        seed: of the folds.
        alone: whether each modality is asked alone too.
        progress: shows how far it is.
    """
    design, kinds = _designed(rows, looks, seed)
    parts = _parts(answers, target, groups, count, seed)
    asked = {name: _of(design, name, rows) for name in rows.schema.modalities}
    several = len(asked) > 1
    total = (1 + (len(asked) if several and alone else 0)) * len(parts)
    with (progress or Silent()).bar("Opinions", total) as bar:
        joint = _crossed(design, target, answers, parts, bar)
        single = {}
        for i, name in enumerate(asked if several and alone else {}):
            found = _crossed(asked[name], target, answers, parts, bar)
            found[~rows.present[:, i].numpy()] = np.nan
            single[name] = found
    told = ", ".join(f"{name}: {what}" for name, what in kinds.items())
    return Opinions(joint, single, f"{len(parts)}-fold cross-validation of fast models ({told})")


def _parts(answers: Array, target: Target, groups: Sequence[int], count: int, seed: int) -> list[NDArray[np.int64]]:
    """Deal rows out to folds alike in their answers; a group goes where its first row is."""
    if target.task == "multilabel":
        parts = folds([tuple(row) for row in answers.tolist()], "classification", count=count, seed=seed)
    else:
        parts = folds(answers.tolist(), target.task, count=count, seed=seed)
    dealt = np.empty(len(answers), dtype=np.int64)
    for number, held in enumerate(parts):
        dealt[held] = number
    _, first, places = np.unique(groups, return_index=True, return_inverse=True)
    dealt = dealt[first][places]
    return [held for number in range(len(parts)) if len(held := np.flatnonzero(dealt == number))]


def _crossed(design: Design, target: Target, answers: Array, parts: Sequence[NDArray[np.int64]], bar: Any) -> Array:
    """Return scores of each row by models that learned from the other parts."""
    names = ["linear"] + (["boosting"] if design.cells else [])
    width = len(target.levels)
    total = np.zeros(len(answers) if target.task == "regression" else (len(answers), width))
    learners = [LEARNERS.build(name, {}, target) for name in names]
    for learner in learners:
        learner.choose(design, answers, parts[0])
    every = np.arange(len(answers))
    for held in parts:
        learned = np.setdiff1d(every, held)
        for learner in learners:
            learner.fit(design.rows(learned), answers[learned])
            total[held] += learner.scores(design.rows(held)) / len(learners)
        bar.advance()
    return total


def _of(design: Design, modality: str, rows: Rows) -> Design:
    """Return what one modality says."""
    columns = set(rows.schema.modalities[modality])
    return Design(
        {name: part for name, part in design.vectors.items() if name in columns},
        {name: part for name, part in design.cells.items() if name == modality},
        {name: part for name, part in design.words.items() if name == modality},
    )


def _designed(rows: Rows, looks: Looks, seed: int) -> tuple[Design, dict[str, str]]:
    """Return the rows as learners read them, and what of each modality that is."""
    seen: dict[str, Array] = {}
    cells: dict[str, Cells] = {}
    words: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for modality in rows.schema.modalities:
        what = []
        columns = rows.schema.of(modality)
        for column in columns:
            if column.type in ("image", "audio"):
                seen[column.name] = _kernel(vectors(looks[column.name]), seed)
                what.append("gradients" if column.type == "image" else "spectrograms")
            elif column.type == "embedding":
                seen[column.name] = _kernel(_stacked(rows, column), seed)
                what.append("vectors")
            elif column.type == "points":
                seen[column.name] = _kernel(shapes_of([rows.cell(column.name, row) for row in range(len(rows))]), seed)
                what.append("shapes")
        plain = [column for column in columns if column.type in TableEncoder.reads]
        if plain:
            cells[modality] = _prepared(rows, plain)
            what.append("cells")
        if any(column.type == "text" for column in columns):
            texts = [rows.text(modality, row) for row in range(len(rows))]
            statistics = WordStatistics().fit(texts)
            if len(statistics):
                words[modality] = statistics.transform(texts)
            else:
                seen[columns[0].name] = np.array([[float(len(text or ""))] for text in texts], dtype=np.float32)
            what.append("words")
        kinds[modality] = " and ".join(dict.fromkeys(what))
    return Design(seen, cells, words), kinds


def _prepared(rows: Rows, columns: Sequence[Column]) -> Cells:
    """Return the columns of a table, scaled and coded as its encoders do."""
    encoder = ENCODERS.build("mlp", {}, list(columns))
    assert isinstance(encoder, TableEncoder)
    values = [tuple(rows.cell(column.name, row) for column in columns) for row in range(len(rows))]
    tensors = encoder.prepare(values)
    numbers = tensors["numbers"].masked_fill(tensors["missing"], float("nan")).numpy()
    return Cells(numbers, tensors["codes"].numpy(), tuple(encoder.levels))


def _stacked(rows: Rows, column: Column) -> Array:
    size = column.size or 1
    empty = np.full(size, np.nan, dtype=np.float32)
    cells = [rows.cell(column.name, row) for row in range(len(rows))]
    return np.stack([empty if cell is None else cell for cell in cells])


def _kernel(found: Array, seed: int) -> Array:
    """Return what rows (rows, n) look like through a Gaussian kernel, nan where they are absent: (rows, points).

    Its width is the median squared distance of rows drawn at random, over _WIDTH.
    """
    from sklearn.kernel_approximation import Nystroem

    known = np.flatnonzero(np.isfinite(found).all(1))
    if len(known) < 2:
        return np.zeros((len(found), 1), dtype=np.float32)
    some = found[known].astype(np.float64)
    random = np.random.default_rng(seed)
    first, second = random.choice(len(some), (2, _PAIRS))
    typical = float(np.median(((some[first] - some[second]) ** 2).sum(1)))
    gamma = _WIDTH / typical if typical > 1e-12 else 1.0
    points = min(len(some), max(_POINTS[0], min(_POINTS[1], len(some) // 6)))
    mapped = Nystroem(gamma=gamma, n_components=points, random_state=seed).fit_transform(some)
    whole = np.full((len(found), mapped.shape[1]), np.nan, dtype=np.float32)
    whole[known] = mapped
    return whole


def coded(answers: Sequence[Any], target: Target) -> Array:
    """Return answers as learners read them: codes (rows,), 0/1 (rows, labels), or numbers (rows,)."""
    if target.task == "regression":
        return np.asarray(answers, dtype=np.float64)
    places: Mapping[Any, int] = {level: i for i, level in enumerate(target.levels)}
    if target.task == "classification":
        return np.asarray([places[answer] for answer in answers], dtype=np.int64)
    found = np.zeros((len(answers), len(target.levels)), dtype=np.int64)
    for row, labels in enumerate(answers):
        found[row, [places[label] for label in labels]] = 1
    return found
