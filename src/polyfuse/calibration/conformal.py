"""Sets of labels and intervals of numbers that hold the truth as often as they say.

Split conformal prediction (Vovk, Gammerman & Shafer 2005), through MAPIE. Where the rows that are kept and the rows
that are answered are exchangeable, and the model has learned from neither, the truth is inside in a share of the rows
of at least the level, on average over both.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polyfuse.calibration.calibration import Calibration, side_by_side
from polyfuse.core.errors import InputError, import_extra
from polyfuse.data.schema import Target
from polyfuse.metrics.bootstrap import Interval, bootstrap
from polyfuse.metrics.metric import Array, Floats, Metric, mean_of

#: How labels are ranked: by 1 - p (Sadinle et al. 2019), or by the mass of those before (Romano et al. 2020).
SetMethod: TypeAlias = Literal["lac", "aps"]
Kept: TypeAlias = tuple[Array, Array]
LEAST_GROUP = 30
_PURPOSE = "a set or an interval that holds"


@dataclass(frozen=True)
class GroupCoverage:
    """How often the truth is inside, in one group of rows.

    Attributes:
        rows: in the group.
        coverage: share of them whose truth is inside, with its exact 95 % interval.
        size: mean number of labels of a set, or width of an interval.
    """

    rows: int
    coverage: Interval
    size: float


@dataclass(frozen=True)
class Coverage:
    """How often the truth is inside, at one level.

    Attributes:
        level: share of rows in which it is to be.
        coverage: share of rows in which it is, with its exact 95 % interval (Clopper & Pearson 1934).
        expected: that share, for the rows kept as they were drawn, and where 95 % of such draws have it (of the
            distribution Beta(k, n + 1 - k), k = ⌈(n + 1) level⌉; Vovk 2012).
        size: mean number of labels of a set, or width of an interval in the unit of the target.
        empty: share of the rows whose set has no label.
        single: share of the rows whose set has one label.
        groups: by what rows are grouped, and group; a group of fewer rows than the least is left out.
        small: by what rows are grouped, how many groups were left out.
    """

    level: float
    coverage: Interval
    expected: Interval
    size: Interval
    empty: float
    single: float
    groups: dict[str, dict[str, GroupCoverage]]
    small: dict[str, int]


@dataclass(frozen=True, eq=False)
class ConformalReport:
    """Whether sets or intervals hold.

    The level holds over all rows, and need not hold in each group.

    Attributes:
        task: classification or regression.
        target: name of the column.
        method: "lac" or "aps" of sets, "absolute residual" of intervals.
        fitted_on: rows that the threshold comes from.
        rows: that were measured; others.
        levels: what was found at each.
    """

    task: str
    target: str
    method: str
    fitted_on: int
    rows: int
    levels: list[Coverage]

    def __str__(self) -> str:
        what = "labels" if self.task == "classification" else "width"
        head = (
            f"conformal prediction of {self.target!r} ({self.method}) on {self.rows} rows, from {self.fitted_on} others"
        )
        lines = [f"{'level':<28}{'inside':>24}{'to be expected':>24}{what:>26}"]
        for at in self.levels:
            lines.append(f"{at.level:<28g}{at.coverage!s:>24}{at.expected!s:>24}{at.size!s:>26}")
            for grouping, groups in at.groups.items():
                lines += [
                    f"  {f'{grouping} {name}':<26}{found.coverage!s:>24}{f'{found.rows} rows':>24}{found.size:>26.3f}"
                    for name, found in groups.items()
                ]
        return "\n".join([head, "", *lines])

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def check_level(level: float, rows: int, method: str = "lac", labels: int = 0) -> None:
    """Check that a level can be reached with so many rows kept, and that a method can rank so many labels.

    Raises:
        InputError: the level lies not between 0 and 1 or needs more rows, the method is none or needs more labels.
        MissingExtra: MAPIE is not installed; it comes with the extra `report`.
    """
    import_extra("mapie", "report", _PURPOSE)
    if not 0 < level < 1:
        raise InputError(f"level = {level}: the share of rows whose truth is to be inside lies between 0 and 1")
    needed = math.ceil(max(1 / level, 1 / (1 - level)) - 1e-9)
    if rows < needed:
        raise InputError(
            f"level = {level}: it needs {needed} rows with answers, and {rows} are kept; ask for a lower level, or give"
            " more rows to  fit_calibration"
        )
    if method not in ("lac", "aps"):
        raise InputError(f"method = {method!r}: sets are made by lac or aps")
    if method == "aps" and 0 < labels < 3:
        raise InputError(f"method = 'aps': it ranks three labels or more, and there are {labels}; take lac")


def prediction_sets(
    kept: Kept, y_score: Array, *, level: float = 0.9, method: SetMethod = "lac", seed: int = 0
) -> NDArray[np.bool_]:
    """Return which labels are in the set of each row: (rows, labels).

    "lac" makes the smallest sets on average, some of them empty where nothing is likely; "aps" follows how hard a row
    is, with larger sets.

    Args:
        kept: codes (rows,) and probabilities (rows, labels) of rows that the model has not learned from.
        y_score: probabilities (rows, labels) of the rows that are answered.
        level: share of rows whose true label is to be in the set.
        method: how labels are ranked; "aps" is of three labels or more.
        seed: of what breaks ties, with "aps".

    Raises:
        InputError: the level is out of range or needs more rows, or the method is none or needs more labels.
        MissingExtra: MAPIE is not installed; it comes with the extra `report`.
    """
    codes, scores = kept
    labels = scores.shape[1]
    check_level(level, len(codes), method, labels)
    if labels == 1:
        return np.ones((len(y_score), 1), dtype=bool)
    if not len(y_score):
        return np.zeros((0, labels), dtype=bool)
    mapie = import_extra("mapie.classification", "report", _PURPOSE)
    made = mapie.SplitConformalClassifier(
        _Said(labels),
        confidence_level=_in_reach(level, len(codes)),
        conformity_score=method,
        prefit=True,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # That some label is in no row kept is no harm: its probability is still compared.
        warnings.filterwarnings("ignore", message=".*less labels", category=UserWarning)
        made.conformalize(_whole(scores), codes)
    sets: NDArray[np.bool_] = made.predict_set(_whole(y_score))[1][:, :, 0].astype(bool)
    return sets


def prediction_intervals(kept: Kept, y_score: Array, *, level: float = 0.9) -> Floats:
    """Return the interval of each row (rows, 2): the answer ∓ a quantile of the absolute residuals (Lei et al. 2018).

    Args:
        kept: numbers (rows,) and answers (rows,) of rows that the model has not learned from.
        y_score: answers (rows,).
        level: share of rows whose true number is to be inside.

    Raises:
        InputError: the level is out of range, or needs more rows.
        MissingExtra: MAPIE is not installed; it comes with the extra `report`.
    """
    numbers, scores = (np.asarray(some, dtype=np.float64) for some in kept)
    check_level(level, len(numbers))
    if not len(y_score):
        return np.zeros((0, 2))
    mapie = import_extra("mapie.regression", "report", _PURPOSE)
    made = mapie.SplitConformalRegressor(
        _Said(1), confidence_level=_in_reach(level, len(numbers)), conformity_score="absolute", prefit=True
    ).conformalize(scores[:, None], numbers)
    found: Floats = made.predict_interval(np.asarray(y_score, dtype=np.float64)[:, None])[1][:, :, 0]
    return found


def measure_coverage(
    calibration: Calibration,
    y_true: Array,
    y_score: Array,
    answered: NDArray[np.bool_],
    target: Target,
    *,
    levels: Sequence[float] = (0.9,),
    method: SetMethod = "lac",
    groups: Mapping[str, Sequence[Any]] | None = None,
    least: int = LEAST_GROUP,
    seed: int = 0,
) -> dict[str, ConformalReport]:
    """Return for each target with sets or intervals how often they hold, over all rows and in groups of them.

    Rows in which nothing is present get every label, and are not measured.

    Args:
        calibration: of the model, with the rows that thresholds come from.
        y_true: as metrics of the task want it (rows, …), of rows that neither the model nor the calibration has learned
            from; of several targets side by side.
        y_score: the model's scores as they are before calibration (rows, …).
        answered: (rows,) whether anything was present.
        target: what was asked.
        levels: at which it is measured.
        method: how labels are ranked.
        groups: by name, the group of each row; true labels are groups of their own, under "label".
        least: rows that a group needs to be shown.
        seed: of what is random.

    Raises:
        InputError: there are no rows, no target has sets or intervals, groups are of other rows, or as for
            `prediction_sets`.
        MissingExtra: MAPIE is not installed; it comes with the extra `report`.
    """
    for name, given in (groups or {}).items():
        if len(given) != len(y_score):
            raise InputError(
                f"groups: {name!r} has {len(given)} entries for {len(y_score)} rows; give one for each row"
            )
    truth = side_by_side(np.asarray(y_true, dtype=np.float64))
    scores = side_by_side(calibration.apply(y_score, answered))
    found = {}
    for part, one in zip(calibration.parts, target.each(), strict=True):
        if part.task == "multilabel":
            continue
        rows = np.flatnonzero(answered & part.known(truth)).tolist()
        if not rows:
            raise InputError(f"coverage: no row with anything present has an answer for {part.name!r}; give others")
        of_rows = {name: [str(given[row]) for row in rows] for name, given in (groups or {}).items()}
        kept, of_part = calibration.kept(part.name), part.only(truth[rows], scores[rows])
        found[part.name] = _of_one(kept, *of_part, one, levels, method, of_rows, least, seed)
    if not found:
        raise InputError("coverage: sets are of one label out of several, and here each label may be there or not")
    return found


def _of_one(
    kept: Kept,
    y_true: Array,
    y_score: Array,
    target: Target,
    levels: Sequence[float],
    method: SetMethod,
    groups: Mapping[str, Sequence[str]],
    least: int,
    seed: int,
) -> ConformalReport:
    """Measure one target on rows that have an answer for it."""
    sets = target.task == "classification"
    if sets:
        groups = {"label": [str(target.levels[code]) for code in y_true], **groups}
    found = []
    for level in levels:
        if sets:
            chosen = prediction_sets(kept, y_score, level=level, method=method, seed=seed)
            inside, size = chosen[np.arange(len(y_true)), y_true], chosen.sum(axis=1).astype(np.float64)
        else:
            ends = prediction_intervals(kept, y_score, level=level)
            inside, size = (ends[:, 0] <= y_true) & (y_true <= ends[:, 1]), ends[:, 1] - ends[:, 0]
        found.append(_coverage(level, len(kept[0]), inside, size, groups, least, seed, sets=sets))
    return ConformalReport(
        target.task, target.name, method if sets else "absolute residual", len(kept[0]), len(y_true), found
    )


def _in_reach(level: float, rows: int) -> float:
    """Return a level that MAPIE takes: of the last that so many rows reach, it refuses what is rounded beyond."""
    last = (1 + 1e-9) / rows
    return min(max(level, last), 1 - last)


class _Said:
    """A model that has answered already: what it is given are its answers. MAPIE asks for a fitted estimator."""

    def __init__(self, labels: int) -> None:
        self.classes_ = np.arange(labels)

    def fit(self, x: Array, y: Array) -> _Said:
        """Return itself."""
        return self

    def predict(self, x: Array) -> Array:
        """Return the label or the number of each row."""
        said: Array = x[:, 0] if len(self.classes_) == 1 else x.argmax(axis=1)
        return said

    def predict_proba(self, x: Array) -> Array:
        """Return what it was given."""
        return x


def _whole(scores: Array) -> Floats:
    """Return probabilities that sum to 1 in double precision."""
    wide = np.asarray(scores, dtype=np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))


def _coverage(
    level: float,
    kept: int,
    inside: NDArray[np.bool_],
    size: Floats,
    groups: Mapping[str, Sequence[str]],
    least: int,
    seed: int,
    *,
    sets: bool,
) -> Coverage:
    by_group: dict[str, dict[str, GroupCoverage]] = {}
    small = {}
    for name, given in groups.items():
        every, counts = np.unique(np.asarray(given, dtype=object), return_counts=True)
        shown = [group for group, count in zip(every, counts, strict=True) if count >= least]
        masks = {group: np.asarray([one == group for one in given]) for group in shown}
        by_group[name] = {
            str(group): GroupCoverage(int(mask.sum()), _share(inside[mask]), float(size[mask].mean()))
            for group, mask in masks.items()
        }
        small[name] = len(every) - len(shown)
    return Coverage(
        level=level,
        coverage=_share(inside),
        expected=expected_coverage(kept, level),
        size=_mean(size, seed),
        empty=float(np.mean(size == 0)) if sets else 0.0,
        single=float(np.mean(size == 1)) if sets else 0.0,
        groups=by_group,
        small=small,
    )


def expected_coverage(rows: int, level: float) -> Interval:
    """Return the coverage that a threshold from so many rows has, and where 95 % of such thresholds have it."""
    from scipy.stats import beta

    place = math.ceil((rows + 1) * level - 1e-9)
    low, high = beta.ppf([0.025, 0.975], place, rows + 1 - place)
    return Interval(place / (rows + 1), float(low), float(high))


def _share(inside: NDArray[np.bool_]) -> Interval:
    from scipy.stats import binomtest

    found = binomtest(int(inside.sum()), len(inside)).proportion_ci(0.95)
    return Interval(float(inside.mean()), float(found.low), float(found.high))


def _mean(values: Floats, seed: int) -> Interval:
    """Return a mean with its bootstrap interval."""
    metric = Metric(
        "size", "Size", frozenset(), lambda _, some: float(some.mean()), False, lambda _, some: mean_of(some)
    )
    return bootstrap([metric], values, values, seed=seed)["size"]
