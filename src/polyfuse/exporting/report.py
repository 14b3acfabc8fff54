"""What an export made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from polyfuse.exporting.checking import Difference

To: TypeAlias = Literal["onnx", "torch", "hub"]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its answers are from the model's.

    Attributes:
        folder: where it stands.
        to: "onnx", "torch" or "hub".
        int8: whether weights were quantised.
        files: size of each in bytes.
        seconds: that it took.
        difference: of answers; None of a folder for the hub, which is the artifact itself.
    """

    folder: Path
    to: To
    int8: bool
    files: dict[str, int]
    seconds: float
    difference: Difference | None

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "folder": str(self.folder),
            "to": self.to,
            "int8": self.int8,
            "files": self.files,
            "seconds": self.seconds,
            "difference": self.difference.data() if self.difference is not None else None,
        }

    def __str__(self) -> str:
        size = sum(self.files.values()) / 2**20
        told = (
            f"{self.folder}: {self.to}{', int8 weights' if self.int8 else ''}, {size:.1f} MiB in {self.seconds:.0f} s"
        )
        return told if self.difference is None else f"{told}\n{self.difference}"
