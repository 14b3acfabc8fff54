"""What new rows are compared with, kept at the end of a fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from polyfuse.core import processes
from polyfuse.drift import LEAST, rows_that_fit, see
from polyfuse.fitting.job import Job
from polyfuse.fitting.plan import Fitted
from polyfuse.fitting.sources import cached_sources


def with_reference(job: Job, fitted: Fitted) -> Fitted:
    """Return what was fitted with its reference; of several processes the first has it.

    It is of the rows that the model was measured on, with the scores by models that had not learned from them: Features
    of an encoder that was trained, and answers, differ between rows that were learned from and others.
    """
    measured = fitted.measured
    if fitted.recipe.reference == "none" or not processes.first() or len(measured) < LEAST:
        return fitted
    model, device = fitted.built.model, job.accelerator.device
    random = np.random.default_rng(fitted.recipe.training.seed)
    chosen = np.sort(random.permutation(len(measured))[: rows_that_fit(model, len(measured))])
    rows = measured.subset(chosen.tolist())
    scores = None if fitted.scores is None else fitted.scores[chosen]
    sources = cached_sources(fitted.built, rows, job.cache, device, job.progress)
    seen = see(model, rows, device, scores, sources=sources)
    # What was found learns from all rows in the end; one model, trained as a whole, stays as it was measured.
    return replace(fitted, reference=replace(seen, by_folds=bool(fitted.comparison) and scores is not None))
