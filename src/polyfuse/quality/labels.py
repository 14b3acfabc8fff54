"""Labels that are likely wrong, and rows whose modalities contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from polyfuse.core.errors import import_extra
from polyfuse.data.schema import Target
from polyfuse.learners.learner import Array

#: Divergence in bits, of at most 1, from which on two modalities contradict each other: about 80 % against 20 %.
DIVERGENCE = 0.3
#: Divergence from the prior, in bits, below which a modality says nothing: of two equal labels up to about 77 %.
SAYS = 0.05


@dataclass(frozen=True)
class LabelError:
    """A label that is likely wrong.

    Attributes:
        row: position in the table.
        given: what stands there; of a multilabel row all its labels, in words.
        suggested: the likeliest label; of a multilabel row those likelier than not.
        quality: how likely the given label is, in [0, 1]: the label quality score.
        confidence: probability of the suggested label; of a multilabel row nan.
    """

    row: int
    given: str
    suggested: str
    quality: float
    confidence: float


@dataclass(frozen=True)
class LabelErrors:
    """Labels that are likely wrong.

    Attributes:
        rows: that were looked at.
        count: of likely errors.
        accuracy: of the probabilities on these rows (of multilabel rows the share of cells): what they can see.
        prior: accuracy of the most frequent answer.
        source: where the probabilities come from.
        positions: of all likely errors in the table, the likeliest first.
        examples: the likeliest of them.
    """

    rows: int
    count: int
    accuracy: float
    prior: float
    source: str
    positions: list[int]
    examples: list[LabelError]


@dataclass(frozen=True)
class Disagreement:
    """A row whose modalities contradict each other.

    Attributes:
        row: position in the table.
        divergence: of the two modalities that are furthest apart, in bits, in [0, 1].
        says: modality to its likeliest label and the probability of that.
        answer: what stands in the table.
    """

    row: int
    divergence: float
    says: dict[str, tuple[str, float]]
    answer: str


@dataclass(frozen=True)
class Disagreements:
    """Rows whose modalities contradict each other.

    Attributes:
        rows: that have two modalities or more.
        count: of those where two modalities that say something, each being SAYS or more from the prior, have different
            likeliest labels and a divergence of at least DIVERGENCE.
        accuracy: of each modality alone.
        examples: the furthest apart of them.
    """

    rows: int
    count: int
    accuracy: dict[str, float]
    examples: list[Disagreement]


def find_label_errors(
    target: Target, answers: Array, scores: Array, positions: Array, *, source: str, most: int
) -> LabelErrors | str:
    """Find labels that are likely wrong by confident learning (Northcutt et al. 2021), or say why there is no telling.

    How many there are is estimated from the calibrated confident joint; these are the rows with the lowest label
    quality whose likeliest label is another one. That needs probabilities that are clearly better than the prior: by
    two standard errors.

    Args:
        target: a classification, or multilabel; its labels are the columns of the scores.
        answers: codes (rows,), or 0/1 (rows, labels).
        scores: (rows, labels) probabilities by models that have not learned from these rows.
        positions: (rows,) in the table.
        source: of the scores, in words.
        most: examples.
    """
    rows = len(answers)
    if target.task == "multilabel":
        hit = ((scores > 0.5) == answers).mean(1)
        prior = float(np.maximum(answers.mean(0), 1 - answers.mean(0)).mean())
    else:
        hit = (scores.argmax(1) == answers).astype(np.float64)
        prior = float(np.bincount(answers).max() / rows)
    accuracy = float(hit.mean())
    if accuracy < prior + 2 * float(hit.std()) / np.sqrt(rows):
        return (
            f"the probabilities ({source}) are hardly better than the most frequent answer (accuracy {accuracy:.3f},"
            f" {prior:.3f}): they cannot tell a wrong label from a hard one"
        )
    order, quality = _multilabel(answers, scores) if target.task == "multilabel" else _classes(answers, scores)
    examples = [_example(target, answers, scores, quality, row, int(positions[row])) for row in order[:most].tolist()]
    return LabelErrors(rows, len(order), accuracy, prior, source, positions[order].tolist(), examples)


def _classes(answers: Array, scores: Array) -> tuple[Array, Array]:
    """Return the rows that are likely wrong, the likeliest first, and the label quality of all."""
    purpose = "finding label errors"
    count, rank = (import_extra(f"cleanlab.{name}", "report", purpose) for name in ("count", "rank"))
    quality: Array = rank.get_label_quality_scores(answers, scores, method="self_confidence")
    wrong = int(count.num_label_issues(answers, scores, estimation_method="off_diagonal_calibrated"))
    other = np.flatnonzero(scores.argmax(1) != answers)
    order = other[np.argsort(quality[other], kind="stable")][:wrong]
    return order, quality


def _multilabel(answers: Array, scores: Array) -> tuple[Array, Array]:
    purpose = "finding label errors"
    filter = import_extra("cleanlab.multilabel_classification.filter", "report", purpose)
    rank = import_extra("cleanlab.multilabel_classification.rank", "report", purpose)
    labels = [np.flatnonzero(row).tolist() for row in answers]
    quality: Array = rank.get_label_quality_scores(labels, scores)
    wrong = np.asarray(filter.find_label_issues(labels, scores, n_jobs=1))
    chosen = np.flatnonzero(wrong)
    return chosen[np.argsort(quality[chosen], kind="stable")], quality


def _example(target: Target, answers: Array, scores: Array, quality: Array, row: int, position: int) -> LabelError:
    if target.task == "multilabel":
        given, likely = np.flatnonzero(answers[row]), np.flatnonzero(scores[row] > 0.5)
        told = [", ".join(str(target.levels[i]) for i in some) for some in (given, likely)]
        return LabelError(position, told[0], told[1], float(quality[row]), float("nan"))
    best = int(scores[row].argmax())
    labels = str(target.levels[answers[row]]), str(target.levels[best])
    return LabelError(position, *labels, float(quality[row]), float(scores[row, best]))


def find_disagreements(
    target: Target, answers: Array, alone: Mapping[str, Array], positions: Array, *, most: int
) -> Disagreements:
    """Find rows whose modalities contradict each other.

    How far two modalities are apart is the Jensen-Shannon divergence of their distributions over the labels, in bits
    (Lin 1991): 0 where they agree, 1 where each is sure of what the other excludes. A modality that knows nothing stays
    near the prior, and contradicts nobody.

    Args:
        target: a classification; its labels are the columns of the scores.
        answers: codes (rows,).
        alone: modality to its probabilities (rows, labels), nan where it is absent.
        positions: (rows,) in the table.
        most: examples.
    """
    furthest = np.zeros(len(answers))
    prior = np.bincount(answers, minlength=len(target.levels))[None] / max(1, len(answers))
    sure = {name: np.nan_to_num(divergence(scores, prior)) >= SAYS for name, scores in alone.items()}
    for first, second in combinations(alone, 2):
        apart = np.nan_to_num(divergence(alone[first], alone[second]))
        other = np.nan_to_num(alone[first]).argmax(1) != np.nan_to_num(alone[second]).argmax(1)
        furthest = np.maximum(furthest, np.where(other & sure[first] & sure[second], apart, 0.0))
    found = np.flatnonzero(furthest >= DIVERGENCE)
    found = found[np.argsort(-furthest[found], kind="stable")]
    accuracy = {}
    for name, scores in alone.items():
        known = np.isfinite(scores).all(1)
        right = scores[known].argmax(1) == answers[known]
        accuracy[name] = float(right.mean()) if known.any() else float("nan")
    examples = [
        Disagreement(
            int(positions[row]),
            float(furthest[row]),
            {name: _said(scores[row], target.levels) for name, scores in alone.items() if np.isfinite(scores[row, 0])},
            str(target.levels[answers[row]]),
        )
        for row in found[:most].tolist()
    ]
    several = np.sum([np.isfinite(scores[:, 0]) for scores in alone.values()], axis=0) > 1
    return Disagreements(int(several.sum()), len(found), accuracy, examples)


def divergence(first: Array, second: Array) -> Array:
    """Return the Jensen-Shannon divergence of distributions, row by row, in bits: (rows, labels) twice to (rows,).

    >>> divergence(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])).tolist()
    [1.0, 0.0]
    """
    mean = (first + second) / 2
    found: Array = _entropy(mean) - (_entropy(first) + _entropy(second)) / 2
    return found.clip(0.0, 1.0)


def _entropy(shares: Array) -> Array:
    found: Array = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(1)
    return found


def _said(scores: Array, levels: Sequence[Any]) -> tuple[str, float]:
    best = int(scores.argmax())
    return str(levels[best]), float(scores[best])
