"""For whom a model fails: metrics by group, their differences, and what narrowing them costs."""

from __future__ import annotations

from polyfuse.fairness.measuring import LEAST as LEAST
from polyfuse.fairness.measuring import measure as measure
from polyfuse.fairness.report import ColumnFairness as ColumnFairness
from polyfuse.fairness.report import FairnessReport as FairnessReport
from polyfuse.fairness.report import Gap as Gap
from polyfuse.fairness.report import GroupFigures as GroupFigures
from polyfuse.fairness.report import ThresholdMoving as ThresholdMoving
