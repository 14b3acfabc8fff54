"""How well probabilities mean what they say: their loss, their calibration error, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyfuse.calibration.calibration import Calibration, side_by_side
from polyfuse.calibration.scaling import losses_of
from polyfuse.core.errors import InputError
from polyfuse.metrics.bootstrap import Interval, bootstrap, paired_difference
from polyfuse.metrics.metric import Array, Floats, Metric, OfCounts, defined, mean_of, ratio

BINS = 15
_ROWS_OF_A_BIN = 10
FIGURES = ("log_loss", "brier", "calibration_error", "accuracy")
_LABELS = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "calibration_error": "calibration error, debiased",
    "accuracy": "accuracy",
}


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence: a point of a reliability diagram.

    Attributes:
        low: the least confidence in it.
        high: the greatest.
        confidence: the mean.
        accuracy: share of the answers that are right, with its exact 95 % interval (Clopper & Pearson 1934).
        count: of answers.
    """

    low: float
    high: float
    confidence: float
    accuracy: Interval
    count: int


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """How well probabilities mean what they say, before a scaling and after it.

    Figures are `log_loss` (nats; of several labels the mean over them), `brier` (Brier 1950: the squared distance of
    the probabilities from the truth, summed over classes; of several labels the mean over them), `accuracy` (of several
    labels, each decided by itself), and `calibration_error`: the root mean square distance between confidence and
    accuracy over 15 bins of as many answers each, without the part that chance alone adds, Σ_j n_j/n [(c_j - a_j)² -
    a_j (1 - a_j) / (n_j - 1)] (Kumar, Liang & Ma 2019); 0 where that is below 0. Confidence is the probability of the
    answered label; of several labels, that of each label, and accuracy the share of rows that have it.

    Attributes:
        task: classification or multilabel.
        target: name of the column.
        rows: that were measured; the scaling was not fitted on them.
        method: of the scaling.
        temperature: of the scaling, where it is one.
        fitted_on: rows that the scaling was fitted on.
        why: this method.
        before: figures of the model's scores, with bootstrap intervals.
        after: figures of the scaled scores.
        change: after - before on the same rows.
        turned: share of the answers that the scaling changed.
        diagram_before: bins of the model's scores, the least confident first.
        diagram_after: bins of the scaled scores.
        level: of the intervals.
    """

    task: str
    target: str
    rows: int
    method: str
    temperature: float | None
    fitted_on: int
    why: str
    before: dict[str, Interval]
    after: dict[str, Interval]
    change: dict[str, Interval]
    turned: float
    diagram_before: list[Bin]
    diagram_after: list[Bin]
    level: float = 0.95

    def __str__(self) -> str:
        how = f"temperature {self.temperature:.3f}" if self.temperature is not None else self.method
        head = f"calibration of {self.target!r} on {self.rows} rows: {how}, fitted on {self.fitted_on} other rows"
        lines = [f"{'':<28}{'before':>24}{'after':>24}{'change':>26}"]
        for name in FIGURES:
            each = (self.before[name], self.after[name], self.change[name])
            lines.append(f"{_LABELS[name]:<28}{each[0]!s:>24}{each[1]!s:>24}{each[2]!s:>26}")
        lines += ["", f"{'confidence, after scaling':<28}{'right':>24}{'rows':>8}"]
        lines += [f"{at.confidence:<28.3f}{at.accuracy!s:>24}{at.count:>8}" for at in self.diagram_after]
        return "\n".join([head, "", *lines])

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def measure_calibration(
    calibration: Calibration,
    y_true: Array,
    y_score: Array,
    answered: NDArray[np.bool_],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, CalibrationReport]:
    """Return a report for each target that has probabilities.

    Args:
        calibration: of the model.
        y_true: as metrics of the task want it (rows, …); of several targets side by side.
        y_score: the model's scores as they are before calibration (rows, …), of rows that neither the model nor the
            calibration has learned from.
        answered: (rows,) whether anything was present.
        resamples: number of bootstrap resamples.
        level: of the intervals.
        seed: of the resamples.

    Raises:
        InputError: there are no rows, or no target has probabilities.
    """
    parts = [part for part in calibration.parts if part.task != "regression"]
    if not parts:
        raise InputError("calibration: a regression has no probabilities; measure its intervals instead")
    truth = side_by_side(np.asarray(y_true, dtype=np.float64))
    before, after = (side_by_side(some) for some in (y_score, calibration.apply(y_score, answered)))
    found = {}
    for part in parts:
        known, plain = part.only(truth, before)
        if not len(known):
            raise InputError(f"calibration: no row has an answer for {part.name!r}; give rows with answers")
        scaled = part.scores(after[part.known(truth)])
        scaling = calibration.scalings[part.name]
        metrics = _metrics(part.task)
        settings: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
        changes = {
            metric.name: paired_difference(metric, known, scaled, plain, **settings)
            if scaling.method != "none"
            else Interval(0.0, 0.0, 0.0)
            for metric in metrics
        }
        found[part.name] = CalibrationReport(
            task=part.task,
            target=part.name,
            rows=len(known),
            method=scaling.method,
            temperature=scaling.temperature,
            fitted_on=scaling.rows,
            why=scaling.why,
            before=bootstrap(metrics, known, plain, **settings),
            after=bootstrap(metrics, known, scaled, **settings),
            change=changes,
            turned=float(np.mean(_answers(part.task, plain) != _answers(part.task, scaled))),
            diagram_before=reliability(part.task, known, plain, level=level),
            diagram_after=reliability(part.task, known, scaled, level=level),
            level=level,
        )
    return found


def reliability(task: str, y_true: Array, y_score: Array, *, level: float = 0.95) -> list[Bin]:
    """Return the bins of a reliability diagram: 15 of as many answers each, fewer where a bin had less than 10 rows.

    Answers of the same confidence are in the same bin.

    Args:
        task: classification or multilabel.
        y_true: codes (rows,), or 0/1 (rows, labels).
        y_score: probabilities (rows, labels).
        level: of the intervals.
    """
    from scipy.stats import binomtest

    confidence, right = (some.ravel() for some in _confidence(task, y_true, y_score))
    found = []
    codes = _bins(confidence, len(y_true))
    for code in np.unique(codes):
        some, hits = confidence[codes == code], right[codes == code]
        interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(level)
        accuracy = Interval(float(hits.mean()), float(interval.low), float(interval.high))
        found.append(Bin(float(some.min()), float(some.max()), float(some.mean()), accuracy, len(some)))
    return found


def _answers(task: str, scores: Array) -> Array:
    answers: Array = scores.argmax(axis=1) if task == "classification" else scores >= 0.5
    return answers


def _confidence(task: str, y_true: Array, y_score: Array) -> tuple[Floats, Floats]:
    """Return confidence and whether it was right (rows, answers)."""
    scores = y_score.astype(np.float64)
    if task == "classification":
        return scores.max(axis=1)[:, None], (scores.argmax(axis=1) == y_true).astype(np.float64)[:, None]
    return scores, (y_true > 0).astype(np.float64)


def _bins(confidence: Floats, rows: int) -> NDArray[np.intp]:
    """Return the bin of each of some answers, as many in each as ties allow."""
    count = max(1, min(BINS, rows // _ROWS_OF_A_BIN))
    edges = np.unique(np.quantile(confidence, np.arange(1, count) / count)) if count > 1 else np.empty(0)
    return np.searchsorted(edges, confidence, side="left")


def _metrics(task: str) -> list[Metric]:
    def brier(y_true: Array, y_score: Array) -> Floats:
        if task == "classification":
            true = np.eye(y_score.shape[1])[y_true]
            return np.asarray(np.square(y_score - true).sum(axis=1))
        return np.asarray(np.square(y_score - np.asarray(y_true, dtype=np.float64)).mean(axis=1))

    def right(y_true: Array, y_score: Array) -> Floats:
        same = _answers(task, y_score) == (y_true if task == "classification" else y_true > 0)
        return np.asarray(same.reshape(len(same), -1).mean(axis=1))

    def loss(y_true: Array, y_score: Array) -> Floats:
        return losses_of(task, y_true, y_score)

    rows: dict[str, Callable[[Array, Array], Floats]] = {"log_loss": loss, "brier": brier, "accuracy": right}
    means = {name: _mean(name, task, of_rows) for name, of_rows in rows.items()}
    every = {**means, "calibration_error": _calibration_error(task)}
    return [every[name] for name in FIGURES]


def _mean(name: str, task: str, of_rows: Callable[[Array, Array], Floats]) -> Metric:
    """Return the mean of something over rows."""

    @defined
    def function(y_true: Array, y_score: Array) -> float:
        return float(of_rows(y_true, y_score).mean())

    return Metric(
        name,
        _LABELS[name],
        frozenset({task}),
        function,
        name == "accuracy",
        lambda y_true, y_score: mean_of(of_rows(y_true, y_score)),
    )


def _calibration_error(task: str) -> Metric:
    """Return the debiased calibration error; see `CalibrationReport`.

    A resample of rows has the noise of the rows and its own, of the same size; both are taken off. Bins stay those of
    the rows.
    """

    def resampled(y_true: Array, y_score: Array) -> OfCounts:
        sums = _sums(task, y_true, y_score)
        noise = _squares(*(some.sum(axis=0)[None] for some in sums))[1]

        def of_counts(counts: Floats) -> Floats:
            squares, own = _squares(*(counts @ some for some in sums))
            return np.asarray(np.sqrt((squares - own - noise).clip(min=0)))

        return of_counts

    @defined
    def function(y_true: Array, y_score: Array) -> float:
        squares, noise = _squares(*(some.sum(axis=0)[None] for some in _sums(task, y_true, y_score)))
        return float(np.sqrt(max(float(squares[0] - noise[0]), 0.0)))

    return Metric("calibration_error", _LABELS["calibration_error"], frozenset({task}), function, False, resampled)


def _sums(task: str, y_true: Array, y_score: Array) -> tuple[Floats, Floats, Floats]:
    """Return of each row, by bin, how many answers it has there, their confidence, and how many are right."""
    confidence, right = _confidence(task, y_true, y_score)
    rows, answers = confidence.shape
    place = np.repeat(np.arange(rows) * BINS, answers) + _bins(confidence.ravel(), rows)

    def by_bin(values: Floats) -> Floats:
        return np.bincount(place, values.ravel(), rows * BINS).astype(np.float64).reshape(rows, BINS)

    return by_bin(np.ones_like(confidence)), by_bin(confidence), by_bin(right)


def _squares(count: Floats, confidence: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return Σ_j n_j/n (c_j - a_j)², and what chance adds to it. All arguments: (resamples, bins)."""
    share = count / count.sum(axis=1, keepdims=True)
    accuracy = np.nan_to_num(ratio(right, count))
    apart = np.nan_to_num(ratio(confidence, count)) - accuracy
    noise = accuracy * (1 - accuracy) / (count - 1).clip(min=1)
    return np.asarray((share * apart**2).sum(axis=1)), np.asarray((share * noise).sum(axis=1))
