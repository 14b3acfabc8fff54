"""What is measured of a model, and the Report that holds it."""

from __future__ import annotations

from polyfuse.evaluation.measuring import evaluate as evaluate
from polyfuse.evaluation.report import Report as Report
