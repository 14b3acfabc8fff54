"""Drift: whether new rows are like those that a model was made for, and what it answers them is as good."""

from __future__ import annotations

from polyfuse.drift.comparing import Comparison
from polyfuse.drift.estimating import performance
from polyfuse.drift.keeping import load_reference, save_reference
from polyfuse.drift.report import Bars, DriftReport, Performance, Shift
from polyfuse.drift.sample import LEAST, MOST, Sample, rows_that_fit, see

__all__ = [
    "LEAST",
    "MOST",
    "Bars",
    "Comparison",
    "DriftReport",
    "Performance",
    "Sample",
    "Shift",
    "load_reference",
    "performance",
    "rows_that_fit",
    "save_reference",
    "see",
]
