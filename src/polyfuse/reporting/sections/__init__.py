"""The sections of the page: from what was measured to HTML, a file for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyfuse.reporting.sections import (
    accuracy,
    certainty,
    data,
    explanations,
    fairness,
    interventions,
    modalities,
    robustness,
    slices,
)

#: What each section is called on the page.
TITLES: dict[str, str] = {
    "accuracy": "How often it is right",
    "slices": "Where it is worst",
    "calibration": "How sure it is",
    "fairness": "For whom it fails",
    "modalities": "What each modality gives",
    "interventions": "What moves its answers",
    "explanations": "Why it answered so",
    "robustness": "What it withstands",
    "data": "The data",
}

#: From what a section holds, and what the report is about, to HTML.
DRAWN: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "accuracy": accuracy.draw,
    "slices": slices.draw,
    "calibration": certainty.draw,
    "fairness": fairness.draw,
    "modalities": modalities.draw,
    "interventions": interventions.draw,
    "explanations": explanations.draw,
    "robustness": robustness.draw,
    "data": data.draw,
}
