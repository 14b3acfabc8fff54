"""The report: all that is measured of a model on some rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse.core.progress import Progress
from polyfuse.inference import score
from polyfuse.predictor.comparing import Comparing, groups_of
from polyfuse.progress import make_progress
from polyfuse.training.settings import limit_of

if TYPE_CHECKING:
    from polyfuse.reporting import ModelReport


class Reporting(Comparing):
    """Reports."""

    def report(
        self,
        data: Any,
        *,
        references: Mapping[str, Any] | None = None,
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
            references: simpler predictors of the same column, by name, to stand beside; `references(train)` fits some.
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
        scores, present = score(model, rows, self._device, progress=shown)
        others = {
            name: score(other.model, rows.seen_by(other.schema), self._device)[0].numpy()
            for name, other in (references or {}).items()
        }
        subject = Subject(
            model=model,
            recipe=self.recipe,
            rows=rows,
            device=self._device,
            scores=scores.numpy(),
            present=present,
            history=self.metrics.get("training", {}).get("history", ()),
            others=others,
            run=self._folder.name if self._folder is not None else "",
            table=Path(data).name if isinstance(data, str | Path) else "",
            documents=documents,
            groups=groups_of(table, rows, sensitive),
        )
        return gather(subject, size=FAST if fast else None, deadline=deadline, seed=seed, progress=shown)
