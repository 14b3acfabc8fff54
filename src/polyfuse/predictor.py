"""The face: fit, predict, evaluate, save, load."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from polyfuse import artifact
from polyfuse.core import processes
from polyfuse.core.compute import default_device
from polyfuse.core.errors import InputError, PolyfuseError, nearest
from polyfuse.core.progress import Progress
from polyfuse.core.types import Inputs
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Schema
from polyfuse.inference import Answers, answers_of, run, score
from polyfuse.model import FusionModel, Model, Texts
from polyfuse.progress import make_progress
from polyfuse.recipe import Built, Recipe, alone, late, read_recipe, updated
from polyfuse.tuning import TUNINGS

if TYPE_CHECKING:
    from polyfuse.evaluation.report import Report
    from polyfuse.fitting import Fitted, Plan
    from polyfuse.robustness import AttackReport, CertificateReport, DetectionReport, StressReport
    from polyfuse.screening import Screen
    from polyfuse.study import Spaces


class Predictor:
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
        self._logs: Path | None = None

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
    def model(self) -> Model:
        """The FusionModel, or an Ensemble of several."""
        return self._need_model().model

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

        self.recipe, self._schema, self._built, self._logs = fitted.recipe, schema, fitted.built, None
        self._screen = fitted.screen
        weights = weights_trained(fitted.recipe, fitted.built)
        self._metrics = {"training": history(fitted), "weights": weights, "comparison": fitted.comparison}
        if tuning is not None:
            self._metrics["tuning"] = tuning
        self._metrics["validation"] = json.loads(self._report_of(fitted).to_json())
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

        Where several targets are asked for, columns are pairs (target, class), and regressions have none.

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
        progress: bool | Progress | None = None,
    ) -> Answers:
        """Return labels, scores, and which rows had nothing present; see `predict`."""
        from polyfuse.screening import screened, told

        built, used = self._need_model(), self._need_screen() if screen else None
        self._check_modalities(without)
        shown = make_progress(progress)
        rows = self._rows_to_answer(data)
        options: dict[str, Any] = {"without": without, "progress": shown}
        marks = None
        if used is None:
            scores, present = score(built.model, rows, self._device, **options)
        else:
            scores, logits, present = screened(built.model, used, rows, self._device, **options)
            marks = told(used, logits, rows.index)
        nothing = pd.Series((~present.any(1)).numpy(), index=rows.index, name="nothing_present")
        if nothing.any():
            named = nothing.index[nothing].tolist()
            warnings.warn(
                f"rows with no modality ({len(named)}) get the training prior: {named[:8]}", UserWarning, stacklevel=3
            )
        return replace(answers_of(built.model, self.schema.target, scores, rows.index, nothing), screened=marks)

    def fusion_weights(self, data: Any, *, progress: bool | Progress | None = None) -> pd.DataFrame:
        """Return how much each modality (a column each) counted in each row, of a fusion that weighs them, e.g. gated.

        Raises:
            InputError: the fusion has no weights.
        """
        built = self._need_model()
        model = built.model
        weigh = getattr(model.fusion, "weights", None) if isinstance(model, FusionModel) else None
        if weigh is None:
            name = self.recipe.fusion.name
            raise InputError(f"the fusion {name!r} has no weights to read; fit with  fusion='gated'  or  fusion='late'")

        def answer(inputs: Inputs, present: torch.Tensor, texts: Texts) -> torch.Tensor:
            weights: torch.Tensor = weigh(model.encode(inputs, present), present)
            return weights

        names = list(built.model.modalities)
        rows = self._rows_to_answer(data)
        weights, _ = run(model, rows, self._device, answer, torch.zeros(len(names)), progress=make_progress(progress))
        return pd.DataFrame(weights.numpy(), index=rows.index, columns=names)

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

    def attack(
        self,
        data: Any,
        *,
        modalities: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        absent: Collection[str] = (),
        towards: Any = None,
        attack: str = "ensemble",
        options: Mapping[str, Any] | None = None,
        factors: Sequence[float] = (),
        rows: int | None = None,
        seed: int = 0,
        examples: str | Path | None = None,
        checked: bool = True,
        progress: bool | Progress | None = None,
    ) -> AttackReport:
        """Search for inputs near those of a table that the model answers worst, in every subset of the modalities.

        Args:
            data: as for `evaluate`.
            modalities: that the adversary may change; when left out those with a budget, else all that it can. None is
                changed where the list is empty and some may be taken away.
            budgets: by modality, what may change and by how much: "linf:8/255", {"name": "snr", "decibels": 20}.
            absent: modalities that the adversary may take away, of which one stays in each row.
            towards: the label that the adversary wants to be answered, in rows of other labels; anything wrong, when
                left out.
            attack: name of the search; `polyfuse info` lists them.
            options: of the search.
            factors: on all radii, for each of which the worst case is measured too.
            rows: at most so many, drawn at random.
            seed: of all random numbers.
            examples: a folder for rows whose answer was changed, to look at and to listen to; it must not exist yet.
            checked: whether a few rows are attacked in other ways too, to see whether the figures can be believed.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: the folder exists, a modality, a budget or an attack is unknown, or cannot act here.
        """
        from polyfuse.robustness import attack_model, threats_of

        model = self._need_model().model
        threats = threats_of(model, self.schema, modalities, budgets or {}, absent)
        shown = make_progress(progress)
        given = _some(self._rows_to_measure(data, shown), rows, seed)
        folder = Path(examples) if examples is not None else None
        searched: dict[str, Any] = {
            "absent": absent,
            "towards": towards,
            "factors": factors,
            "seed": seed,
            "examples": folder,
        }
        return attack_model(
            model, given, self._device, threats, attack, options, checked=checked, progress=shown, **searched
        )

    def detect(
        self,
        data: Any,
        *,
        modalities: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        attack: str = "ensemble",
        options: Mapping[str, Any] | None = None,
        rows: int | None = None,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> DetectionReport:
        """Measure the screen: on damaged rows, under an attack, and under one by an adversary who knows the screen.

        Args:
            data: as for `evaluate`; rows that neither the model nor its screen has learned from.
            modalities: as for `attack`.
            budgets: as for `attack`.
            attack: name of the search.
            options: of the search.
            rows: at most so many, drawn at random.
            seed: of all random numbers.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: there is no screen, the task has no wrong answers, or the attack is wrong as in `attack`.
        """
        from polyfuse.robustness import detect, threats_of

        model, screen, shown = self._need_model().model, self._need_screen(), make_progress(progress)
        threats = threats_of(model, self.schema, modalities, budgets or {})
        given = _some(self._rows_to_measure(data, shown), rows, seed)
        return detect(model, screen, given, self._device, threats, attack, options, seed=seed, progress=shown)

    def stress(
        self,
        data: Any,
        *,
        modalities: Sequence[str] | None = None,
        severities: Sequence[int] = (1, 2, 3, 4, 5),
        seeds: int = 3,
        references: Mapping[str, Predictor] | None = None,
        rows: int | None = None,
        progress: bool | Progress | None = None,
    ) -> StressReport:
        """Measure the model where modalities are missing, and where values are damaged as the world damages them.

        Args:
            data: as for `evaluate`.
            modalities: whose values are damaged; all when left out.
            severities: of the damage, from 1, barely noticeable, to 5, heavy.
            seeds: of what is random; figures are means over them.
            references: other predictors of the same column, which are measured beside it; see `references`.
            rows: at most so many, drawn at random.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: a modality or a severity is unknown, or the model has several targets.
        """
        from polyfuse.robustness import stress

        model, shown = self._need_model().model, make_progress(progress)
        given = _some(self._rows_to_measure(data, shown), rows, 0)
        others = {name: (other.model, other.schema) for name, other in (references or {}).items()}
        chosen: dict[str, Any] = {"modalities": modalities, "severities": severities, "seeds": seeds}
        return stress(model, given, self._device, **chosen, references=others, progress=shown)

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

    def certify(
        self,
        data: Any,
        noise: Mapping[str, float],
        *,
        samples: int = 1000,
        selection: int = 100,
        alpha: float = 0.001,
        rows: int | None = None,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> CertificateReport:
        """Smooth the model by noise, and find for each row a radius within which nothing can change its answer.

        Train with the same noise (`training={"noise": …}`), or a model that never saw any answers little.

        Args:
            data: as for `evaluate`.
            noise: standard deviation by modality, in the unit of its continuous input: {"image": 0.25}, in pixels from
                0 to 1. A larger one reaches further and answers less well.
            samples: draws that certify an answer; the radius cannot exceed what so many can tell.
            selection: other draws that choose it.
            alpha: probability, for each row, that its certificate is wrong.
            rows: at most so many, drawn at random.
            seed: of all random numbers.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: the task is no classification, a number does not fit, or a modality is unknown or has no
                continuous input.
        """
        from polyfuse.robustness import Smoothing, certify_model

        model, shown = self._need_model().model, make_progress(progress)
        smoothing = Smoothing(noise, samples, selection, alpha).checked(model, self.schema)
        given = _some(self._rows_to_measure(data, shown), rows, seed)
        return certify_model(model, given, self._device, smoothing, seed=seed, progress=shown)

    def save(self, folder: str | Path, *, standalone: bool = True, overwrite: bool = False) -> Path:
        """Write the artifact, whole or not at all, and return its folder.

        Args:
            folder: where to.
            standalone: keep the weights of unchanged backbones inside.
            overwrite: replace an artifact that stands there.

        Raises:
            InputError: the folder is taken.
        """
        built = self._need_model()
        saved = artifact.Artifact(self.recipe, self.schema, built, self._metrics, self._screen)
        artifact.write(Path(folder), saved, standalone=standalone, overwrite=overwrite, logs=self._logs)
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

    def _hold(self, saved: artifact.Artifact, folder: Path) -> None:
        """Take the model of an artifact; what was asked for stays, so that another fit asks for the same."""
        self.recipe, self._schema, self._built, self._metrics = saved.recipe, saved.schema, saved.built, saved.metrics
        self._screen = saved.screen
        saved.built.model.to(self._device).eval()
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

    def _report(self, rows: Rows, *, without: Collection[str] = (), progress: Progress | None = None) -> Report:
        from polyfuse.fitting import cached_sources
        from polyfuse.training.cache import FeatureCache

        built, shown = self._need_model(), make_progress(False if progress is None else progress)
        sources = cached_sources(built, rows, FeatureCache(), self._device, shown, without=without)
        scores, present = score(built.model, rows, self._device, without=without, sources=sources, progress=shown)
        return self._measured(rows, scores.numpy(), present)

    def _report_of(self, fitted: Fitted) -> Report:
        if fitted.scores is None:
            return self._report(fitted.measured)
        return self._measured(fitted.measured, fitted.scores, fitted.measured.present)

    def _measured(self, rows: Rows, scores: NDArray[Any], present: torch.Tensor) -> Report:
        from polyfuse.evaluation import evaluate

        model = self._need_model().model
        head = model.head
        shares = np.asarray(present.float().mean(0)).tolist()
        return evaluate(
            head.truth(head.encode(rows.answers)).numpy(),
            scores,
            head.prior().cpu().numpy(),
            self.schema.target,
            head.metrics,
            present=dict(zip(model.modalities, shares, strict=True)),
        )

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


def _some(rows: Rows, most: int | None, seed: int) -> Rows:
    """Return at most so many rows, drawn at random."""
    if most is None or most >= len(rows):
        return rows
    return rows.subset(sorted(np.random.default_rng(seed).choice(len(rows), most, replace=False).tolist()))


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
