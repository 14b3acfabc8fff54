"""What is wrong with the rows of a table, as numbers and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polyfuse.core.errors import Problem, describe_rows
from polyfuse.core.files import strict_json, written
from polyfuse.quality.doubles import Doubles, Group, Groups
from polyfuse.quality.labels import Disagreement, Disagreements, LabelError, LabelErrors
from polyfuse.quality.leaks import Leak

FORMAT = 1
_SHOWN = 5  # examples in the text; all of them stand in the data


@dataclass(frozen=True)
class ColumnInfo:
    """What is known of a column.

    Attributes:
        name: as in the table.
        type: as in the schema; of a target its task; "" where it is left out.
        role: "target", "left out", or the modality that it feeds.
        missing: share of the rows in which its cell is missing.
        distinct: different cells, as they are written.
        note: why it is left out.
    """

    name: str
    type: str
    role: str
    missing: float
    distinct: int
    note: str = ""


@dataclass(frozen=True, eq=False)
class QualityReport:
    """What is wrong with the rows of a table.

    All rows are positions: 0 is the first row of data.

    Attributes:
        table: its name.
        target: the column that is asked for, of several their names.
        task: what is asked of it.
        rows: of the table.
        test: name of the other table, None where there is none.
        test_rows: of the other table, 0 where there is none.
        answers: of a classification or multilabel target, label to number of rows, the most frequent first.
        columns: of the table.
        modalities: name to the share of rows that have it.
        problems: cells that cannot be read, answers that are missing, and the like.
        doubles: rows that are there twice, here and in the other table, and those with contradicting answers.
        leaks: columns that give the answer away.
        labels: labels that are likely wrong; None where it stands in `left_out`.
        disagreements: rows whose modalities contradict each other; None where it stands in `left_out`.
        left_out: what was not looked for, to the reason.
        notes: what a reader has to know before believing the figures.
        seed: of all that is drawn.
        seconds: that it took.
    """

    table: str
    target: str
    task: str
    rows: int
    test: str | None
    test_rows: int
    answers: dict[str, int]
    columns: list[ColumnInfo]
    modalities: dict[str, float]
    problems: list[Problem]
    doubles: Doubles
    leaks: list[Leak]
    labels: LabelErrors | None
    disagreements: Disagreements | None
    left_out: dict[str, str]
    notes: list[str]
    seed: int
    seconds: float

    @property
    def serious(self) -> list[str]:
        """What makes a measured figure worth little, in words: unreadable cells, leaks, conflicts.

        Not counted are columns that no model would read, and rows that are equal where that happens by chance.
        """
        found = [f"{len(self.problems)} problems of cells"] if self.problems else []
        used = [leak.column for leak in self.leaks if leak.used]
        found += [f"the answer leaks through {', '.join(map(repr, used))}"] if used else []
        if self.doubles.by_chance < 1:
            across, conflicts = self.doubles.across, self.doubles.conflicts
            if across is not None and across.count:
                found.append(f"{across.test_rows} rows of {self.test} are in {self.table} too")
            found += [f"{conflicts.count} groups of equal rows with different answers"] if conflicts.count else []
        return found

    def data(self) -> dict[str, Any]:
        """Return plain values: dicts, lists, text, numbers."""
        doubles = asdict(self.doubles)
        # A number for each row would be most of the document, and the groups stand there already.
        del doubles["groups"]
        problems = [{"message": p.message, "column": p.column, "rows": list(p.rows)} for p in self.problems]
        told = {name: value for name, value in vars(self).items() if name not in ("doubles", "problems")}
        plain: dict[str, Any] = {name: _plain(value) for name, value in told.items()}
        return {"format": FORMAT, **plain, "problems": problems, "doubles": doubles, "serious": self.serious}

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given."""
        return written(strict_json(self.data()), path)

    def __str__(self) -> str:
        other = f", {self.test}: {self.test_rows:,} rows" if self.test is not None else ""
        lines = [f"{self.task} of {self.target!r} in {self.table}: {self.rows:,} rows{other}, in {self.seconds:.1f} s"]
        if self.answers:
            shown = [f"{label} {count:,}" for label, count in list(self.answers.items())[:8]]
            lines.append(f"answers: {', '.join(shown)}{', …' if len(self.answers) > len(shown) else ''}")
        lines += ["", *_columns(self.columns)]
        present = ", ".join(f"{name} {share:.1%}" for name, share in self.modalities.items())
        lines += [f"present: {present}"] if present else []
        lines += _section("unreadable or missing", [str(problem) for problem in self.problems])
        lines += _doubles(self.doubles, self.test)
        lines += _section("leaks of the target", [_leak(leak) for leak in self.leaks])
        lines += _labels(self.labels) if self.labels else []
        lines += _disagreements(self.disagreements) if self.disagreements else []
        lines += [""] if self.left_out or self.notes else []
        lines += [f"left out: {what}: {reason}" for what, reason in self.left_out.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines += ["", f"serious: {'; '.join(self.serious) or 'nothing'}"]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Return a value of a report as dicts, lists, text and numbers."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _section(title: str, found: Sequence[str], more: int = 0) -> list[str]:
    return ["", f"{title}: {len(found) + more if found or more else 'none'}", *(f"  {line}" for line in found)]


def _columns(columns: Sequence[ColumnInfo]) -> list[str]:
    heads = [("column", "type", "role", "missing", "distinct")]
    cells = [(c.name, c.type, c.role, f"{c.missing:.1%}", f"{c.distinct:,}") for c in columns]
    widths = [max(map(len, column)) for column in zip(*heads, *cells, strict=True)]
    notes = ["", *(column.note for column in columns)]
    return [
        "  ".join(cell.ljust(width) if i < 3 else cell.rjust(width) for i, (cell, width) in enumerate(pairs))
        + (f"  {note}" if note else "")
        for pairs, note in (
            (list(zip(line, widths, strict=True)), note) for line, note in zip([*heads, *cells], notes, strict=True)
        )
    ]


def _doubles(doubles: Doubles, test: str | None) -> list[str]:
    lines = _groups("there twice", doubles.within)
    if doubles.across is not None:
        lines += _groups(f"in {test} too", doubles.across, test)
    lines += _groups("there twice, with different answers", doubles.conflicts)
    if doubles.by_chance >= 1:
        lines.append(f"  about {doubles.by_chance:,.0f} pairs of rows would be equal by chance: this says little")
    return lines


def _groups(title: str, groups: Groups, test: str | None = None) -> list[str]:
    if not groups.count:
        return ["", f"{title}: none"]
    of_test = f", {groups.test_rows:,} of {test}" if test is not None else ""
    head = f"{title}: {groups.exact:,} groups of equal rows, {groups.near:,} of nearly equal ones"
    return ["", f"{head} ({groups.rows:,} rows{of_test})", *(f"  {_group(g, test)}" for g in groups.examples[:_SHOWN])]


def _group(group: Group, test: str | None) -> str:
    there = f", {test}{describe_rows(group.test_rows, 4)}" if test is not None else ""
    answers = f": {', '.join(group.answers)}" if group.answers else ""
    return f"{group.kind}{describe_rows(group.rows, 6)}{there}{answers}"


def _leak(leak: Leak) -> str:
    return f"{leak.column!r} {leak.reason}{'' if leak.used else ' (no model reads it)'}"


def _labels(labels: LabelErrors) -> list[str]:
    head = f"labels likely wrong: {labels.count:,} of {labels.rows:,}"
    told = [f"  {labels.source}, accuracy {labels.accuracy:.3f} (most frequent answer {labels.prior:.3f})"]
    return ["", head, *told, *(f"  {_label(error)}" for error in labels.examples[:_SHOWN])]


def _label(error: LabelError) -> str:
    sure = f" ({error.confidence:.0%})" if error.confidence == error.confidence else ""
    return f"row {error.row}: {error.given!r}, likelier {error.suggested!r}{sure}, quality {error.quality:.3f}"


def _disagreements(found: Disagreements) -> list[str]:
    head = f"modalities that contradict each other: {found.count:,} of {found.rows:,} rows"
    alone = ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in found.accuracy.items())
    return ["", head, f"  accuracy alone: {alone}", *(f"  {_said(one)}" for one in found.examples[:_SHOWN])]


def _said(one: Disagreement) -> str:
    says = ", ".join(f"{name} says {label!r} ({sure:.0%})" for name, (label, sure) in one.says.items())
    return f"row {one.row}: {says}; the table {one.answer!r}; divergence {one.divergence:.2f} bits"
