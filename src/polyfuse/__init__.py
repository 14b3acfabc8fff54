"""Polyfuse combines models of text, images, audio, point clouds and tables into one trained, measured, saved model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from polyfuse.core.threads import wait_briefly
from polyfuse.core.version import __version__

if TYPE_CHECKING:
    from polyfuse.evaluation.report import Report as Report
    from polyfuse.predictor import Predictor as Predictor
    from polyfuse.predictor import load as load
    from polyfuse.quality import check as check
    from polyfuse.recipe import Recipe as Recipe

# Where each public name lives: imported on first use, so that `import polyfuse` stays instant.
_PUBLIC = {
    "Predictor": "polyfuse.predictor",
    "load": "polyfuse.predictor",
    "check": "polyfuse.quality",
    "Recipe": "polyfuse.recipe",
    "Report": "polyfuse.evaluation.report",
}

wait_briefly()

__all__ = ["Predictor", "Recipe", "Report", "__version__", "check", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'polyfuse' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
