"""Functions of (y_true, y_score), by name; their intervals stand apart, in `bootstrap`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from polyfuse.metrics import classification, multilabel, regression
from polyfuse.metrics.metric import Metric as Metric

_ALL = (*classification.METRICS, *multilabel.METRICS, *regression.METRICS)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
