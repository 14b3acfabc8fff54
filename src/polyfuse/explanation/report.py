"""Why a model answered as it did, row by row: all that is known of it, as values that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyfuse.core.files import strict_json, written
from polyfuse.explanation.counterfactual import Counterfactuals
from polyfuse.explanation.neighbours import Neighbour
from polyfuse.explanation.parts import Part, rounded, short
from polyfuse.metrics.bootstrap import Interval, percentile_interval

FORMAT = 1
_RESAMPLES = 1000
_SHOWN = 3  # places of a part, and neighbours, in the text


@dataclass(frozen=True, eq=False)
class RowExplanation:
    """Why one row got its answer.

    Attributes:
        row: its label in the table.
        answer: of the model.
        label: whose logit is explained: the answer, of several labels the most probable one; None of a regression.
        score: probability of the answer, of the most probable of several labels; None of a regression.
        output: the number that is explained.
        parts: by modality that the row has, in the order of the schema.
        counterfactuals: what would change the answer; None where it was not looked for.
        neighbours: nearest training rows, the nearest first; empty where no training rows were given.
    """

    row: str
    answer: Any
    label: Any
    score: float | None
    output: float
    parts: dict[str, Part]
    counterfactuals: Counterfactuals | None
    neighbours: list[Neighbour]

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "row": self.row,
            "answer": rounded(self.answer),
            "label": self.label,
            "score": rounded(self.score),
            "output": rounded(self.output),
            "parts": {name: part.data() for name, part in self.parts.items()},
            "counterfactuals": None if self.counterfactuals is None else self.counterfactuals.data(),
            "neighbours": [rounded(dict(vars(one))) for one in self.neighbours],
        }


@dataclass(frozen=True)
class Gain:
    """How much better than chance the attributions of a modality are over one baseline, the mean over rows.

    Attributes:
        deletion: mean gain in area, in the unit of the output, with the 95 % interval of a bootstrap over rows;
            nan where there is but one.
        insertion: the same.
        better: share of the rows with a gain above 0 in both.
        rows: their number.
    """

    deletion: Interval
    insertion: Interval
    better: float
    rows: int


@dataclass(frozen=True, eq=False)
class Explanations:
    """Why a model answered as it did.

    Attributes:
        task: what was asked.
        target: name of the column that was asked for.
        explains: what the output is: "logit of the label", "value in the unit of the target".
        rows: explained ones.
        compared: number of training rows among which neighbours were looked for; 0 where none were given.
        seconds: that it took.
    """

    task: str
    target: str
    explains: str
    rows: list[RowExplanation]
    compared: int
    seconds: float

    @property
    def gains(self) -> dict[str, dict[str, Gain]]:
        """By modality and baseline, whether the attributions are faithful."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for row in self.rows:
            for name, part in row.parts.items():
                for one in part.faithfulness:
                    pairs = found.setdefault(name, {}).setdefault(one.baseline, [])
                    pairs.append((one.deletion.gain, one.insertion.gain))
        return {name: {key: _gain(pairs) for key, pairs in some.items()} for name, some in found.items()}

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        gains = {name: {key: rounded(asdict(gain)) for key, gain in some.items()} for name, some in self.gains.items()}
        return {
            "format": FORMAT,
            "task": self.task,
            "target": self.target,
            "explains": self.explains,
            "compared": self.compared,
            "seconds": rounded(self.seconds),
            "gains": gains,
            "rows": [row.data() for row in self.rows],
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given."""
        return written(strict_json(self.data()), path)

    def save(self, folder: str | Path) -> Path:
        """Write a new folder: `explanations.json`, and for each row pictures of its images and recordings, and words.

        Raises:
            InputError: the folder exists.
        """
        from polyfuse.explanation.saving import write

        return write(self, Path(folder))

    def __str__(self) -> str:
        head = f"{self.task} of {self.target!r}, {len(self.rows)} rows, {self.explains}, in {self.seconds:.0f} s"
        lines = [head]
        for row in self.rows:
            lines += ["", *_row_lines(row)]
        lines += ["", "better than a random order, in area under deletion and insertion"] if self.gains else []
        for name, some in self.gains.items():
            lines += [
                f"  {name + ' over ' + key:<36}{_interval_text(gain.deletion)}{_interval_text(gain.insertion)}"
                f"  in {gain.better:.0%} of {gain.rows} rows"
                for key, gain in some.items()
            ]
        return "\n".join(lines)


def _gain(pairs: Sequence[tuple[float, float]]) -> Gain:
    values = np.array(pairs)
    means = values[np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))].mean(1)
    # One row says nothing of others.
    drawn = [[means[:, i]] if len(values) > 1 else [] for i in range(2)]
    deletion, insertion = (percentile_interval(float(values[:, i].mean()), drawn[i], 0.95) for i in range(2))
    return Gain(deletion, insertion, float((values > 0).all(1).mean()), len(values))


def _interval_text(at: Interval) -> str:
    between = f" ({at.low:+.4f} to {at.high:+.4f})" if at.low == at.low else ""
    return f"{at.value:>+10.4f}{between}"


def _row_lines(row: RowExplanation) -> list[str]:
    sure = f" ({row.score:.3f})" if row.score is not None else ""
    lines = [f"row {row.row}: {short(row.answer)}{sure}, output {row.output:.4g}"]
    for name, part in row.parts.items():
        over = f" over {part.baseline}" if part.baseline else ""
        about = "" if part.class_specific else ", not class-specific"
        error = f", incomplete by {part.convergence.relative:.1%}" if part.convergence else ""
        lines.append(f"  {name}: {part.method}{over}{about}{error}")
        lines += [f"    {place:<36}{weight:>+10.4f}" for place, weight in part.ranked()[:_SHOWN]]
    if row.counterfactuals is not None:
        found = row.counterfactuals
        kinds = {"columns": found.columns, "removed": found.removed, "swapped": found.swapped}
        lines += [
            f"  other answer, {kind}: {one or 'none found'} ({found.tried[kind]} tried)"
            for kind, one in kinds.items()
            if found.tried[kind]
        ]
    for one in row.neighbours[:_SHOWN]:
        lines.append(f"  near: row {one.row} ({short(one.truth)}, answered {short(one.answer)}), {one.distance:.4f}")
    return lines
