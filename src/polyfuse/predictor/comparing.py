"""For whom the model fails."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.progress import Progress
from polyfuse.data.reading import Table
from polyfuse.data.rows import Rows
from polyfuse.inference import score
from polyfuse.predictor.holding import Holder
from polyfuse.progress import make_progress

if TYPE_CHECKING:
    from polyfuse.fairness import FairnessReport


class Comparing(Holder):
    """Compares groups of rows."""

    def fairness(
        self,
        data: Any,
        sensitive: Sequence[str],
        *,
        positive: Any = None,
        least: int = 20,
        without: Collection[str] = (),
        resamples: int = 1000,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> FairnessReport:
        """Compare how the model answers the groups that columns divide rows into, and all these columns crossed.

        The columns are read from the table; the model need not know them.

        Args:
            data: as for `evaluate`; rows that the model has not learned from.
            sensitive: columns whose values are the groups. Numbers of more than five distinct values are cut at their
                quartiles, and missing values are a group of their own.
            positive: the positive label of two; the second one when left out.
            least: rows on which a figure has to rest to be judged.
            without: modalities that are taken away.
            resamples: of the rows, for intervals of 95 %.
            seed: of the resamples, and of the halves on which thresholds are chosen and measured.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: no column is named, one is unknown or has more than 20 groups, or the model has several targets.
            MissingExtra: fairlearn is not installed; it comes with the extra `report`.
        """
        from polyfuse.fairness import measure

        model, target = self._need_model().model, self.schema.target
        self._check_modalities(without)
        table = self._read(data)
        self._check_sensitive(table, sensitive)
        shown = make_progress(progress)
        rows = self._rows_to_measure(table, shown)
        raw, present = score(model, rows, self._device, without=without, progress=shown)
        truth = model.head.truth(model.head.encode(rows.answers)).numpy()
        how: dict[str, Any] = {"positive": positive, "least": least, "resamples": resamples, "seed": seed}
        return measure(truth, self._calibrated(raw, present).numpy(), target, groups_of(table, rows, sensitive), **how)

    def _check_sensitive(self, table: Table, sensitive: Sequence[str]) -> None:
        """Check that columns of a table divide its rows into groups.

        Raises:
            InputError: one is unknown or the target, or the model has several targets.
        """
        target = self.schema.target
        if isinstance(sensitive, str):
            raise InputError(f"sensitive: {sensitive!r} given, a text; give a list of columns, [{sensitive!r}]")
        for name in sensitive:
            if name not in table.frame.columns:
                raise InputError(
                    f"sensitive: {table.name} has no column {name!r}; {nearest(name, map(str, table.frame.columns))}"
                )
            if name in target.names:
                raise InputError(f"sensitive: {name!r} is the target; name a column that divides the rows into groups")
        if target.parts:
            raise InputError("fairness: the model answers several targets; fit a model of one")


def groups_of(table: Table, rows: Rows, sensitive: Sequence[str]) -> dict[str, pd.Series]:
    """Return the values of some columns in the rows that were read."""
    return {name: table.frame[name].iloc[rows.positions] for name in dict.fromkeys(sensitive)}
