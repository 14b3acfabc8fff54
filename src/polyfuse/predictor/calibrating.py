"""How sure answers are: scores that mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress
from polyfuse.data.rows import Rows
from polyfuse.predictor.answering import Answering
from polyfuse.progress import make_progress
from polyfuse.recipe import updated

if TYPE_CHECKING:
    from polyfuse.calibration import Choice
    from polyfuse.evaluation.report import Report
    from polyfuse.fitting import Fitted


class Calibrating(Answering):
    """Fits what makes probabilities mean what they say, and measures it."""

    def fit_calibration(
        self, data: Any, *, method: Choice = "auto", progress: bool | Progress | None = None
    ) -> Calibrating:
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
