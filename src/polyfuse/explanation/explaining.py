"""From a model and rows to explanations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError, import_extra, nearest
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.rows import Rows
from polyfuse.explanation.counterfactual import counterfactuals
from polyfuse.explanation.faithfulness import faithfulness
from polyfuse.explanation.methods import (
    METHODS,
    TOLERANCE,
    Convergence,
    Floats,
    Method,
    gradient_input,
    integrated_gradients,
    occlusion,
)
from polyfuse.explanation.neighbours import Neighbourhood
from polyfuse.explanation.parts import Part
from polyfuse.explanation.question import BATCH, Question, in_float32, is_whole
from polyfuse.explanation.report import Explanations, RowExplanation
from polyfuse.explanation.subject import Place, Subject
from polyfuse.explanation.subjects import subject_of
from polyfuse.model import Model


@dataclass(frozen=True)
class Effort:
    """How much is spent on a row.

    Attributes:
        steps: of an integral, to begin with.
        most: steps that an integral never exceeds.
        points: of a curve of deletion or insertion.
        orders: random ones that an attribution is compared with.
        donors: training rows whose modalities are tried in the place of the row's own.
        neighbours: training rows that are named.
        compared: training rows among which they are looked for, drawn at random where there are more.
    """

    steps: int = 32
    most: int = 256
    points: int = 17
    orders: int = 4
    donors: int = 32
    neighbours: int = 5
    compared: int = 2000


_GRADIENTS = 8  # versions of a row whose gradients are taken together: each keeps what all layers gave
FAST = Effort(steps=16, most=32, points=9, orders=2, donors=8, compared=300)


@dataclass(frozen=True, eq=False)
class _Found:
    method: Method
    weights: Floats
    baseline: str | None
    convergence: Convergence | None = None


def explain_model(
    model: Model,
    rows: Rows,
    device: torch.device,
    method: Method | None = None,
    *,
    calibration: Calibration | None = None,
    train: Rows | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Explanations:
    """Explain the answers to some rows.

    Each modality is explained by itself, the others as they are: integrated gradients then sum to what the answer owes
    to this modality, over its baseline. A modality that a method cannot act on is explained by occlusion.

    Args:
        model: on the device.
        rows: to be explained.
        device: where the model is.
        method: of attribution; integrated gradients where a gradient says all, else occlusion, when left out.
        calibration: of the scores, where there is one; what is explained is the raw output, before it.
        train: training rows, with answers, for neighbours and for modalities that are swapped.
        effort: how much is spent on a row.
        seed: of all random numbers.
        progress: shows how far it is.

    Raises:
        InputError: the method is unknown or can act on no modality, or the model has several targets.
        MissingExtra: captum is not installed.
    """
    begun = time.monotonic()
    check(model, rows, method)
    spent = effort or Effort()
    target = rows.schema.target
    model.eval()
    explained = []
    with in_float32(model), (progress or Silent()).bar("Explaining", len(rows)) as bar:
        known = _some(train, spent.compared, seed) if train is not None else None
        near = Neighbourhood(model, known, device, calibration) if known is not None else None
        names = near.nearest(rows, spent.neighbours) if near is not None else [[] for _ in range(len(rows))]
        for row in range(len(rows)):
            question = Question(model, rows, row, device, calibration)
            parts = {
                name: explain_part(subject_of(question, name, seed), method, spent, seed)
                for name in model.modalities
                if question.there(name)
            }
            donors = near.others(rows.subset([row]), question.answer, spent.donors) if near is not None else None
            explained.append(
                RowExplanation(
                    row=str(rows.index[row]),
                    answer=question.answer,
                    label=None if question.at is None else target.levels[question.at],
                    score=None if question.at is None else float(question.scores.max()),
                    output=question.output,
                    parts=parts,
                    counterfactuals=counterfactuals(question, donors) if parts else None,
                    neighbours=names[row],
                )
            )
            bar.advance(1)
    used = {part.method for row in explained for part in row.parts.values()}
    if method is not None and used and method not in used:
        raise InputError(
            f"explain: {method} can act on no modality of these rows (it needs"
            f" {'a transformer that tells its attentions' if method == 'rollout' else 'a continuous input'});"
            " choose occlusion, or leave the method out"
        )
    return Explanations(
        task=target.task,
        target=target.name,
        explains="value in the unit of the target" if target.task == "regression" else "logit of the label",
        rows=explained,
        compared=len(near.rows) if near is not None and near.known else 0,
        seconds=time.monotonic() - begun,
    )


def check(model: Model, rows: Rows, method: Method | None) -> None:
    """Check that rows can be explained by a method.

    Raises:
        InputError: the method is unknown, or needs a gradient that says all; or the model has several targets; or there
            is no row.
        MissingExtra: captum is not installed.
    """
    if rows.schema.target.parts:
        raise InputError("explain: the model answers several targets; fit a model of one")
    if method is not None and method not in METHODS:
        raise InputError(f"explain: there is no method {method!r}; {nearest(method, METHODS)}")
    if method in ("integrated_gradients", "gradient_input") and not is_whole(model):
        raise InputError(
            f"explain: {method} needs a gradient of all that answers, and learners such as trees have a part in it;"
            " choose occlusion, or leave the method out"
        )
    import_extra("captum.attr", "report", "an explanation")
    if not len(rows):
        raise InputError("explain: there is no row; give a table with at least one")


def explain_part(subject: Subject, method: Method | None, effort: Effort, seed: int) -> Part:
    """Explain one modality of a row.

    Args:
        subject: the modality.
        method: as for `explain_model`.
        effort: how much is spent on it.
        seed: of the random orders.
    """
    found = _attributed(subject, method, effort)
    weights = subject.summed(found.weights)
    measured = [
        faithfulness(
            partial(subject.value, baseline=baseline),
            weights,
            baseline,
            orders=effort.orders,
            points=effort.points,
            seed=seed,
        )
        for baseline in (subject.baselines if subject.pieces > 1 else ())
    ]
    return subject.part(
        found.weights,
        method=found.method,
        class_specific=found.method != "rollout",
        baseline=found.baseline,
        convergence=found.convergence,
        faithfulness=measured,
    )


def _attributed(subject: Subject, method: Method | None, effort: Effort) -> _Found:
    whole = is_whole(subject.question.model)
    if method == "rollout" and (rolled := subject.rolled()) is not None:
        return _Found("rollout", rolled, None)
    if method in (None, "integrated_gradients") and whole and (found := _integrated(subject, effort)) is not None:
        return found
    if method == "gradient_input" and (place := _first_place(subject)) is not None:
        return _Found("gradient_input", subject.cells(gradient_input(place.function, place.point)), None)
    baseline = subject.baselines[0]
    if not subject.pieces:
        return _Found("occlusion", np.zeros(0), baseline)
    pieces = occlusion(partial(subject.value, baseline=baseline), subject.pieces, batch=BATCH)
    return _Found("occlusion", subject.spread(pieces), baseline)


def _integrated(subject: Subject, effort: Effort) -> _Found | None:
    """Return integrated gradients from the first baseline, or from the second where only they converge better."""
    best: _Found | None = None
    for baseline in subject.baselines:
        place = subject.place(baseline)
        if place is None:
            continue
        found, converged = integrated_gradients(
            place.function, place.point, place.baseline, steps=effort.steps, most=effort.most, batch=_GRADIENTS
        )
        one = _Found("integrated_gradients", subject.cells(found), baseline, converged)
        if best is None or best.convergence is None or converged.relative < best.convergence.relative:
            best = one
        if converged.relative <= TOLERANCE:
            break
    return best


def _first_place(subject: Subject) -> Place | None:
    places = (subject.place(baseline) for baseline in subject.baselines)
    return next((place for place in places if place is not None), None)


def _some(rows: Rows, most: int, seed: int) -> Rows | None:
    """Return at most so many rows, drawn at random; None where there are none."""
    if len(rows) > most:
        return rows.subset(sorted(np.random.default_rng(seed).choice(len(rows), most, replace=False).tolist()))
    return rows if len(rows) else None
