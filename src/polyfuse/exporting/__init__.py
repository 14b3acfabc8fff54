"""Models that leave the house: as an ONNX graph with a runner, as a program of torch, as a folder for the Hub."""

from __future__ import annotations

from polyfuse.exporting.checking import Difference, NotTheSame
from polyfuse.exporting.describing import NotExportable
from polyfuse.exporting.hub import write_hub
from polyfuse.exporting.report import ExportReport, To
from polyfuse.exporting.writing import check_free, export

__all__ = ["Difference", "ExportReport", "NotExportable", "NotTheSame", "To", "check_free", "export", "write_hub"]
