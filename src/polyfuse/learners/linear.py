"""A linear model over everything at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix, hstack, issparse

from polyfuse.core.errors import ArtifactError
from polyfuse.core.files import whole_file
from polyfuse.data.schema import Target
from polyfuse.learners.learner import Array, Design, Learner, columns_of, loss

_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_START = 3  # where in the grid the search of a block's strength begins
_DECIDING = 8_000  # rows that hyperparameters are chosen from, at most
_CHUNK = 4_096  # rows that are made sparse at once


class LinearLearner(Learner):
    """Logistic regression, of numbers ridge regression, over blocks X_b: η = w_0 + Σ_b X_b w_b.

    It minimises Σ_rows loss(η) + Σ_b ‖w_b‖² / (2 C g_b). A block is what one modality says in one way: its pooled
    Features, its columns (numbers, and each category as 0/1), its words. Each is centred and scaled per column, words
    excepted, then as a whole to rows of mean squared length 1; its strength g_b is the one with which it does best
    alone, so that a block of few strong columns and one of many weak ones are each held back as they need (ridge with
    a penalty for each group, van de Wiel et al. 2016).
    Where a modality is absent its block is 0, and a column of its own says so. Cost of an answer: one multiplication a
    column and label.

    Args:
        target: what is asked.
        strength: C, common to all blocks; chosen on held-out rows when left out.
    """

    def __init__(self, target: Target, *, strength: Annotated[float, Gt(0)] | None = None) -> None:
        super().__init__(target)
        self._strength = strength
        self._chosen = strength or 1.0
        self._gains: dict[str, float] = {}
        self._scales: dict[str, tuple[Array, Array]] = {}
        self._coefficients: dict[str, Array] = {}
        self._intercept = np.zeros(1)

    def choose(self, design: Design, answers: Array, held: Array, *, weights: Array | None = None) -> None:
        """Learn the scales, and choose the strength of each block on the held rows."""
        self._scales, self._gains = _scales(design), {}
        some = _fewer(len(design))
        answers, weights = answers[some], None if weights is None else weights[some]
        held, learning = np.flatnonzero(np.isin(some, held)), np.flatnonzero(~np.isin(some, held))
        blocks = self._blocks(design.rows(some))
        # The strength that a block needs is that of its content, so it does not depend on who asks for it.
        for name, block in blocks.items():
            self._gains[name] = _climb(self._trial(block, answers, learning, held, weights))
        if len(blocks) > 1 and self._strength is None:
            joint = self._joined(blocks)
            trial = self._trial(joint, answers, learning, held, weights)
            self._chosen = min((0.3, 1.0), key=trial)
        elif self._strength is not None:
            self._chosen = self._strength

    def fit(self, design: Design, answers: Array, *, weights: Array | None = None) -> None:
        """Minimise the loss over all given rows."""
        blocks = self._blocks(design)
        coefficients, self._intercept = self._solve(self._joined(blocks), answers, self._chosen, weights)
        self._coefficients, start = {}, 0
        for name, block in blocks.items():
            part = coefficients[start : start + block.shape[1]]
            self._coefficients[name] = part * np.sqrt(self._gains[name])
            start += block.shape[1]

    def scores(self, design: Design) -> Array:
        """Return probabilities (rows, labels), or values (rows,)."""
        blocks = self._blocks(design)
        eta = np.zeros((len(design), len(self._intercept))) + self._intercept
        for name, coefficients in self._coefficients.items():
            eta += np.asarray(blocks[name] @ coefficients)
        return self._decided(eta)

    def save(self, folder: Path) -> None:
        """Write `linear.safetensors`."""
        tensors = {"intercept": self._intercept}
        for name, coefficients in self._coefficients.items():
            tensors[f"coefficients/{name}"] = coefficients.astype(np.float32)
        for name, (centre, width) in self._scales.items():
            tensors[f"centre/{name}"], tensors[f"width/{name}"] = centre, width
        with whole_file(folder / "linear.safetensors") as temporary:
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, temporary)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        path = folder / "linear.safetensors"
        try:
            tensors = load_file(path)
            self._intercept = tensors.pop("intercept")
            found: dict[str, dict[str, Array]] = {"coefficients": {}, "centre": {}, "width": {}}
            for key, tensor in tensors.items():
                kind, _, name = key.partition("/")
                found[kind][name] = tensor
            self._coefficients = found["coefficients"]
            self._scales = {name: (centre, found["width"][name]) for name, centre in found["centre"].items()}
        except (OSError, KeyError, SafetensorError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error
        if self._intercept.shape != (self._width(),):
            raise ArtifactError(f"{path} answers {self._intercept.shape} labels, not {self._width()}")

    def _width(self) -> int:
        """Return how many numbers a row's η has."""
        labels = len(self.target.levels)
        return (
            1 if self.target.task == "regression" or (self.target.task == "classification" and labels == 2) else labels
        )

    def _decided(self, eta: Array) -> Array:
        """Return the scores that a row's η stands for."""
        target = self.target
        if target.task == "regression":
            values: Array = eta[:, 0] * target.std + target.mean
            return values
        if target.task == "multilabel":
            return _sigmoid(eta)
        if len(target.levels) == 2:
            second = _sigmoid(eta[:, 0])
            return np.stack([1 - second, second], axis=1)
        powers = np.exp(eta - eta.max(axis=1, keepdims=True))
        probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def _blocks(self, design: Design) -> dict[str, Any]:
        """Return each block, scaled; that of words is sparse."""
        blocks: dict[str, Any] = {}
        for name, block in _dense(design):
            centre, width = self._scales[name]
            block -= centre
            block /= width
            np.nan_to_num(block, copy=False)
            blocks[name] = block
        return blocks | {f"words/{name}": words for name, words in design.words.items()}

    def _joined(self, blocks: Mapping[str, Any]) -> Any:
        """Return all blocks side by side, each as strong as it was found to do best."""
        strengths = [np.float32(np.sqrt(self._gains[name])) for name in blocks]
        return side_by_side([*blocks.values()], strengths)

    def _trial(
        self, block: Any, answers: Array, learning: Array, held: Array, weights: Array | None
    ) -> Callable[[float], float]:
        """Return the loss on the held rows as a function of the strength."""
        some = None if weights is None else weights[learning]

        def trial(strength: float) -> float:
            coefficients, intercept = self._solve(block[learning], answers[learning], strength, some)
            scores = self._decided(np.asarray(block[held] @ coefficients) + intercept)
            return loss(self.target, answers[held], scores)

        return trial

    def _solve(self, x: Any, answers: Array, strength: float, weights: Array | None) -> tuple[Array, Array]:
        """Return coefficients (columns, width) and intercept (width,)."""
        from sklearn.linear_model import LogisticRegression, Ridge

        target, width = self.target, self._width()
        coefficients, intercept = np.zeros((x.shape[1], width)), np.zeros(width)
        if target.task == "regression":
            ridge = Ridge(alpha=1 / strength, solver="sparse_cg", tol=1e-4, max_iter=200)
            ridge.fit(x, (answers - target.mean) / target.std, sample_weight=weights)
            return ridge.coef_[:, None], np.array([ridge.intercept_])
        for place, column in enumerate(columns_of(answers, target)):
            seen, counts = np.unique(column, return_counts=True)
            logistic = LogisticRegression(C=strength, tol=1e-3, max_iter=200)
            if len(seen) == 1:
                # A label that no row here has, or every one: its odds, with one row more on either side.
                certain = _log_odds(1.0, counts[0] + 1.0) * (1 if seen[0] else -1)
                intercept[place if target.task == "multilabel" else 0] = certain
                continue
            logistic.fit(x, column, sample_weight=weights)
            if target.task == "multilabel":
                coefficients[:, place], intercept[place] = logistic.coef_[0], logistic.intercept_[0]
            elif len(target.levels) == 2:
                coefficients[:, 0], intercept[0] = logistic.coef_[0], logistic.intercept_[0]
            elif len(seen) == 2:
                # Only two of several labels are here: one η between them, half of it on either side.
                for label, sign in zip(seen, (-0.5, 0.5), strict=True):
                    coefficients[:, label], intercept[label] = sign * logistic.coef_[0], sign * logistic.intercept_[0]
                intercept[np.setdiff1d(np.arange(width), seen)] = -_log_odds(1.0, len(column))
            else:
                coefficients[:, seen], intercept[seen] = logistic.coef_.T, logistic.intercept_
                intercept[np.setdiff1d(np.arange(width), seen)] = intercept[seen].min() - _log_odds(1.0, len(column))
        return coefficients, intercept


def _log_odds(against: float, for_: float) -> float:
    return float(np.log(for_ / against))


def _sigmoid(eta: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(eta / 2)))


def _dense(design: Design) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each block but those of words (rows, columns): what stands in it is the caller's to change.

    Of pooled Features also whether they are absent, where they are nan; of a table's columns the numbers, 0 where they
    are missing, whether they are, and each category's codes as 0/1.
    """
    for name, vectors in design.vectors.items():
        block = np.empty((len(vectors), vectors.shape[1] + 1), dtype=np.float32)
        block[:, :-1], block[:, -1] = vectors, np.isnan(vectors).any(axis=1)
        yield f"features/{name}", block
    for name, cells in design.cells.items():
        missing = np.isnan(cells.numbers)
        parts = [np.where(missing, np.float32(0), cells.numbers), missing.astype(np.float32)]
        parts += [np.eye(levels, dtype=np.float32)[cells.codes[:, i]] for i, levels in enumerate(cells.levels)]
        yield f"cells/{name}", np.hstack(parts)


def _scales(design: Design) -> dict[str, tuple[Array, Array]]:
    """Return centre and width of each column, such that a block's rows have a mean squared length of 1."""
    found: dict[str, tuple[Array, Array]] = {}
    for name, block in _dense(design):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where a modality is absent in every row
            centre, spread = np.nanmean(block, axis=0, dtype=np.float64), np.nanstd(block, axis=0, dtype=np.float64)
        moving = spread > 1e-6
        # A column that does not vary tells nothing: infinitely wide, it is 0 everywhere.
        width = np.where(moving, spread, np.inf) * np.sqrt(max(1, moving.sum()))
        found[name] = np.asarray(np.nan_to_num(centre), dtype=np.float32), width.astype(np.float32)
    return found


def side_by_side(blocks: Sequence[Any], factors: Sequence[np.float32]) -> Any:
    """Return blocks (rows, …), multiplied, as one matrix: dense where all are, else sparse.

    It is written where it stays: of many rows, `scipy.sparse.hstack` needs three times what it returns.
    """
    rows, width = blocks[0].shape[0], sum(block.shape[1] for block in blocks)
    if not any(issparse(block) for block in blocks):
        return np.hstack([block * factor for block, factor in zip(blocks, factors, strict=True)])
    most = sum(block.nnz if issparse(block) else block.size for block in blocks)
    values, columns = np.empty(most, dtype=np.float32), np.empty(most, dtype=np.int32)
    ends = np.zeros(rows + 1, dtype=np.int64 if most > np.iinfo(np.int32).max else np.int32)
    for start in range(0, rows, _CHUNK):
        parts = zip((block[start : start + _CHUNK] for block in blocks), factors, strict=True)
        some = hstack([csr_matrix(part) * factor for part, factor in parts], format="csr")
        first, last = ends[start], ends[start] + some.nnz
        values[first:last], columns[first:last] = some.data, some.indices
        ends[start + 1 : start + 1 + some.shape[0]] = first + some.indptr[1:]
    return csr_matrix((values[: ends[-1]], columns[: ends[-1]], ends), shape=(rows, width))


def _fewer(rows: int) -> Array:
    """Return the rows that take part in a choice."""
    if rows <= _DECIDING:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).permutation(rows)[:_DECIDING])


def _climb(trial: Callable[[float], float]) -> float:
    """Return the best strength of the grid, going from its middle to where it gets better."""
    found = {at: trial(_GRID[at]) for at in (_START, _START - 1)}
    at = min(found, key=lambda place: found[place])
    step = -1 if at < _START else 1
    while 0 <= at + step < len(_GRID):
        found[at + step] = trial(_GRID[at + step])
        if found[at + step] >= found[at]:
            break
        at += step
    return _GRID[at]
