"""Y: an answer from the fused Features, one head for each task."""

from __future__ import annotations

from polyfuse.core.contract import Head
from polyfuse.core.registry import Registry

HEADS: Registry[Head] = Registry(
    "heads",
    {
        "classification": "polyfuse.heads.classification:ClassificationHead",
        "multilabel": "polyfuse.heads.multilabel:MultilabelHead",
        "regression": "polyfuse.heads.regression:RegressionHead",
        "several": "polyfuse.heads.several:SeveralHead",
    },
)
