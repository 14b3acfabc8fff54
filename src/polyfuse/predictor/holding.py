"""What a predictor holds, and how it reads tables."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from polyfuse import artifact
from polyfuse.core.compute import default_device
from polyfuse.core.errors import InputError, PolyfuseError, nearest
from polyfuse.core.progress import Progress
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Schema
from polyfuse.model import Model
from polyfuse.recipe import Built, Recipe, read_recipe, updated

if TYPE_CHECKING:
    from polyfuse.calibration import Calibration
    from polyfuse.drift import Sample
    from polyfuse.lineage import Kept, Lineage
    from polyfuse.screening import Screen


class Holder:
    """A recipe, and once there is one its model with the schema of its training table."""

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
        **settings: Any,
    ) -> None:
        if target is None and recipe is None:
            raise InputError("target is missing: name the column that is asked for, e.g.  Predictor(target='price')")
        if recipe is None:
            recipe = {"target": target}
        given = read_recipe(recipe, target=target)
        self._given = updated(given, settings) if settings else given
        self._set = settings
        self.recipe = self._given
        self._schema: Schema | None = None
        self._built: Built | None = None
        self._metrics: dict[str, Any] = {}
        self._screen: Screen | None = None
        self._calibration: Calibration | None = None
        self._reference: Sample | None = None
        self._kept: Kept | None = None
        self._lineage: Lineage | None = None
        self._logs: Path | None = None
        self._folder: Path | None = None

    @property
    def schema(self) -> Schema:
        """What is known of the training table."""
        self._need_model()
        assert self._schema is not None
        return self._schema

    @property
    def metrics(self) -> dict[str, Any]:
        """How the training went, and the report on the validation rows, as JSON values."""
        self._need_model()
        return self._metrics

    @property
    def has_screen(self) -> bool:
        """Whether rows can be screened; see `fit_screen`."""
        return self._screen is not None

    @property
    def lineage(self) -> dict[str, Any]:
        """Where the model comes from, as JSON values; empty for one of an earlier version."""
        self._need_model()
        return self._lineage.model_dump(mode="json") if self._lineage is not None else {}

    @property
    def model(self) -> Model:
        """The FusionModel, or an Ensemble of several."""
        return self._need_model().model

    def _hold(self, saved: artifact.Artifact, folder: Path) -> None:
        """Take the model of an artifact; what was asked for stays, so that another fit asks for the same."""
        self.recipe, self._schema, self._built, self._metrics = saved.recipe, saved.schema, saved.built, saved.metrics
        self._screen, self._calibration, self._reference = saved.screen, saved.calibration, saved.reference
        self._kept, self._lineage = saved.kept, saved.lineage
        saved.built.model.to(self._device).eval()
        self._folder = folder
        logs = folder / "logs"
        self._logs = logs if logs.is_dir() else None

    @property
    def _device(self) -> torch.device:
        return default_device()

    def _need_model(self) -> Built:
        if self._built is None:
            raise PolyfuseError("this predictor has no model yet: call  fit  first, or  polyfuse.load  a saved one")
        return self._built

    def _need_screen(self) -> Screen:
        if self._screen is None:
            raise InputError(
                "screen: this model has no screen; fit with  screen: true  in the recipe (--screen), or call"
                "  fit_screen  with ordinary rows that the model has not learned from"
            )
        return self._screen.to(self._device)

    def _need_calibration(self) -> Calibration:
        self._need_model()
        if self._calibration is None:
            raise InputError(
                "calibration: this model is of a version without one; call  fit_calibration  with rows that the model"
                " has not learned from"
            )
        return self._calibration

    def _calibrated(self, scores: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return scores that mean what they say; rows in which nothing is present keep the prior."""
        if self._calibration is None:
            return scores
        return torch.from_numpy(self._calibration.apply(scores.numpy(), present.any(1).numpy()))

    def _read(self, data: Any) -> Table:
        root = self.recipe.data.media_root
        # Where a model is used, the folder of its training may be gone; then the table's own folder holds.
        gone = root is not None and self._built is not None and not Path(root).is_dir()
        return read_table(data, media_root=None if gone else root)

    def _rows_to_answer(self, data: Any) -> Rows:
        """Read rows to be predicted: none is left out, so that each gets its answer."""
        table = self._read(data)
        self._warn_missing(table)
        lenient: Literal["raise", "absent"] = "raise" if self.recipe.data.on_bad_row == "raise" else "absent"
        return read_rows(table, self.schema, training=False, on_bad_row=lenient)

    def _rows_to_measure(self, data: Any, progress: Progress) -> Rows:
        """Read rows with their answers, and say which are left out."""
        table = self._read(data)
        self._warn_missing(table)
        lenient = self.recipe.data.on_bad_row
        rows = read_rows(table, self.schema, training=False, answers=True, on_bad_row=lenient, progress=progress)
        if rows.skipped:
            warnings.warn(f"not measured: {rows.notes[-1]}", UserWarning, stacklevel=3)
        return rows

    def _check_modalities(self, names: Collection[str]) -> None:
        known = list(self.schema.modalities)
        for name in names:
            if name not in known:
                raise InputError(f"without: there is no modality {name!r}; {nearest(name, known)}")

    def _warn_missing(self, table: Table) -> None:
        missing = [column.name for column in self.schema.columns if column.name not in table.frame.columns]
        if missing:
            warnings.warn(
                f"{table.name} lacks the columns {', '.join(map(repr, missing))}: they are taken as absent",
                UserWarning,
                stacklevel=4,
            )
