"""Why a model answered as it did, row by row."""

from __future__ import annotations

from polyfuse.explanation.counterfactual import Change, Counterfactual, Counterfactuals
from polyfuse.explanation.explaining import FAST, Effort, explain_model
from polyfuse.explanation.methods import METHODS, Method
from polyfuse.explanation.neighbours import Neighbour
from polyfuse.explanation.parts import AudioPart, CloudPart, ImagePart, Part, TablePart, TextPart
from polyfuse.explanation.report import Explanations, Gain, RowExplanation

__all__ = [
    "FAST",
    "METHODS",
    "AudioPart",
    "Change",
    "CloudPart",
    "Counterfactual",
    "Counterfactuals",
    "Effort",
    "Explanations",
    "Gain",
    "ImagePart",
    "Method",
    "Neighbour",
    "Part",
    "RowExplanation",
    "TablePart",
    "TextPart",
    "explain_model",
]
