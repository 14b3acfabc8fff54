"""How sure the model is, and whether it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polyfuse.calibration import (
    Calibration,
    CalibrationReport,
    ConformalReport,
    measure_calibration,
    measure_coverage,
)
from polyfuse.core.errors import InputError, MissingExtra
from polyfuse.data.schema import Target
from polyfuse.metrics.metric import Array

LEVELS = (0.8, 0.9, 0.95)


@dataclass(frozen=True, eq=False)
class Certainty:
    """How sure the model is.

    Attributes:
        calibration: of each target that has probabilities.
        coverage: of each target that has sets or intervals.
        missing: what could not be measured, and why.
    """

    calibration: dict[str, CalibrationReport]
    coverage: dict[str, ConformalReport]
    missing: dict[str, str]

    def __str__(self) -> str:
        return "\n\n".join(map(str, [*self.calibration.values(), *self.coverage.values()]))

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "calibration": {name: asdict(one) for name, one in self.calibration.items()},
            "coverage": {name: asdict(one) for name, one in self.coverage.items()},
            "missing": self.missing,
        }


def certainty(
    calibration: Calibration,
    y_true: Array,
    y_score: Array,
    answered: NDArray[np.bool_],
    target: Target,
    groups: Mapping[str, pd.Series],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Certainty:
    """Measure how sure the model is.

    Args:
        calibration: of the model.
        y_true: truth of rows that neither has learned from.
        y_score: scores as they are before calibration.
        answered: (rows,) whether anything was present.
        target: what was asked.
        groups: values of columns whose groups are looked at, too.
        resamples: of the rows.
        seed: of what is random.

    Raises:
        InputError: nothing of it can be measured.
    """
    missing: dict[str, str] = {}
    measured: dict[str, CalibrationReport] = {}
    covered: dict[str, ConformalReport] = {}
    try:
        measured = measure_calibration(calibration, y_true, y_score, answered, resamples=resamples, seed=seed)
    except InputError as error:
        missing["calibration"] = str(error)
    try:
        known = {name: values.tolist() for name, values in groups.items()}
        covered = measure_coverage(
            calibration, y_true, y_score, answered, target, levels=LEVELS, groups=known, seed=seed
        )
    except (InputError, MissingExtra) as error:
        missing["coverage"] = str(error)
    if not measured and not covered:
        raise InputError("; ".join(missing.values()))
    return Certainty(measured, covered, missing)
