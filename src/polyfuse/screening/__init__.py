"""Screening: which rows look unlike those that a model was made for, be they damaged or made by an adversary."""

from __future__ import annotations

from polyfuse.screening.fitting import check_room, damaged, fit_halves, fit_screen
from polyfuse.screening.keeping import load_screen, save_screen
from polyfuse.screening.screen import Screen, screened, told
from polyfuse.screening.traces import Trace

__all__ = [
    "Screen",
    "Trace",
    "check_room",
    "damaged",
    "fit_halves",
    "fit_screen",
    "load_screen",
    "save_screen",
    "screened",
    "told",
]
