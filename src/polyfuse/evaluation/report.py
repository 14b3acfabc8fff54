"""Everything that was measured on some rows: as a mapping, as JSON, as one HTML page, as a text table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.files import strict_json, written
from polyfuse.data.schema import Label, Task
from polyfuse.metrics.bootstrap import Interval, known
from polyfuse.metrics.metric import Metric
from polyfuse.metrics.several import RELATIVE_LOSS, relative_loss

#: Version of the JSON document.
FORMAT = 1


@dataclass(frozen=True)
class Confusion:
    """How often each label was answered for each true one.

    Attributes:
        labels: the labels shown, in the target's order.
        counts: a row for each true label, a column for each answer; where labels are lumped, one more of each.
        lumped: number of labels, the rarest ones, that the last row and column of `counts` stand for.
    """

    labels: list[Label]
    counts: list[list[int]]
    lumped: int = 0

    @property
    def names(self) -> list[str]:
        """What each row and column of `counts` is called."""
        return [str(label) for label in self.labels] + ([f"{self.lumped} others"] if self.lumped else [])


@dataclass(frozen=True, eq=False)
class Report(Mapping[str, float]):
    """Metrics of a model on some rows: a mapping of the metric's name to its value, nan where it is undefined.

    Of several targets, `relative_loss` is one figure for all, `<target>:<metric>` one of a target over the rows that
    have it; `of(target)` is the report on that target.

    Attributes:
        task: what was asked.
        target: name of the column that was asked for; of several, their names.
        rows: number of rows.
        intervals: each metric with its interval, by bootstrap over the rows.
        baseline: the same metrics of the training prior, the same answer for every row.
        level: share of the resamples that an interval holds.
        resamples: number of resamples behind the intervals.
        present: share of the rows in which each modality is present.
        confusion: of a classification.
        points: of a regression, pairs (true, predicted) of at most 500 of the rows.
        parts: of several targets, the report on each.
    """

    task: Task
    target: str
    rows: int
    intervals: dict[str, Interval]
    baseline: dict[str, float]
    level: float = 0.95
    resamples: int = 1000
    present: dict[str, float] = field(default_factory=dict)
    confusion: Confusion | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    parts: list[Report] = field(default_factory=list)

    def __getitem__(self, name: str) -> float:
        return self.intervals[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.intervals)

    def __len__(self) -> int:
        return len(self.intervals)

    def of(self, target: str) -> Report:
        """Return the report on one target.

        Raises:
            InputError: it was not asked for.
        """
        reports = {report.target: report for report in self.parts or [self]}
        if target not in reports:
            raise InputError(f"report: {target!r} is not among the targets; {nearest(target, reports)}")
        return reports[target]

    @property
    def own(self) -> dict[str, Interval]:
        """The metrics that are not those of one of several targets."""
        return {name: at for name, at in self.intervals.items() if not self.parts or name == RELATIVE_LOSS}

    @property
    def title(self) -> str:
        """What was measured."""
        return ", ".join(repr(part.target) for part in self.parts) or f"{self.task} of {self.target!r}"

    def __str__(self) -> str:
        percent = f"{100 * self.level:g} % interval"
        lines = [("metric", "", "value", percent, "prior")]
        for name, at in self.own.items():
            arrow = "↑" if metric_called(name).greater_is_better else "↓"
            lines.append(
                (name, arrow, number_text(at.value), interval_text(at), number_text(self.baseline.get(name, math.nan)))
            )
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        table = "\n".join(
            "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(pairs))
            for pairs in (list(zip(line, widths, strict=True)) for line in lines)
        )
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.present.items())
        whole = f"{self.title} on {self.rows} rows{f' (present: {shares})' if shares else ''}\n{table}"
        return "\n\n".join([whole, *map(str, self.parts)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from polyfuse.evaluation.page import fragment

        return fragment(self)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return one HTML page that needs nothing else, written to `path` where one is given."""
        from polyfuse.evaluation.page import page

        return written(page(self), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given. Undefined numbers are null."""
        return written(strict_json(self._data()), path)

    def _data(self) -> dict[str, Any]:
        document = {
            "format": FORMAT,
            "task": self.task,
            "target": self.target,
            "rows": self.rows,
            "level": self.level,
            "resamples": self.resamples,
            "metrics": {name: vars(at) for name, at in self.intervals.items()},
            "baseline": self.baseline,
            "present": self.present,
            "confusion": vars(self.confusion) if self.confusion else None,
            "points": self.points,
        }
        return {**document, "parts": [part._data() for part in self.parts]} if self.parts else document

    @classmethod
    def from_json(cls, source: str | Path) -> Report:
        """Return the report that `to_json` wrote, from its text or from the Path of its file.

        Raises:
            InputError: it is not such a document, or one of a newer format.
        """
        try:
            document = json.loads(source.read_text(encoding="utf-8") if isinstance(source, Path) else source)
            form = document["format"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise _not_a_report(source, error) from error
        if form != FORMAT:
            raise InputError(f"report: format {form!r} cannot be read, only {FORMAT}; use the version that wrote it")
        try:
            return cls._of(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _not_a_report(source, error) from error

    @classmethod
    def _of(cls, document: Mapping[str, Any]) -> Report:
        confusion = document["confusion"]
        return cls(
            task=document["task"],
            target=document["target"],
            rows=int(document["rows"]),
            intervals={
                name: Interval(*(_float(at[key]) for key in ("value", "low", "high")))
                for name, at in document["metrics"].items()
            },
            baseline={name: _float(value) for name, value in document["baseline"].items()},
            level=float(document["level"]),
            resamples=int(document["resamples"]),
            present={name: _float(share) for name, share in document["present"].items()},
            confusion=Confusion(**confusion) if confusion is not None else None,
            points=[(_float(true), _float(predicted)) for true, predicted in document["points"]],
            parts=[cls._of(part) for part in document.get("parts", [])],
        )


def metric_called(name: str) -> Metric:
    """Return a metric that a report shows, by name."""
    return relative_loss([]) if name == RELATIVE_LOSS else known(name)


def _not_a_report(source: str | Path, error: Exception) -> InputError:
    name = str(source) if isinstance(source, Path) else "the text"
    return InputError(f"report: {name} is not a report ({type(error).__name__}: {error}); give what to_json wrote")


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def number_text(value: float) -> str:
    """Return a number with four digits, or a dash where there is none.

    >>> number_text(0.91234), number_text(12345.6), number_text(math.nan)
    ('0.9123', '1.235e+04', '–')
    """
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def in_prose(label: str) -> str:
    """Return a label as it stands inside a sentence: small, where it is no abbreviation.

    >>> in_prose("Log loss"), in_prose("ROC AUC"), in_prose("F1, mean over classes")
    ('log loss', 'ROC AUC', 'F1, mean over classes')
    """
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def interval_text(at: Interval) -> str:
    """Return the bounds of an interval, or a dash where there are none."""
    return "–" if math.isnan(at.low) else f"{number_text(at.low)} to {number_text(at.high)}"
