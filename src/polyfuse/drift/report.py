"""What has drifted: as a mapping, as JSON, as one HTML page, as a text table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from polyfuse.core.files import strict_json, written
from polyfuse.data.schema import Task
from polyfuse.evaluation.report import number_text
from polyfuse.metrics.bootstrap import Interval

#: Version of the JSON document.
FORMAT = 1
_SHOWN = 12  # shifts in the text; all of them stand in the data

Kind: TypeAlias = Literal["column", "modality", "prediction", "answer"]


@dataclass(frozen=True)
class Bars:
    """How two samples are spread.

    Attributes:
        names: of the bins or levels.
        before: share of the reference in each.
        after: share of the new rows in each.
    """

    names: list[str]
    before: list[float]
    after: list[float]


@dataclass(frozen=True)
class Shift:
    """One thing that was compared.

    Attributes:
        kind: a column of the table, the Features of a modality, what the model answers, or what would have been right.
        name: of the column, the modality or the target.
        what: is compared of it, e.g. "values", "missing", "brightness", "confidence".
        test: "KS", "χ²", "MMD", "classifier", "rise".
        effect: how large the difference is.
        unit: of the effect, e.g. "KS distance", "total variation", "AUC".
        p: of this test alone.
        adjusted: of this test among all of them: at most α by chance in a share α of comparisons, whichever it is.
        found: whether that is at most α.
        note: the difference in words.
        bars: how both samples are spread, where that can be drawn.
    """

    kind: Kind
    name: str
    what: str
    test: str
    effect: float
    unit: str
    p: float
    adjusted: float
    found: bool
    note: str = ""
    bars: Bars | None = None

    @property
    def title(self) -> str:
        """What was compared, as the key of the report."""
        return f"{self.name}: {self.what}"


@dataclass(frozen=True)
class Performance:
    """How good the answers are.

    Attributes:
        target: of which.
        metric: "accuracy", "label_accuracy" of several labels at once, or "mae".
        before: on the reference.
        expected: on the new rows, without looking at their answers; None where it cannot be said.
        measured: on the new rows; None where their answers are not known.
        assumes: under which `expected` holds, or why there is none.
    """

    target: str
    metric: str
    before: Interval
    expected: Interval | None
    measured: Interval | None
    assumes: str


@dataclass(frozen=True, eq=False)
class DriftReport(Mapping[str, float]):
    """Whether new rows are like those that a model was made for.

    A mapping of what was compared ("price: values") to its p-value, corrected for all that was compared.

    Attributes:
        task: of the model.
        target: that it answers.
        rows: new rows that were compared.
        given: new rows in the table.
        reference: rows that they were compared with.
        alpha: the rate of false alarms: of tables in which nothing has drifted, this share is taken for drifted.
        dealings: at random, of the rows to the two samples, behind each p-value.
        seed: of what is random.
        shifts: all that was compared, the rarest by chance first.
        performance: of each target.
        left_out: what was not compared, and why.
        seconds: that it took.
    """

    task: Task
    target: str
    rows: int
    given: int
    reference: int
    alpha: float
    dealings: int
    seed: int
    shifts: list[Shift]
    performance: list[Performance]
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def found(self) -> bool:
        """Whether anything has drifted."""
        return any(shift.found for shift in self.shifts)

    @property
    def drifted(self) -> list[Shift]:
        """What has drifted, the rarest by chance first."""
        return [shift for shift in self.shifts if shift.found]

    def __getitem__(self, name: str) -> float:
        return {shift.title: shift.adjusted for shift in self.shifts}[name]

    def __iter__(self) -> Iterator[str]:
        return iter([shift.title for shift in self.shifts])

    def __len__(self) -> int:
        return len(self.shifts)

    @property
    def verdict(self) -> str:
        """What was found, in a sentence."""
        count, most = len(self.drifted), f"{100 * self.alpha:g} %"
        if not count:
            return f"No drift was found in {len(self.shifts)} comparisons (false alarms: {most})."
        names = list(dict.fromkeys(shift.name for shift in self.drifted))
        told = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return f"Drift: {count} of {len(self.shifts)} comparisons differ ({told})."

    def __str__(self) -> str:
        shown = self.drifted[:_SHOWN] or self.shifts[:3]
        lines = [("", "test", "effect", "", "p, corrected", "")]
        lines += [
            (shift.title, shift.test, number_text(shift.effect), shift.unit, p_text(shift.adjusted), shift.note)
            for shift in shown
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        table = [
            "  ".join(
                [c.rjust(w) if i in (2, 4) else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=False))]
            )
            + (f"  {line[5]}" if line[5] else "")
            for line in lines
        ]
        more = len(self.drifted) - len(shown)
        left = [f"not compared: {name}: {why}" for name, why in self.left_out.items()]
        head = f"{self.rows:,} new rows beside {self.reference:,} of the reference"
        told = [f"… and {more} more"] if more > 0 else []
        good = [performance_text(each) for each in self.performance]
        return "\n".join([self.verdict, head, "", *(line.rstrip() for line in table), *told, "", *good, *left])

    def __repr__(self) -> str:
        return str(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return one HTML page that needs nothing else, written to `path` where one is given."""
        from polyfuse.drift.page import page

        return written(page(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given. Undefined numbers are null."""
        document: dict[str, Any] = {"format": FORMAT, "found": self.found, "verdict": self.verdict, **asdict(self)}
        return written(strict_json(document), path)


def p_text(p: float) -> str:
    """Return a p-value.

    >>> p_text(0.0312), p_text(0.0004)
    ('0.031', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def performance_text(each: Performance) -> str:
    """Return how good the answers to a target are, in a line."""
    parts = [f"before {each.before}"]
    if each.expected is not None:
        parts.append(f"expected now {each.expected}")
    if each.measured is not None:
        parts.append(f"measured now {each.measured}")
    return f"{each.metric} of {each.target}: {'; '.join(parts)}"
