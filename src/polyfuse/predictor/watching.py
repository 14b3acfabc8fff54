"""Whether the world is still the one that the model was made for."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from polyfuse.core.errors import DataError, InputError, nearest
from polyfuse.core.progress import Progress
from polyfuse.data.rows import Rows
from polyfuse.predictor.answering import Answering
from polyfuse.progress import make_progress
from polyfuse.recipe import updated

if TYPE_CHECKING:
    from polyfuse.drift import DriftReport, Sample

#: Dealings at random behind each p-value.
DEALINGS = 999


class Watching(Answering):
    """Compares new rows with those that the model was made for."""

    def fit_reference(self, data: Any, *, seed: int = 0, progress: bool | Progress | None = None) -> Self:
        """Keep other rows for `drift` to compare with, in place of those that the fit kept.

        Args:
            data: ordinary rows, with answers or without; such as the model has not learned from: what it makes of rows
                that it learned from differs, and new rows would seem to have drifted. At most 2,000 are kept.
            seed: by which they are drawn.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: there are fewer than 30 rows.
        """
        self._need_model()
        shown = make_progress(progress)
        self._reference = self._sample(data, "reference", None, seed, shown)[0]
        self.recipe = updated(self.recipe, {"reference": "rows"})
        return self

    def drift(
        self,
        data: Any,
        *,
        reference: Any = None,
        alpha: float = 0.05,
        ignore: Collection[str] = (),
        rows: int | None = None,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> DriftReport:
        """Tell whether new rows are like those that the model was made for, and how good its answers to them will be.

        Each column, the Features of each modality and the answers are compared with the reference, in one permutation
        test for all: where nothing has drifted, drift is found in a share `alpha` of the tables. Where the table has
        the answers, these and the errors are compared too.

        Args:
            data: new rows, as for `predict`; columns that it lacks count as missing in every row.
            reference: other rows to compare with; those that the fit kept, when left out. See `fit_reference`.
            alpha: the rate of false alarms.
            ignore: columns that may move, e.g. a running number.
            rows: at most so many of the new ones, drawn at random; 2,000 when left out.
            seed: of what is random.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in a table.
            InputError: there is no reference, fewer than 30 rows, or an argument is wrong.
        """
        from polyfuse.drift import Comparison, DriftReport, performance

        begun, shown = time.monotonic(), make_progress(progress)
        self._need_model()
        self._check_drift(alpha, ignore)
        if reference is None:
            old = self._need_reference()
        else:
            old = self._sample(reference, "reference", None, seed, shown)[0]
        new, given = self._sample(data, "new", rows, seed + 1, shown)
        old, new = (some.scored(self._meant(some)) for some in (old, new))
        target, parts = self.schema.target, self._parts()
        comparison = Comparison(old, new, self.schema, parts, ignore=ignore, count=DEALINGS, seed=seed)
        with shown.bar("Comparing", len(comparison.asked)) as bar:
            shifts = comparison.shifts(alpha, lambda: bar.advance(1))
        good = [
            performance(part, each, old, new, self.schema, seed)
            for part, each in zip(parts, target.each(), strict=True)
        ]
        return DriftReport(
            task=target.task,
            target=target.name,
            rows=len(new),
            given=given,
            reference=len(old),
            alpha=alpha,
            dealings=DEALINGS,
            seed=seed,
            shifts=shifts,
            performance=good,
            left_out=comparison.left_out,
            seconds=time.monotonic() - begun,
        )

    def _need_reference(self) -> Sample:
        if self._reference is None:
            raise InputError(
                "drift: this model keeps no rows to compare with: it is of an earlier version, its recipe says"
                "  reference: none,  or it was measured on fewer than 30 rows; give others with  reference"
                "  (--reference old.csv), or keep some with  fit_reference: rows that the model has not learned from"
            )
        return self._reference

    def _check_drift(self, alpha: float, ignore: Collection[str]) -> None:
        if not 0.001 <= alpha < 1:
            raise InputError(f"alpha: {alpha:g} given: it is a rate of false alarms, from 0.001 to below 1, e.g. 0.05")
        known = [column.name for column in self.schema.columns]
        for name in ignore:
            if name not in known:
                raise InputError(f"ignore: the model reads no column {name!r}; {nearest(name, known)}")

    def _sample(self, data: Any, which: str, most: int | None, seed: int, shown: Progress) -> tuple[Sample, int]:
        """Return a sample of a table, and how many rows the table has."""
        from polyfuse.drift import LEAST, rows_that_fit, see
        from polyfuse.fitting import cached_sources
        from polyfuse.training.cache import FeatureCache

        built, rows = self._need_model(), self._rows_to_watch(data, shown)
        room = rows_that_fit(built.model, len(rows))
        if most is not None and most < LEAST:
            raise InputError(f"rows: {most} given, and fewer than {LEAST} say little: give {LEAST} or more")
        if len(rows) < LEAST:
            raise InputError(f"drift: the {which} table has {len(rows)} rows, and it takes {LEAST}; wait for more")
        random = np.random.default_rng(seed)
        chosen = np.sort(random.permutation(len(rows))[: min(room, most or room)])
        some = rows.subset(chosen.tolist())
        sources = cached_sources(built, some, FeatureCache(), self._device, shown)
        return see(built.model, some, self._device, sources=sources), len(rows)

    def _rows_to_watch(self, data: Any, shown: Progress) -> Rows:
        """Read rows, with their answers where every row has one."""
        table = self._read(data)
        if set(self.schema.target.names) & set(table.frame.columns):
            try:
                return self._rows_to_measure(table, shown)
            except DataError:
                pass  # an answer that is missing or new is no reason not to compare the rest
        return self._rows_to_answer(table)

    def _parts(self) -> Any:
        from polyfuse.calibration import places_of

        return places_of(self.schema.target)

    def _meant(self, sample: Sample) -> Any:
        """Return the scores of a sample as the model says them: calibrated."""
        raw, answered = torch.from_numpy(sample.scores), torch.from_numpy(sample.anything)
        return self._calibrated(raw, answered[:, None]).numpy()
