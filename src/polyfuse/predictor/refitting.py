"""Fitted further as the world goes on: the new model takes the place of the old one only where it is better."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from polyfuse import artifact
from polyfuse.core import processes
from polyfuse.core.errors import InputError
from polyfuse.core.files import check_link, turn_link
from polyfuse.core.progress import Progress
from polyfuse.data.measures import DECIDING, measure
from polyfuse.data.schema import Schema
from polyfuse.predictor.answering import Answering
from polyfuse.progress import make_progress

if TYPE_CHECKING:
    from polyfuse.fitting import Fitted
    from polyfuse.refitting import Refitted, Side
    from polyfuse.refitting.portions import Some


class Refitting(Answering):
    """Refits."""

    def refit(
        self,
        data: Any,
        *,
        old: Any = None,
        test: Any = None,
        out: str | Path | None = None,
        promote: str | Path | None = None,
        replay: bool = True,
        overwrite: bool = False,
        progress: bool | Progress | None = None,
    ) -> Refitted:
        """Fit another model that begins with this one, on new rows and old ones, and compare the two.

        A part of the new rows is held out, and so are some of the old rows that were kept. The new model is promoted
        where it is better on the new rows beyond chance, and not worse on the old ones beyond chance. This one is never
        changed. Ctrl-C ends the training, and compares what has been learned so far.

        Args:
            data: new rows with their answers, as for `fit`; at least 60.
            old: the table that this model learned from, to be replayed as a whole in place of the rows that the
                artifact keeps; of a model that was refitted, a list of all its tables. It is known by its digest.
            test: old rows that this model has not learned from, to measure on in place of those that the artifact
                keeps.
            out: where to save the new artifact, if it is promoted; else nothing is written.
            promote: a symbolic link that is turned to the new artifact then, in one step.
            replay: whether old rows are learned from again; without, what is not in the new rows may be forgotten.
            overwrite: replace an artifact at `out`.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in a table, e.g. labels that this model does not know.
            InputError: there are too few rows, `old` is another table, or something else in the call is wrong.
        """
        from polyfuse.refitting import Refitted, divide, fit_further, passed_on, verdict

        model, shown = self._need_model().model, make_progress(progress)
        folder = Path(out).absolute() if out is not None else None
        self._check_places(folder, Path(promote) if promote is not None else None, overwrite=overwrite)
        parts = divide(
            self.recipe,
            self.schema,
            self._kept,
            self._read(data),
            old=[self._read(table) for table in _tables(old)],
            test=self._read(test) if test is not None else None,
            replay=replay,
            progress=shown,
        )
        begun = time.monotonic()
        whole = self._kept is None or self._kept.apart
        fitted, learned = fit_further(self.recipe, self.schema, model, parts, self._folder, whole=whole, progress=shown)
        child = type(self)(recipe=fitted.recipe)
        child._take(fitted, self.schema, None, None, overwrite=False)
        seconds = time.monotonic() - begun
        new, new_scores = self._beside(child, parts.new, "held out", shown)
        before, old_scores = self._beside(child, parts.old, parts.about, shown)
        promoted, reason = verdict(new, before)
        child._kept = passed_on(self.recipe, parts, fitted, learned, new_scores, old_scores)
        compared = {"promoted": promoted, "reason": reason, "new": new.data(), "old": before.data()}
        place = self._folder.resolve() if self._folder is not None else None  # a link may be turned
        child._lineage = self._ancestry().child(place, parts.references, len(fitted.rows), compared)
        if promoted and folder is not None:
            child.save(folder, overwrite=overwrite)
            if promote is not None:
                turn_link(Path(promote), folder)
        return Refitted(
            promoted=promoted,
            reason=reason,
            new=new,
            old=before,
            rows=parts.counts(),
            seconds=seconds,
            notes=parts.notes(),
            predictor=child,
            saved=folder if promoted else None,
        )

    def _check_places(self, folder: Path | None, link: Path | None, *, overwrite: bool) -> None:
        """Check that a refit can be done here, and its results written.

        Raises:
            InputError: they cannot.
        """
        if processes.started() > 1:
            raise InputError(
                f"{processes.started()} processes were started, and a refit runs in one: leave torchrun out"
            )
        if link is not None:
            if folder is None:
                raise InputError("promote: the link is turned to a saved artifact: say where with  out  (--out)")
            check_link(link)
        if folder is None:
            return
        if self._folder is not None and folder.resolve() == self._folder.resolve():
            raise InputError(f"{folder} is the model that is refitted, and it is never changed: name another folder")
        artifact.check_free(folder, overwrite=overwrite)

    def _beside(self, child: Refitting, some: Some, about: str, progress: Progress) -> tuple[Side, NDArray[Any]]:
        """Compare this model and its child on some rows; return the child's scores before calibration, too."""
        from polyfuse.refitting import compare

        raw, present = child._scores_of(some.rows, progress=progress)
        own = self._scores_of(some.rows, progress=progress)[0] if some.scores is None else torch.from_numpy(some.scores)
        target, training, head = self.schema.target, self.recipe.training, self._need_model().model.head
        side = compare(
            self._truth(some.rows),
            self._calibrated(own, present).numpy(),
            child._calibrated(raw, present).numpy(),
            head.prior().cpu().numpy(),
            target,
            measure(target, training.metric or DECIDING[target.task]),
            head.metrics,
            about=about,
            seed=training.seed,
        )
        return side, raw.numpy()

    def _ancestry(self) -> Any:
        """Return where this model comes from; of one of an earlier version hardly anything is known."""
        from polyfuse.lineage import Lineage

        known = self._metrics.get("training", {}).get("rows", 0)
        return self._lineage or Lineage(made="", by="fit", rows=known, sources=[])

    @abstractmethod
    def _take(self, fitted: Fitted, schema: Schema, folder: Path | None, work: Path | None, *, overwrite: bool) -> None:
        """Take what was fitted, and measure it."""

    @abstractmethod
    def save(self, folder: str | Path, *, standalone: bool = True, overwrite: bool = False) -> Path:
        """Write the artifact, whole or not at all, and return its folder."""


def _tables(old: Any) -> list[Any]:
    """Return the tables that were given: a list of rows is one table, any other list is several."""
    if isinstance(old, list | tuple) and not all(isinstance(row, Mapping) for row in old):
        return list(old)
    return [] if old is None else [old]
