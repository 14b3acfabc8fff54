"""What is wrong with the rows of a table: doubles, leaks, answers that contradict each other or are likely wrong."""

from __future__ import annotations

from polyfuse.quality.checking import check
from polyfuse.quality.doubles import Doubles, Group, Groups
from polyfuse.quality.labels import Disagreement, Disagreements, LabelError, LabelErrors
from polyfuse.quality.leaks import Leak
from polyfuse.quality.report import ColumnInfo, QualityReport

__all__ = [
    "ColumnInfo",
    "Disagreement",
    "Disagreements",
    "Doubles",
    "Group",
    "Groups",
    "LabelError",
    "LabelErrors",
    "Leak",
    "QualityReport",
    "check",
]
