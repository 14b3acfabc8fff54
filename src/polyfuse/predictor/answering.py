"""Answers, and how good they are."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress
from polyfuse.data.media import MediaFolder
from polyfuse.data.rows import Rows, rows_of
from polyfuse.inference import Answers, answers_of, score, weights_of
from polyfuse.predictor.holding import Holder
from polyfuse.progress import make_progress

if TYPE_CHECKING:
    from polyfuse.calibration import SetMethod
    from polyfuse.evaluation.report import Report


class Answering(Holder):
    """Predicts and measures."""

    def predict(
        self,
        data: Any,
        *,
        without: Collection[str] = (),
        screen: bool = False,
        progress: bool | Progress | None = None,
    ) -> pd.Series | pd.DataFrame:
        """Return the answer of each row, index and order kept; where several targets are asked for, a column for each.

        Columns that the model does not know are ignored; missing ones make their modality absent, with a warning. A row
        in which nothing is present gets the training prior, with a warning.

        Args:
            data: as for `fit`; a dict is one row.
            without: modalities that are taken away.
            screen: return a DataFrame, in which beside the answer stand `suspicion`, in [0, 1], and whether a row is
                `suspicious`: at most about the screen's `rate` of ordinary rows are.
            progress: whether a bar is shown.

        Raises:
            InputError: the model has no screen.
        """
        answers = self.answer(data, without=without, screen=screen, progress=progress)
        return answers.frame() if screen else answers.labels

    def predict_proba(
        self, data: Any, *, without: Collection[str] = (), progress: bool | Progress | None = None
    ) -> pd.DataFrame:
        """Return the probability of each class (a column each) in each row, index and order kept.

        Probabilities are calibrated on the validation rows, as the recipe's `calibration` says: of rows answered with
        0.8, about eight in ten are right. Where several targets are asked for, columns are pairs (target, class), and
        regressions have none.

        Raises:
            InputError: the task is a regression, or all of them are.
        """
        if not any(target.levels for target in self.schema.target.each()):
            raise InputError("a regression has no probabilities; use  predict")
        return self.answer(data, without=without, progress=progress).scores

    def answer(
        self,
        data: Any,
        *,
        without: Collection[str] = (),
        screen: bool = False,
        level: float | None = None,
        method: SetMethod = "lac",
        progress: bool | Progress | None = None,
    ) -> Answers:
        """Return labels, scores, and which rows had nothing present; see `predict`.

        Where a `level` is given, sets or intervals too; see `predict_sets` and `predict_interval`.
        """
        self._need_model()
        self._check_options(without, screen=screen, level=level, method=method)
        rows = self._rows_to_answer(data)
        answers = self.answer_rows(
            rows, without=without, screen=screen, level=level, method=method, progress=make_progress(progress)
        )
        nothing = answers.nothing_present
        if nothing.any():
            named = nothing.index[nothing].tolist()
            warnings.warn(
                f"rows with no modality ({len(named)}) get the training prior: {named[:8]}", UserWarning, stacklevel=3
            )
        return answers

    def read_rows(self, records: Sequence[Mapping[str, Any]]) -> Rows:
        """Read rows to be answered, and decode them: the part of `answer` that needs no model.

        Args:
            records: a dict for each row; paths start from the current directory.

        Raises:
            DataError: with every cell that cannot be read, whatever the recipe says of bad rows.
        """
        return rows_of(records, self.schema, MediaFolder(Path()))

    def answer_rows(
        self,
        rows: Rows,
        *,
        without: Collection[str] = (),
        screen: bool = False,
        level: float | None = None,
        method: SetMethod = "lac",
        progress: Progress | None = None,
    ) -> Answers:
        """Return what `answer` does, of rows that were read; without warnings.

        Raises:
            InputError: there is no screen, or no sets or intervals of the level.
        """
        from polyfuse.screening import screened, told

        built, used = self._need_model(), self._need_screen() if screen else None
        options: dict[str, Any] = {"without": without, "progress": progress}
        marks = None
        if used is None:
            scores, present = score(built.model, rows, self._device, **options)
        else:
            scores, logits, present = screened(built.model, used, rows, self._device, **options)
            marks = told(used, logits, rows.index)
        scores = self._calibrated(scores, present)
        nothing = pd.Series((~present.any(1)).numpy(), index=rows.index, name="nothing_present")
        within = None if level is None else self._within(scores.numpy(), nothing, level, method)
        answers = answers_of(built.model, self.schema.target, scores, rows.index, nothing)
        return replace(answers, screened=marks, within=within)

    def _check_options(self, without: Collection[str], *, screen: bool, level: float | None, method: SetMethod) -> None:
        """Check what is asked for, before work starts.

        Raises:
            InputError: it cannot be given.
        """
        if screen:
            self._need_screen()
        if level is not None:
            self.check_level(level, method)
        self._check_modalities(without)

    @property
    def levels(self) -> tuple[float, float] | None:
        """Between which levels sets or intervals can be had; None where there are none, or MAPIE is not installed."""
        asked = [part for part in self.schema.target.each() if part.task != "multilabel"]
        if self._calibration is None or not asked or importlib.util.find_spec("mapie") is None:
            return None
        rows = min(len(self._calibration.kept(part.name)[0]) for part in asked)
        return (1 / rows, 1 - 1 / rows) if rows >= 2 else None

    def check_level(self, level: float, method: SetMethod = "lac") -> None:
        """Check that there are sets or intervals of a level, before work starts.

        Raises:
            InputError: there are none, or too few rows are kept for the level.
            MissingExtra: MAPIE is not installed; it comes with the extra `report`.
        """
        from polyfuse.calibration import check_level

        calibration = self._need_calibration()
        asked = [part for part in self.schema.target.each() if part.task != "multilabel"]
        if not asked:
            raise InputError("level: sets are of one label out of several, and here each label may be there or not")
        for part in asked:
            check_level(level, len(calibration.kept(part.name)[0]), method, len(part.levels))

    def _within(self, scores: NDArray[Any], nothing: pd.Series, level: float, method: SetMethod) -> pd.DataFrame:
        """Return sets and intervals; where nothing is present, every label, and an interval without ends."""
        from polyfuse.calibration import prediction_intervals, prediction_sets, side_by_side

        calibration, target = self._need_calibration(), self.schema.target
        wide, gone = side_by_side(scores), nothing.to_numpy()
        columns: dict[str, Any] = {}
        for place, part in zip(calibration.parts, target.each(), strict=True):
            prefix = f"{part.name}:" if target.parts else ""
            kept, said = calibration.kept(part.name), place.scores(wide)
            if part.task == "classification":
                sets = prediction_sets(kept, said, level=level, method=method) | gone[:, None]
                columns[f"{prefix}set"] = [
                    [label for label, inside in zip(part.levels, row, strict=True) if inside] for row in sets.tolist()
                ]
            elif part.task == "regression":
                ends = prediction_intervals(kept, said, level=level)
                ends[gone] = -np.inf, np.inf
                columns |= {f"{prefix}low": ends[:, 0], f"{prefix}high": ends[:, 1]}
        return pd.DataFrame(columns, index=nothing.index)

    def fusion_weights(self, data: Any, *, progress: bool | Progress | None = None) -> pd.DataFrame:
        """Return how much each modality (a column each) counted in each row, of a fusion that weighs them, e.g. gated.

        Raises:
            InputError: the fusion has no weights.
        """
        model, rows = self._need_model().model, self._rows_to_answer(data)
        weights = weights_of(model, rows, self._device, progress=make_progress(progress))
        if weights is None:
            name = self.recipe.fusion.name
            raise InputError(f"the fusion {name!r} has no weights to read; fit with  fusion='gated'  or  fusion='late'")
        return pd.DataFrame(weights.numpy(), index=rows.index, columns=list(model.modalities))

    def evaluate(self, data: Any, *, without: Collection[str] = (), progress: bool | Progress | None = None) -> Report:
        """Measure the model on rows whose answers are known; of several targets, each on the rows that have it.

        Args:
            data: as for `fit`; with the target's column, or that of one of several.
            without: modalities that are taken away.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table, e.g. labels that the model does not know.
        """
        self._need_model()
        self._check_modalities(without)
        shown = make_progress(progress)
        return self._report(self._rows_to_measure(data, shown), without=without, progress=shown)

    def _report(self, rows: Rows, *, without: Collection[str] = (), progress: Progress | None = None) -> Report:
        scores, present = self._scores_of(rows, without=without, progress=progress)
        return self._measured(rows, self._calibrated(scores, present).numpy(), present)

    def _scores_of(
        self, rows: Rows, *, without: Collection[str] = (), progress: Progress | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the model's scores of rows, as they are before calibration, and what each row has."""
        from polyfuse.fitting import cached_sources
        from polyfuse.training.cache import FeatureCache

        built, shown = self._need_model(), make_progress(False if progress is None else progress)
        sources = cached_sources(built, rows, FeatureCache(), self._device, shown, without=without)
        return score(built.model, rows, self._device, without=without, sources=sources, progress=shown)

    def _measured(self, rows: Rows, scores: NDArray[Any], present: torch.Tensor) -> Report:
        from polyfuse.evaluation import evaluate

        model = self._need_model().model
        head = model.head
        shares = np.asarray(present.float().mean(0)).tolist()
        return evaluate(
            self._truth(rows),
            scores,
            head.prior().cpu().numpy(),
            self.schema.target,
            head.metrics,
            present=dict(zip(model.modalities, shares, strict=True)),
        )

    def _truth(self, rows: Rows) -> NDArray[Any]:
        """Return the answers of rows as metrics want them."""
        head = self._need_model().model.head
        truth: NDArray[Any] = head.truth(head.encode(rows.answers)).numpy()
        return truth
