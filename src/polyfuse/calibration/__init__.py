"""How sure a model may be: probabilities that mean what they say, and sets and intervals that hold."""

from __future__ import annotations

from polyfuse.calibration.calibration import Calibration, calibrate, places_of, side_by_side
from polyfuse.calibration.conformal import (
    ConformalReport,
    Coverage,
    GroupCoverage,
    SetMethod,
    check_level,
    measure_coverage,
    prediction_intervals,
    prediction_sets,
)
from polyfuse.calibration.keeping import load_calibration, save_calibration
from polyfuse.calibration.measuring import Bin, CalibrationReport, measure_calibration, reliability
from polyfuse.calibration.scaling import LEAST, Choice, Scaling, choose_scaling, fit_scaling

__all__ = [
    "LEAST",
    "Bin",
    "Calibration",
    "CalibrationReport",
    "Choice",
    "ConformalReport",
    "Coverage",
    "GroupCoverage",
    "Scaling",
    "SetMethod",
    "calibrate",
    "check_level",
    "choose_scaling",
    "fit_scaling",
    "load_calibration",
    "measure_calibration",
    "measure_coverage",
    "places_of",
    "prediction_intervals",
    "prediction_sets",
    "reliability",
    "save_calibration",
    "side_by_side",
]
