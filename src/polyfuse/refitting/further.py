"""A model that begins with another, and what it leaves to the one after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.core.progress import Progress
from polyfuse.data.schema import Schema
from polyfuse.fitting import Fitted, Plan, Start, fit
from polyfuse.fitting.kept import groups_in
from polyfuse.lineage import Kept, Offered, keep
from polyfuse.model import FusionModel, Model
from polyfuse.recipe import Component, Recipe
from polyfuse.refitting.portions import Portions, Some, joined


def fit_further(
    recipe: Recipe,
    schema: Schema,
    model: Model,
    parts: Portions,
    folder: Path | None,
    *,
    whole: bool,
    progress: Progress,
) -> tuple[Fitted, Some]:
    """Fit a model that begins with another one.

    A model that was trained as a whole is trained further. Of one that was put together on Features of encoders at rest
    the encoders that had begun at random are trained further, and what stands on them is fitted anew with the settings
    that were found: that takes seconds, and what is new has never seen the rows that it is measured on.

    Args:
        recipe: of the old model.
        schema: of the old model; it stays.
        model: the old one.
        parts: which rows are learned from, and which decide.
        folder: of the old artifact, where its backbones stand.
        whole: whether the rows that the old model left to measure on are such as it has not learned from.
        progress: shows how far it is.

    Returns:
        What was fitted, and all rows that it was fitted on.
    """
    portions = [parts.replayed, parts.deciding_old, parts.learned, parts.deciding]
    ends = np.cumsum([0, *map(len, portions)])
    aside = np.concatenate([np.arange(ends[1], ends[2]), np.arange(ends[3], ends[4])])
    learned, table = joined(portions)
    start = Start(model, not (whole and isinstance(model, FusionModel)), aside)
    plan = Plan(table, _at_hand(recipe, folder), schema)
    fitted = fit(plan, rows=learned.rows, progress=progress, start=start)
    assert fitted is not None
    training = recipe.training.model_copy(update={"compute": fitted.recipe.training.compute})
    own = fitted.recipe.model_copy(update={"modalities": recipe.modalities, "training": training})
    return replace(fitted, recipe=own), learned


def passed_on(
    recipe: Recipe,
    parts: Portions,
    fitted: Fitted,
    learned: Some,
    new_scores: NDArray[Any],
    old_scores: NDArray[Any],
) -> Kept:
    """Return what a refitted model leaves to the one after it: of all that it learned from, and was measured on.

    Args:
        recipe: says how much is kept.
        parts: of the refit.
        fitted: what came out.
        learned: all rows that it was fitted on.
        new_scores: its scores of the new rows held out, before calibration.
        old_scores: of the old ones.
    """
    tests = [(parts.new, new_scores), *([] if parts.given else [(parts.old, old_scores)])]
    every, _ = joined([learned, *(some for some, _ in tests)])
    places, measured = (
        np.searchsorted(learned.rows.positions, rows.positions) for rows in (fitted.rows, fitted.measured)
    )
    scores = None
    if not fitted.apart:
        assert fitted.scores is not None
        scores = np.concatenate([fitted.scores, *(found for _, found in tests)])
    offered = Offered(
        every.rows,
        every.positions,
        np.setdiff1d(places, measured) if fitted.apart else places,
        np.concatenate([measured, np.arange(len(learned), len(every))]),
        scores,
        every.others,
        groups_in(every.others, recipe.data.group),
    )
    settings = recipe.keep
    return keep(
        offered,
        parts.references,
        rows=settings.rows,
        bytes=int(settings.megabytes * 2**20),
        apart=fitted.apart,
        seed=recipe.training.seed,
    )


def _at_hand(recipe: Recipe, folder: Path | None) -> Recipe:
    """Return a recipe that reads backbones from the artifact, where they stand in it, and that has no time limit."""
    modalities = dict(recipe.modalities or {})
    for i, (name, modality) in enumerate(modalities.items()):
        stored = folder / "encoders" / str(i) / "backbone" if folder is not None else None
        if modality.encoder is not None and stored is not None and stored.is_dir():
            options = {**modality.encoder.options, "checkpoint": str(stored)}
            encoder = Component.model_validate({"name": modality.encoder.name, **options})
            modalities[name] = modality.model_copy(update={"encoder": encoder})
    training = recipe.training.model_copy(update={"time_limit": None})
    return recipe.model_copy(update={"modalities": modalities, "training": training})
