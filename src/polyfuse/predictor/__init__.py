"""The face: fit, predict, evaluate, save, load."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse import artifact
from polyfuse.core import processes
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress
from polyfuse.data.schema import Schema
from polyfuse.ensemble import is_table
from polyfuse.model import FusionModel
from polyfuse.predictor.calibrating import Calibrating
from polyfuse.predictor.explaining import Explaining
from polyfuse.predictor.exporting import Exporting
from polyfuse.predictor.proving import Proving
from polyfuse.predictor.refitting import Refitting
from polyfuse.predictor.reporting import Reporting
from polyfuse.predictor.watching import Watching
from polyfuse.progress import make_progress
from polyfuse.recipe import alone, late, updated
from polyfuse.tuning import TUNINGS

if TYPE_CHECKING:
    from polyfuse.fitting import Fitted, Plan
    from polyfuse.study import Spaces


class Predictor(Calibrating, Proving, Explaining, Reporting, Watching, Exporting, Refitting):
    """A model of one column of a table, or of several.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"x": range(200), "y": [i // 100 for i in range(200)]})
    >>> predictor = Predictor("y", training={"epochs": 5}).fit(table, progress=False)
    >>> predictor.predict({"x": 199}).tolist()
    [1]

    Args:
        target: the column that is asked for, or a list of several; may stand in the recipe instead.
        recipe: a YAML file, a mapping or a Recipe; everything that it leaves out is inferred from the table.
        settings: any of the recipe's keys, e.g. `fusion="attention"`, `tuning={"text": "lora"}`,
            `training={"epochs": 5}`; they go before the recipe.

    Attributes:
        recipe: as it was given; once there is a model, with everything filled in.

    Raises:
        RecipeError: with everything that is wrong in the recipe.
    """

    def plan(self, data: Any) -> Plan:
        """Return what `fit` will do with a table: columns, types, encoders, fusion, tuning, task.

        Raises:
            InputError: the recipe and the table do not go together.
        """
        from polyfuse.fitting import make_plan

        return make_plan(self._given, self._read(data))

    def fit(
        self,
        data: Any,
        *,
        validation: Any = None,
        out: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        progress: bool | Progress | None = None,
    ) -> Predictor:
        """Train on a table, and keep the weights that are best on validation rows.

        Ctrl-C ends the training and keeps the best weights so far. Where torchrun started several processes, each calls
        this, on a file system that all of them see.

        Args:
            data: a path (CSV, TSV, JSON Lines, Parquet, a saved datasets folder), a DataFrame, a datasets.Dataset.
            validation: rows that decide which weights are kept; split off `data` when left out. Where the way to
                combine is found or an ensemble is fitted, `data` alone decides, and these rows are measured on.
            out: where to save the artifact. Checkpoints and curves stand in `<out>.training` until it is done.
            resume: go on from the checkpoint there, if there is one.
            overwrite: replace an artifact at `out`, or an unfinished run beside it.
            progress: whether bars are shown; where someone is looking, when left out.

        Raises:
            DataError: with every problem found in the table.
            InputError: something else in the call is wrong.
        """
        from polyfuse.fitting import fit, make_plan

        if out is None and processes.started() > 1:
            raise InputError(
                f"{processes.started()} processes fit one model: give  out,  where each finds it in the end"
            )
        folder = Path(out).absolute() if out is not None else None
        work = _begin(folder, resume=resume, overwrite=overwrite) if folder is not None else None
        begun = time.monotonic()  # reading a large table takes its part of a time limit
        plan = make_plan(self._given, self._read(data))
        held_out = self._read(validation) if validation is not None else None
        shown = make_progress(progress if processes.first() else False)
        fitted = fit(plan, validation=held_out, work=work, resume=resume, progress=shown, begun=begun)
        with processes.alone():
            if processes.first():
                assert fitted is not None
                self._take(fitted, plan.schema, folder, work, overwrite=overwrite)
        processes.wait()
        if folder is not None and not processes.first():
            self._hold(artifact.read(folder), folder)
        return self

    def tune(
        self,
        data: Any,
        *,
        trials: int = 20,
        time_limit: str | float | None = None,
        out: str | Path | None = None,
        study: str | Path | None = None,
        space: Spaces | None = None,
        overwrite: bool = False,
        progress: bool | Progress | None = None,
    ) -> Predictor:
        """Try many recipes on a table, and fit the best one.

        The search goes over fusions, their options, the head's, and how the model is trained; with the preset "best"
        over tunings too. What was set (in `settings`, or with --set) stays; what stands in a recipe file is where the
        search begins. All trials learn from the same rows, and are measured on the same others. Ctrl-C ends the search
        and fits the best recipe so far. `metrics["tuning"]` tells of every trial.

        Args:
            data: as for `fit`.
            trials: how many there are to be in the study, those of earlier calls included.
            time_limit: seconds, or "90s", "10m", "1h", after which all is done, the last fit included.
            out: where to save the artifact.
            study: an SQLite file that Optuna's own tools can open, to go on from; `<out>.study.db` when left out.
            space: where to look, by key of the recipe: a pair of numbers, a list, or a text such as "1e-4..1e-2" or
                "concat,gated", e.g. `{"fusion": ["concat", "gated"], "training.learning_rate": (1e-4, 1e-2)}`.
            overwrite: replace an artifact at `out`; a study is always gone on with.
            progress: whether bars are shown; where someone is looking, when left out.

        Raises:
            DataError: with every problem found in the table.
            InputError: something else in the call is wrong, or the study is of another table, recipe or space.
            PolyfuseError: no trial came to an end.
            MissingExtra: Optuna is not installed; it comes with the extra `tune`.
        """
        from polyfuse.fitting import make_plan
        from polyfuse.study import set_keys, tune

        folder = Path(out).absolute() if out is not None else None
        if folder is not None:
            artifact.check_free(folder, overwrite=overwrite)
            study = study or folder.with_name(f"{folder.name}.study.db")
        work = folder.with_name(f"{folder.name}.tuning") if folder is not None else None
        begun = time.monotonic()
        plan = make_plan(self._given, self._read(data))
        tuned = tune(
            plan,
            trials=trials,
            time_limit=time_limit,
            file=Path(study) if study is not None else None,
            space=space,
            fixed=set_keys(self._set),
            work=work,
            progress=make_progress(progress),
            begun=begun,
        )
        self._take(tuned.fitted, plan.schema, folder, work, overwrite=overwrite, tuning=tuned.about)
        return self

    def _take(
        self,
        fitted: Fitted,
        schema: Schema,
        folder: Path | None,
        work: Path | None,
        *,
        overwrite: bool,
        tuning: dict[str, Any] | None = None,
    ) -> None:
        """Take what was fitted, measure it, and save it."""
        from polyfuse.fitting import history, weights_trained
        from polyfuse.lineage import Lineage

        self.recipe, self._schema, self._built, self._logs = fitted.recipe, schema, fitted.built, None
        self._screen, self._reference, self._kept = fitted.screen, fitted.reference, fitted.kept
        self._lineage = Lineage.begun(fitted.kept.references, len(fitted.rows)) if fitted.kept is not None else None
        weights = weights_trained(fitted.recipe, fitted.built)
        self._metrics = {"training": history(fitted), "weights": weights, "comparison": fitted.comparison}
        if tuning is not None:
            self._metrics["tuning"] = tuning
        self._metrics["validation"] = json.loads(self._calibrated_report(fitted).to_json())
        self._metrics["calibration"] = self._need_calibration().data()
        if folder is not None and work is not None:
            self._logs = work / "logs"
            self.save(folder, overwrite=overwrite)
            shutil.rmtree(work, ignore_errors=True)
            self._logs = folder / "logs"

    def fit_screen(
        self, data: Any, *, rate: float = 0.05, neighbours: int = 10, progress: bool | Progress | None = None
    ) -> Predictor:
        """Fit a screen for the model as it is, so that `predict(…, screen=True)` tells of suspicious rows.

        Args:
            data: ordinary rows with their answers, as for `evaluate`; such as the model has not learned from, or more
                rows than asked for are flagged later. A third of them decides the threshold.
            rate: share of ordinary rows that may be flagged.
            neighbours: which nearest neighbour a row's distance is taken to.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: there are too few rows for the rate, or the model has several targets.
        """
        from polyfuse.screening import fit_halves

        model, shown = self._need_model().model, make_progress(progress)
        recipe = updated(self.recipe, {"screen": {"rate": rate, "neighbours": neighbours}})
        seed, rows = recipe.training.seed, self._rows_to_measure(data, shown)
        self._screen = fit_halves(
            model, rows, self._device, rate=rate, neighbours=neighbours, seed=seed, progress=shown
        )
        self.recipe = recipe
        return self

    def references(self, data: Any, *, progress: bool | Progress | None = None) -> dict[str, Predictor]:
        """Fit what robustness is compared with: late fusion of the same encoders, and each modality's own model.

        Args:
            data: the training table.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: the model has a single modality.
        """
        names = list(self.schema.modalities)
        if len(names) == 1:
            raise InputError("the model has a single modality: late fusion would be the same model")
        recipes = {"late fusion": late(self.recipe)} | {f"{name} alone": alone(self.recipe, name) for name in names}
        return {name: Predictor(recipe=recipe).fit(data, progress=progress) for name, recipe in recipes.items()}

    def baselines(self, data: Any, *, progress: bool | Progress | None = None) -> dict[str, Predictor]:
        """Fit what a report stands beside: `references`, and boosted trees on the columns of the table alone.

        Args:
            data: the training table.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
        """
        tables = [name for name in self.schema.modalities if is_table(self.model.encoder(name))]
        found = self.references(data, progress=progress) if len(self.schema.modalities) > 1 else {}
        for name in tables:
            recipe = updated(alone(self.recipe, name), {"fusion": {"name": "auto", "candidates": ["boosting"]}})
            found[f"boosting on {name}"] = Predictor(recipe=recipe).fit(data, progress=progress)
        return found

    def save(self, folder: str | Path, *, standalone: bool = True, overwrite: bool = False) -> Path:
        """Write the artifact, whole or not at all, and return its folder.

        Args:
            folder: where to.
            standalone: keep the weights of unchanged backbones inside.
            overwrite: replace an artifact that stands there.

        Raises:
            InputError: the folder is taken.
        """
        from polyfuse.lineage import load_lineage

        built = self._need_model()
        kept = self._screen, self._calibration, self._reference, self._kept, self._lineage
        saved = artifact.Artifact(self.recipe, self.schema, built, self._metrics, *kept)
        artifact.write(Path(folder), saved, standalone=standalone, overwrite=overwrite, logs=self._logs)
        self._folder, self._lineage = Path(folder), load_lineage(Path(folder))
        return Path(folder)

    def merge(self) -> Predictor:
        """Fold what tunings such as `lora` added into the encoders' own weights: the same answers, in less time.

        What was folded cannot be tuned further, and is saved as a plain transformers model.

        Raises:
            InputError: a tuning cannot be folded, or the model is an ensemble.
        """
        built = self._need_model()
        if not isinstance(built.model, FusionModel):
            raise InputError("merge folds the encoders of one model; an ensemble keeps each member's apart")
        tunings, chosen = dict(built.tunings), dict(self.recipe.as_data()["tuning"])
        for name, tuning in built.tunings.items():
            encoder = built.model.encoder(name)
            if encoder.backbone is None or tuning.frozen:
                continue
            if not tuning.merge(encoder):
                raise InputError(f"the tuning {chosen[name]!r} of {name!r} adds what cannot be folded into the encoder")
            # As it is now: a model of its own, whose weights stand in the artifact.
            tunings[name], chosen[name] = TUNINGS.build("full", {}), "full"
        self.recipe = updated(self.recipe, {"tuning": chosen})
        self._built = replace(built, tunings=tunings, cached={})
        return self


def load(folder: str | Path) -> Predictor:
    """Read a saved predictor. Nothing that stands in the folder is run, and no network is needed.

    Raises:
        ArtifactError: the folder is missing, damaged, or of a newer format.
    """
    saved = artifact.read(Path(folder))
    predictor = Predictor(recipe=saved.recipe)
    predictor._hold(saved, Path(folder))
    return predictor


def _begin(folder: Path, *, resume: bool, overwrite: bool) -> Path:
    """Check that an artifact may be written, and return the folder of the run beside it.

    Raises:
        InputError: the place is taken, or an unfinished run is there and nothing was said of it.
    """
    from polyfuse.training.checkpoints import FILE

    work = folder.with_name(f"{folder.name}.training")
    if not processes.first():
        return work
    artifact.check_free(folder, overwrite=overwrite)
    if any(work.rglob(FILE)) and not resume:
        if not overwrite:
            raise InputError(
                f"an unfinished run is in {work}: go on with resume (--resume), or begin anew with overwrite"
                " (--overwrite)"
            )
        shutil.rmtree(work)
    return work
