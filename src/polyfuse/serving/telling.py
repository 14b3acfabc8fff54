"""Answers as plain values, a row each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd
from torch import Tensor

from polyfuse.data.cells import category
from polyfuse.data.measures import parts_of
from polyfuse.data.schema import Label, Schema, Target
from polyfuse.inference import Answers

if TYPE_CHECKING:
    from polyfuse.explanation.shares import Shares

Answer: TypeAlias = "Label | list[Label]"


@dataclass(frozen=True)
class Said:
    """What is said of one target.

    Attributes:
        answer: a label, several of them, or a number.
        probabilities: of each label, by its name; None of a regression.
        labels: where a level was asked for, those among which the true one is.
        low: where a level was asked for, the lower end of the interval; None where it has none.
        high: the upper end.
    """

    answer: Answer
    probabilities: dict[str, float] | None = None
    labels: list[Label] | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Told:
    """What is told of one row.

    Attributes:
        said: of each target.
        present: modalities that the row had.
        suspicion: how unlike ordinary rows it is, in [0, 1], where the model has a screen.
        suspicious: whether it is flagged.
    """

    said: dict[str, Said]
    present: list[str]
    suspicion: float | None = None
    suspicious: bool | None = None


@dataclass(frozen=True)
class Share:
    """What each modality gives to one number of an answer.

    Attributes:
        target: which of the targets.
        label: whose probability the number is, by its name; None where the number is the answer of a regression.
        nothing: the number when every modality is taken away.
        everything: the number as it is answered.
        gives: of each modality, what it adds; together everything - nothing.
    """

    target: str
    label: str | None
    nothing: float
    everything: float
    gives: dict[str, float]


@dataclass(frozen=True)
class Explained:
    """The answer to one row, and what each modality gives to it.

    Attributes:
        told: the answer.
        shares: of a classification one, that of the label that is answered; of a regression one; of a multilabel task
            one for each label.
    """

    told: Told
    shares: list[Share]


def tell(answers: Answers, present: Tensor, schema: Schema) -> list[Told]:
    """Return what is told of each row.

    Args:
        answers: of some rows.
        present: (rows, modalities) bool.
        schema: of the model.
    """
    said = {target.name: _said(answers, target, several=bool(schema.target.parts)) for target in schema.target.each()}
    names = list(schema.modalities)
    here = [[name for name, there in zip(names, row, strict=True) if there] for row in present.tolist()]
    marks = answers.screened
    suspicion = [None] * len(here) if marks is None else marks["suspicion"].tolist()
    suspicious = [None] * len(here) if marks is None else marks["suspicious"].tolist()
    return [
        Told({name: each[row] for name, each in said.items()}, here[row], suspicion[row], suspicious[row])
        for row in range(len(here))
    ]


def part_of(answers: Answers, start: int, stop: int) -> Answers:
    """Return the answers of some rows that follow each other."""

    def cut(frame: pd.DataFrame | None) -> pd.DataFrame | None:
        return None if frame is None else frame.iloc[start:stop]

    return Answers(
        answers.labels.iloc[start:stop],
        answers.scores.iloc[start:stop],
        answers.nothing_present.iloc[start:stop],
        cut(answers.screened),
        cut(answers.within),
    )


def shares_told(told: Told, shares: Shares, target: Target) -> list[Share]:
    """Return what each modality gives, for each number that is worth it.

    Args:
        told: the answer to the row.
        shares: of its scores.
        target: what was asked.
    """
    places = [part.score for part in parts_of(target)] or [slice(None)]
    found = []
    for part, place in zip(target.each(), places, strict=True):
        numbers = range(len(shares.nothing))[place]
        labels: list[Label | None] = [*part.levels] or [None]
        for at, label in zip(numbers, labels, strict=True):
            if part.task == "classification" and label != told.said[part.name].answer:
                continue
            gives = {name: float(values[at]) for name, values in shares.gives.items()}
            name = None if label is None else category(label)
            found.append(Share(part.name, name, float(shares.nothing[at]), float(shares.everything[at]), gives))
    return found


def _said(answers: Answers, target: Target, *, several: bool) -> list[Said]:
    """Return what is said of one target in each row."""
    labels = answers.labels
    given = list(labels[target.name] if isinstance(labels, pd.DataFrame) else labels)
    columns: Mapping[str, Sequence[object]] = {}
    if answers.within is not None:
        prefix = f"{target.name}:" if several else ""
        named = {"labels": f"{prefix}set", "low": f"{prefix}low", "high": f"{prefix}high"}
        columns = {key: answers.within[name].tolist() for key, name in named.items() if name in answers.within}
    names = [category(level) for level in target.levels]
    proba: list[dict[str, float] | None] = [None] * len(given)
    if names:
        scores = answers.scores[target.name] if several else answers.scores
        proba = [dict(zip(names, row, strict=True)) for row in scores.to_numpy(dtype=float).tolist()]
    within = [{key: _bound(some[row]) for key, some in columns.items()} for row in range(len(given))]
    return [Said(answer, row, **ends) for answer, row, ends in zip(given, proba, within, strict=True)]  # type: ignore[arg-type]


def _bound(value: object) -> object:
    """Return None for an end that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
