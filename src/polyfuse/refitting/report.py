"""What came of a refit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyfuse.core.files import strict_json, written
from polyfuse.refitting.comparison import Side


@dataclass(frozen=True)
class Refitted(Mapping[str, Any]):
    """The old and the new model side by side. As a mapping it holds JSON values.

    Attributes:
        promoted: whether the new model is better on new rows, and not worse on old ones beyond chance.
        reason: why, in one sentence.
        new: the two on new rows that neither has learned from.
        old: on old rows.
        rows: how many were learned from, by where they come from.
        seconds: that the refit took, without the comparison.
        notes: what a user may want to know.
        predictor: the new model, promoted or not.
        saved: where it was saved; None where it was not.
    """

    promoted: bool
    reason: str
    new: Side
    old: Side
    rows: dict[str, int]
    seconds: float
    notes: tuple[str, ...]
    predictor: Any
    saved: Path | None = None

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "promoted": self.promoted,
            "reason": self.reason,
            "new": self.new.data(),
            "old": self.old.data(),
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "saved": str(self.saved) if self.saved is not None else None,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return a JSON document, and write it to a file if one is named."""
        return written(strict_json(self.data()), path)

    def __getitem__(self, key: str) -> Any:
        return self.data()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data())

    def __len__(self) -> int:
        return len(self.data())

    def __str__(self) -> str:
        arrow = "↑" if self.new.greater_is_better else "↓"
        lines = [f"{'rows':28}{'':>8}{'old':>10}{'new':>10}   better by, 95 % interval"]
        for name, side in (("new, held out", self.new), (f"old, {self.old.about}", self.old)):
            gain = f"{side.gain.value:+.4f}  [{side.gain.low:+.4f}, {side.gain.high:+.4f}]"
            lines.append(
                f"{name[:28]:28}{side.rows:>8,}{side.old:>10.4f}{side.new:>10.4f}   {side.metric} {arrow} {gain}"
            )
            lines += [
                f"  {metric[:26]:26}{'':>8}{old:>10.4f}{new:>10.4f}" for metric, (old, new) in side.others.items()
            ]
        learned = ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        return "\n".join([*lines, "", f"learned from {learned} rows in {self.seconds:.1f} s", *self.notes, self.reason])
