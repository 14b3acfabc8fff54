"""What attacks found, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polyfuse.core.files import strict_json, written
from polyfuse.metrics.bootstrap import Interval

FORMAT = 1


@dataclass(frozen=True)
class Budget:
    """What the adversary may do to a modality.

    Attributes:
        threat: name of the threat model.
        norm: in which changes are measured.
        options: what was set.
        immutable: columns that stay as they are.
        used: largest share of the budget that a row used, measured anew on the values.
    """

    threat: str
    norm: str
    options: dict[str, Any]
    immutable: list[str]
    used: float = 0.0


@dataclass(frozen=True)
class Least:
    """How little turns the answers, where the radius is no limit.

    Attributes:
        median: over the rows that are answered rightly, in radii of the budgets; of several modalities the largest of
            theirs. Infinite where of more than half of the rows no change was found.
        norm: the same in the unit of the input, of one modality with a radius of its own.
        found: share of the rows answered rightly of which one was found.
        curve: factor on all radii to the share of rows that are answered rightly and stand so far.
    """

    median: float
    norm: float | None
    found: float
    curve: dict[float, float]


@dataclass(frozen=True, eq=False)
class AttackReport:
    """How a model answers under attack.

    Attributes:
        task: what was asked.
        target: name of the column that was asked for.
        rows: number of rows.
        metric: that is shown: accuracy, subset_accuracy of several labels at once, or mae of a regression; where the
            adversary wants one label, "kept", the share of rows that are not answered with it.
        attack: name and options of the attack.
        budgets: of each modality under attack.
        clean: the metric on the rows as they are.
        subsets: "image", "audio", "image + audio", …: the metric where these modalities are attacked.
        worst: of each row the worst over all subsets.
        towards: the label that the adversary wants, None where anything wrong will do.
        absent: modalities that the adversary may take away.
        curve: factor on all radii to the metric of the worst case.
        least: of each subset of what is continuous, how little turns the answers: of the attack "minimal".
        checks: what speaks for or against the figures, in words; empty where nothing was checked.
        warnings: what a reader has to know before believing them.
        seconds: that it took.
    """

    task: str
    target: str
    rows: int
    metric: str
    attack: dict[str, Any]
    budgets: dict[str, Budget]
    clean: Interval
    subsets: dict[str, Interval]
    worst: Interval
    towards: str | None = None
    absent: list[str] = field(default_factory=list)
    curve: dict[float, float] = field(default_factory=dict)
    least: dict[str, Least] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [("under attack", self.metric, "95 % interval")]
        lines += [
            (name, f"{at.value:.4f}", f"{at.low:.4f} to {at.high:.4f}")
            for name, at in {"nothing": self.clean, **self.subsets, "worst case": self.worst}.items()
        ]
        table = aligned(lines)
        budgets = [f"{name}: {_budget_text(budget)}" for name, budget in self.budgets.items()]
        budgets += [f"{name}: may be taken away" for name in self.absent]
        curve = [f"radius × {factor:g}: {value:.4f}" for factor, value in self.curve.items()]
        least = [f"least change of {name}: {_least_text(at)}" for name, at in self.least.items()]
        checks = [f"{name}: {said}" for name, said in self.checks.items()]
        warned = [f"warning: {said}" for said in self.warnings]
        told = [*curve, *least, *checks, *warned]
        aim = f" towards {self.towards!r}" if self.towards is not None else ""
        head = f"{self.task} of {self.target!r} on {self.rows} rows, {self.attack['name']}{aim} in {self.seconds:.1f} s"
        return "\n".join([head, *budgets, "", *table, *([""] if told else []), *told])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given."""
        return written(strict_json({"format": FORMAT, **asdict(self)}), path)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]


def _least_text(least: Least) -> str:
    norm = f" ({least.norm:.4g})" if least.norm is not None else ""
    stand = ", ".join(f"{value:.2f} at × {factor:g}" for factor, value in least.curve.items())
    return f"median {least.median:.3g} radii{norm}, found for {least.found:.1%}; right and standing {stand}"


def _budget_text(budget: Budget) -> str:
    options = ", ".join(
        f"{name} {_short(value)}" for name, value in budget.options.items() if value not in ((), [], None)
    )
    fixed = f"; {', '.join(budget.immutable)} stay as they are" if budget.immutable else ""
    return f"{budget.norm}, {options}{fixed}; at most {budget.used:.1%} of it used"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
