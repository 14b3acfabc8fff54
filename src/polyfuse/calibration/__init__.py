"""How sure a model may be: probabilities that mean what they say, and sets and intervals that hold."""

from __future__ import annotations

from polyfuse.calibration.calibration import Calibration, calibrate, places_of
from polyfuse.calibration.keeping import load_calibration, save_calibration
from polyfuse.calibration.scaling import LEAST, Choice, Scaling, choose_scaling, fit_scaling

__all__ = [
    "LEAST",
    "Calibration",
    "Choice",
    "Scaling",
    "calibrate",
    "choose_scaling",
    "fit_scaling",
    "load_calibration",
    "places_of",
    "save_calibration",
]
