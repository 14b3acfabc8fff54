"""Boosted trees over everything at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from polyfuse.core.errors import ArtifactError
from polyfuse.core.files import whole_file
from polyfuse.core.options import Count, Rate, Usual
from polyfuse.data.schema import Target
from polyfuse.learners.learner import Array, Design, Learner, columns_of

_PATIENCE = 15  # rounds without a better loss on the held rows
_BINS = 63  # of a column; Features need no finer ones, and 255 take more than twice the time
_FEW_ROWS = 20_000
_MOST_TREES = 1_500  # of all labels together
_MOST_TEXT = 64 << 20  # bytes of a model's file


class BoostingLearner(Learner):
    """Gradient boosting of decision trees, by LightGBM (Ke et al. 2017), over one table of all modalities.

    Its columns are the pooled Features, the table's columns as they are, and the words of a text reduced by a truncated
    singular value decomposition. A missing value is one that trees can ask for. The number of rounds is the one that is
    best on held-out rows. Cost of an answer: rounds · labels · depth comparisons.

    Args:
        target: what is asked.
        rounds: trees of each label, at most; fewer where there are many labels.
        learning_rate: share of each tree's answer that is added.
        leaves: of a tree.
        columns: share of the columns that a tree may use.
        words: columns that the words are reduced to.
    """

    def __init__(
        self,
        target: Target,
        *,
        rounds: Count = 200,
        learning_rate: Annotated[Rate, Usual(0.01, 0.5, log=True)] = 0.08,
        leaves: Annotated[int, Ge(2), Le(1024)] = 15,
        columns: Annotated[float, Ge(0.01), Le(1)] = 0.2,
        words: Count = 64,
    ) -> None:
        super().__init__(target)
        self.rounds, self.learning_rate, self.leaves = rounds, learning_rate, leaves
        self.columns, self.words = columns, words
        self._projections: dict[str, Array] = {}
        self._boosters: list[Any] = []

    def choose(self, design: Design, answers: Array, held: Array, *, weights: Array | None = None) -> None:
        """Reduce the words, and choose the number of rounds on the held rows."""
        self._projections = {name: self._reduce(words) for name, words in design.words.items()}
        table, categories = self._table(design)
        learning = np.setdiff1d(np.arange(len(design)), held)
        some = None if weights is None else weights[learning]
        rounds = []
        for column in columns_of(answers, self.target):
            booster = self._boost(table[learning], column[learning], categories, some, (table[held], column[held]))
            rounds.append(booster.best_iteration or booster.current_iteration())
        self._best = max(1, round(float(np.mean(rounds))))

    def fit(self, design: Design, answers: Array, *, weights: Array | None = None) -> None:
        """Grow the trees."""
        table, categories = self._table(design)
        self._boosters = [
            self._boost(table, column, categories, weights, None) for column in columns_of(answers, self.target)
        ]

    def scores(self, design: Design) -> Array:
        """Return probabilities (rows, labels), or values (rows,)."""
        table, _ = self._table(design)
        found = [np.asarray(booster.predict(table, num_threads=_threads(len(table)))) for booster in self._boosters]
        if self.target.task == "multilabel":
            return np.stack(found, axis=1)
        if self.target.task == "classification" and len(self.target.levels) == 2:
            return np.stack([1 - found[0], found[0]], axis=1)
        return found[0]

    def save(self, folder: Path) -> None:
        """Write each booster in LightGBM's own text format, and the projections of words."""
        for number, booster in enumerate(self._boosters):
            with whole_file(folder / f"trees-{number}.txt") as temporary:
                temporary.write_text(booster.model_to_string(), encoding="utf-8")
        with whole_file(folder / "words.safetensors") as temporary:
            save_file(dict(self._projections), temporary)

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        import lightgbm

        labels = len(self.target.levels) if self.target.task == "multilabel" else 1
        try:
            self._projections = dict(load_file(folder / "words.safetensors"))
            paths = [folder / f"trees-{number}.txt" for number in range(labels)]
            if any(path.stat().st_size > _MOST_TEXT for path in paths):
                raise ArtifactError(f"{folder}: a model of trees with more than {_MOST_TEXT:,} bytes is none of ours")
            self._boosters = [lightgbm.Booster(model_str=path.read_text(encoding="utf-8")) for path in paths]
        except (OSError, SafetensorError, lightgbm.basic.LightGBMError) as error:
            raise ArtifactError(f"{folder} is damaged: {error}") from error

    @property
    def _most(self) -> int:
        """How many rounds there may be."""
        several = len(self.target.levels) if self.target.task == "multilabel" or len(self.target.levels) > 2 else 1
        return min(self.rounds, max(20, _MOST_TREES // several))

    def _table(self, design: Design) -> tuple[Array, list[int]]:
        """Return one matrix (rows, columns) and which of its columns are categories."""
        parts: list[Array] = []
        categories: list[int] = []
        for cells in design.cells.values():
            start = sum(part.shape[1] for part in parts) + cells.numbers.shape[1]
            categories += range(start, start + cells.codes.shape[1])
            parts += [cells.numbers, cells.codes.astype(np.float32)]
        parts += list(design.vectors.values())
        parts += [np.asarray(words @ self._projections[name]) for name, words in design.words.items()]
        return np.hstack(parts, dtype=np.float32), categories

    def _reduce(self, words: Any) -> Array:
        """Return the projection (words, columns) onto the largest singular vectors."""
        from sklearn.decomposition import TruncatedSVD

        size = min(self.words, min(words.shape) - 1)
        if size < 1:
            return np.zeros((words.shape[1], 1), dtype=np.float32)
        svd = TruncatedSVD(size, n_iter=2, random_state=0).fit(words)
        return np.ascontiguousarray(svd.components_.T.astype(np.float32))

    def _boost(
        self,
        table: Array,
        answers: Array,
        categories: list[int],
        weights: Array | None,
        held: tuple[Array, Array] | None,
    ) -> Any:
        import lightgbm

        settings = self._settings(len(table))
        names = [f"c{number}" for number in range(table.shape[1])]
        made: dict[str, Any] = {"feature_name": names, "params": settings, "free_raw_data": False}
        made["categorical_feature"] = categories
        training = lightgbm.Dataset(table, answers, weight=weights, **made)
        if held is None:
            return lightgbm.train(settings, training, num_boost_round=self._best)
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        deciding = lightgbm.Dataset(held[0], held[1], reference=training, **made)
        return lightgbm.train(settings, training, self._most, valid_sets=[deciding], callbacks=[stop])

    def _settings(self, rows: int) -> dict[str, Any]:
        task, labels = self.target.task, len(self.target.levels)
        if task == "regression":
            objective: dict[str, Any] = {"objective": "regression"}
        elif task == "multilabel" or labels == 2:
            objective = {"objective": "binary"}
        else:
            objective = {"objective": "multiclass", "num_class": labels}
        return {
            **objective,
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": max(2, min(20, rows // 40)),
            "feature_fraction": self.columns,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 1.0,
            "max_bin": _BINS,
            "bin_construct_sample_cnt": _FEW_ROWS,  # in float64, with their numbers: all would be thrice the table
            "deterministic": True,
            "force_row_wise": True,
            "seed": 0,
            "num_threads": _threads(rows),
            "verbosity": -1,
        }


def _threads(rows: int) -> int:
    """Return how many threads to use: on few rows they would wait for each other most of the time."""
    import torch

    return torch.get_num_threads() if rows > _FEW_ROWS else 1
