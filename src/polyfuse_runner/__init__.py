"""Answers of an exported model: numpy, pillow, soundfile, tokenizers and onnxruntime, no torch."""

from __future__ import annotations

from polyfuse_runner.runner import ExportError, RowError, Runner
from polyfuse_runner.tables import TableError

__all__ = ["ExportError", "RowError", "Runner", "TableError"]
