"""How sure answers are: scores that mean what they say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import torch
from numpy.typing import NDArray

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.progress import Progress
from polyfuse.data.rows import Rows
from polyfuse.predictor.answering import Answering
from polyfuse.progress import make_progress
from polyfuse.recipe import updated

if TYPE_CHECKING:
    from polyfuse.calibration import CalibrationReport, Choice, ConformalReport, SetMethod
    from polyfuse.evaluation.report import Report
    from polyfuse.fitting import Fitted


class Calibrating(Answering):
    """Fits what makes probabilities mean what they say, and measures it."""

    def fit_calibration(self, data: Any, *, method: Choice = "auto", progress: bool | Progress | None = None) -> Self:
        """Fit the calibration anew, for the model as it is, and keep these rows for sets and intervals.

        Args:
            data: rows with their answers, as for `evaluate`; such as the model has not learned from, or it will seem
                surer than it is. At most 5,000 of them are used.
            method: "temperature", "vector", "none", or "auto", which takes what is better on rows that it was not
                fitted on.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: no row has anything to answer from, or there are too few for the method that is asked for.
        """
        self._need_model()
        shown = make_progress(progress)
        recipe = updated(self.recipe, {"calibration": method})
        rows = self._rows_to_measure(data, shown)
        scores, present = self._scores_of(rows, progress=shown)
        if not bool(present.any()):
            raise InputError(f"calibration: in none of the {len(rows)} rows anything is present; give others")
        before = self._calibration
        self._fit_calibration(rows, scores.numpy(), present, method)
        fitted = self._need_calibration().scalings
        unmet = [name for name, scaling in fitted.items() if scaling.task != "regression" and scaling.method != method]
        if unmet and method != "auto":
            self._calibration = before
            raise InputError(f"calibration of {unmet[0]!r}: {fitted[unmet[0]].why}; give more rows, or say  auto")
        self.recipe = recipe
        self._metrics["calibration"] = self._need_calibration().data()
        return self

    def predict_sets(
        self,
        data: Any,
        *,
        level: float = 0.9,
        method: SetMethod = "lac",
        without: Collection[str] = (),
        progress: bool | Progress | None = None,
    ) -> pd.Series | pd.DataFrame:
        """Return the labels of each row among which the true one is, in a share of `level` of the rows or more.

        That holds on average over rows like those kept for it (the validation rows, or those given to
        `fit_calibration`), by split conformal prediction; not for every group of them, and not with modalities taken
        away. Validation rows also decided which weights were kept, so that sets may be a little too small: rows that
        decided nothing, given to `fit_calibration`, are surer. A row in which nothing is present gets every label.

        Args:
            data: as for `predict`.
            level: share of the rows.
            method: "lac", the smallest sets on average, of which some may be empty, or "aps", larger ones that follow
                how hard a row is, of three labels or more.
            without: modalities that are taken away.
            progress: whether a bar is shown.

        Returns:
            A list of labels of each row, index and order kept; of several targets a column for each classification.

        Raises:
            InputError: there is no classification, or too few rows are kept for the level.
            MissingExtra: MAPIE is not installed; it comes with the extra `report`.
        """
        names = self._asked("classification", "sets are of labels; use  predict_interval")
        within = self.answer(data, level=level, method=method, without=without, progress=progress).within
        assert within is not None
        if not self.schema.target.parts:
            return within["set"].rename(self.schema.target.name)
        return within[[f"{name}:set" for name in names]].set_axis(names, axis=1)

    def predict_interval(
        self,
        data: Any,
        *,
        level: float = 0.9,
        without: Collection[str] = (),
        progress: bool | Progress | None = None,
    ) -> pd.DataFrame:
        """Return bounds between which the true number is, in a share of `level` of the rows or more.

        What holds is as for `predict_sets`. All intervals of a call are of the same width.

        Args:
            data: as for `predict`.
            level: share of the rows.
            without: modalities that are taken away.
            progress: whether a bar is shown.

        Returns:
            Columns `low` and `high` in the unit of the target, index and order kept; of several targets, pairs (target,
            low) and (target, high) of each regression. A row in which nothing is present has no ends.

        Raises:
            InputError: there is no regression, or too few rows are kept for the level.
            MissingExtra: MAPIE is not installed; it comes with the extra `report`.
        """
        names = self._asked("regression", "an interval is of numbers; use  predict_sets")
        within = self.answer(data, level=level, without=without, progress=progress).within
        assert within is not None
        if not self.schema.target.parts:
            return within
        columns = pd.MultiIndex.from_product([names, ["low", "high"]])
        return within[[f"{name}:{end}" for name, end in columns]].set_axis(columns, axis=1)

    def measure_calibration(
        self, data: Any, *, seed: int = 0, progress: bool | Progress | None = None
    ) -> dict[str, CalibrationReport]:
        """Measure how well probabilities mean what they say, before and after the calibration, by target.

        Args:
            data: as for `evaluate`; rows that neither the model nor the calibration has learned from.
            seed: of the bootstrap.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: no target has probabilities.
        """
        from polyfuse.calibration import measure_calibration

        calibration, shown = self._need_calibration(), make_progress(progress)
        rows = self._rows_to_measure(data, shown)
        scores, present = self._scores_of(rows, progress=shown)
        answered = present.any(1).numpy()
        return measure_calibration(calibration, self._truth(rows), scores.numpy(), answered, seed=seed)

    def measure_coverage(
        self,
        data: Any,
        *,
        levels: Sequence[float] = (0.9,),
        method: SetMethod = "lac",
        groups: Sequence[str] = (),
        least: int = 30,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> dict[str, ConformalReport]:
        """Measure how often sets and intervals hold, over all rows and in groups of them, by target.

        Args:
            data: as for `evaluate`; rows that neither the model nor the calibration has learned from.
            levels: at which it is measured.
            method: of the sets.
            groups: columns of the table whose values group the rows; true labels always do.
            least: rows that a group needs to be shown.
            seed: of what is random.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: there are no sets or intervals, too few rows are kept for a level, or the table lacks a column.
            MissingExtra: MAPIE is not installed; it comes with the extra `report`.
        """
        from polyfuse.calibration import measure_coverage

        calibration, shown, table = self._need_calibration(), make_progress(progress), self._read(data)
        for level in levels:
            self.check_level(level, method)
        for name in groups:
            if name not in table.frame.columns:
                raise InputError(
                    f"groups: {table.name} has no column {name!r}; {nearest(name, map(str, table.frame.columns))}"
                )
        rows = self._rows_to_measure(table, shown)
        scores, present = self._scores_of(rows, progress=shown)
        return measure_coverage(
            calibration,
            self._truth(rows),
            scores.numpy(),
            present.any(1).numpy(),
            self.schema.target,
            levels=levels,
            method=method,
            groups={name: table.frame[name].iloc[rows.positions].tolist() for name in groups},
            least=least,
            seed=seed,
        )

    def _asked(self, task: str, otherwise: str) -> list[str]:
        """Return the targets of a task.

        Raises:
            InputError: there is none.
        """
        names = [part.name for part in self.schema.target.each() if part.task == task]
        if not names:
            raise InputError(f"{self.schema.target.name!r} is no {task}: {otherwise}")
        return names

    def _fit_calibration(self, rows: Rows, scores: NDArray[Any], present: torch.Tensor, choice: Choice) -> NDArray[Any]:
        """Fit it, and return the scores of the same rows, each scaled by what was fitted on others."""
        from polyfuse.calibration import calibrate

        answered, seed = present.any(1).numpy(), self.recipe.training.seed
        self._calibration, by_others = calibrate(
            self._truth(rows), scores, answered, self.schema.target, choice, seed=seed
        )
        return by_others

    def _calibrated_report(self, fitted: Fitted) -> Report:
        """Calibrate on the validation rows, and return the report on them, of scores scaled by folds."""
        rows, scores, present = fitted.measured, fitted.scores, fitted.measured.present
        if scores is None:
            raw, present = self._scores_of(rows)
            scores = raw.numpy()
        by_others = self._fit_calibration(rows, scores, present, self.recipe.calibration)
        return self._measured(rows, by_others, present)
