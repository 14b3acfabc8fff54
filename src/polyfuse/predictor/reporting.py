"""The report: all that is measured of a model on some rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from polyfuse.core.progress import Progress
from polyfuse.data.rows import Rows
from polyfuse.predictor.answering import Answering
from polyfuse.predictor.comparing import Comparing, groups_of
from polyfuse.progress import make_progress
from polyfuse.training.settings import limit_of

if TYPE_CHECKING:
    from polyfuse.reporting import ModelReport


class Reporting(Comparing, Answering):
    """Reports."""

    def report(
        self,
        data: Any,
        *,
        train: Any = None,
        references: Mapping[str, Reporting] | None = None,
        sensitive: Sequence[str] = (),
        attack: str | Path | None = None,
        stress: str | Path | None = None,
        fast: bool = False,
        time_limit: str | float | None = None,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> ModelReport:
        """Measure what the model knows, why, for whom it fails, and how sure it is.

        Args:
            data: as for `evaluate`, of rows that the model has not learned from.
            train: the training table, in which the rows nearest to those that are explained are looked for, and with
                whose rows these are compared.
            references: simpler predictors of the same column, by name, to stand beside; `baselines(train)` fits some.
            sensitive: columns of the table that divide its rows into groups to be compared; see `fairness`.
            attack: a file with what `polyfuse attack … --json` printed.
            stress: a file with what `polyfuse stress … --json` printed.
            fast: fewer rows and resamples.
            time_limit: seconds, or "90s", "5m", after which no further section is begun.
            seed: of all random numbers.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: a file is not such a document.
        """
        from polyfuse.reporting import Subject, gather
        from polyfuse.reporting.gathering import FAST
        from polyfuse.reporting.standing import read_document

        files = {name: Path(file) for name, file in (("attack", attack), ("stress", stress)) if file is not None}
        documents = {name: read_document(name, file) for name, file in files.items()}
        deadline = None if time_limit is None else time.monotonic() + limit_of(time_limit)
        model, shown = self._need_model().model, make_progress(progress)
        table = self._read(data)
        if sensitive:
            self._check_sensitive(table, sensitive)
        rows = self._rows_to_measure(table, shown)
        raw, present = self._scores_of(rows, progress=shown)
        training = self._read(train) if train is not None else None
        known = self._rows_to_measure(training, shown) if training is not None else None
        others = {name: other._scores_seen(rows) for name, other in (references or {}).items()}
        subject = Subject(
            model=model,
            recipe=self.recipe,
            rows=rows,
            device=self._device,
            raw=raw.numpy(),
            scores=self._calibrated(raw, present).numpy(),
            present=present,
            calibration=self._calibration,
            given=table,
            train=known,
            training=training,
            history=self.metrics.get("training", {}).get("history", ()),
            comparison=self.metrics.get("comparison") or None,
            others=others,
            run=self._folder.name if self._folder is not None else "",
            table=Path(data).name if isinstance(data, str | Path) else "",
            documents=documents,
            groups=groups_of(table, rows, sensitive),
        )
        return gather(subject, size=FAST if fast else None, deadline=deadline, seed=seed, progress=shown)

    def _scores_seen(self, rows: Rows) -> NDArray[Any]:
        """Return the scores of rows that were read for another model."""
        raw, present = self._scores_of(rows.seen_by(self.schema))
        return self._calibrated(raw, present).numpy()
