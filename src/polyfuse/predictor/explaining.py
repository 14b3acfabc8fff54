"""Why a model answers as it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse.core.progress import Progress
from polyfuse.predictor.holding import Holder
from polyfuse.predictor.proving import _some
from polyfuse.progress import make_progress

if TYPE_CHECKING:
    from polyfuse.data.rows import Rows
    from polyfuse.explanation import Explanations, Method
    from polyfuse.explanation.shares import Shares


class Explaining(Holder):
    """Explains answers, row by row."""

    def explain(
        self,
        data: Any,
        *,
        method: Method | None = None,
        train: Any = None,
        rows: int | None = 8,
        fast: bool = False,
        seed: int = 0,
        out: str | Path | None = None,
        progress: bool | Progress | None = None,
    ) -> Explanations:
        """Say why rows got their answers: what in them speaks for it, what would change it, what looks alike.

        Attributions come with their own faithfulness: deletion and insertion curves against random orders.

        Args:
            data: as for `predict`.
            method: "integrated_gradients", "occlusion", "gradient_input" or "rollout"; integrated gradients where a
                gradient says all, else occlusion, when left out.
            train: the training table, for nearest rows and for modalities that are swapped with theirs.
            rows: at most so many, drawn at random; all where it is None.
            fast: fewer steps, shorter curves, fewer training rows.
            seed: of all random numbers.
            out: a folder for pictures, words and JSON, which must not exist yet.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in a table.
            InputError: the method is unknown or cannot act here, the folder exists, or the model has several targets.
            MissingExtra: captum is not installed.
        """
        from polyfuse.explanation import FAST, Effort, explain_model
        from polyfuse.explanation.saving import check_free

        model, shown = self._need_model().model, make_progress(progress)
        if out is not None:
            check_free(Path(out))
        given = _some(self._rows_to_answer(data), rows, seed)
        known = self._rows_to_measure(train, shown) if train is not None else None
        spent = FAST if fast else Effort()
        found = explain_model(
            model,
            given,
            self._device,
            method,
            calibration=self._calibration,
            train=known,
            effort=spent,
            seed=seed,
            progress=shown,
        )
        if out is not None:
            found.save(out)
        return found

    def shares(self, row: Rows) -> Shares:
        """Return what each modality gives to the scores of one row, which `read_rows` has read.

        Raises:
            InputError: there are several rows, or none.
        """
        from polyfuse.explanation.shares import shares_of

        return shares_of(self._need_model().model, row, self._device, calibration=self._calibration)
