"""The report: all that is measured of a model on some rows, as JSON and as one page."""

from polyfuse.reporting.document import ModelReport
from polyfuse.reporting.gathering import Subject, gather

__all__ = ["ModelReport", "Subject", "gather"]
