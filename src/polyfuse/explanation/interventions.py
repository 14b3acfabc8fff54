"""What moves the answers: one column or modality set by hand, beside what merely goes along with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.batches import Source
from polyfuse.data.measures import measures
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Column, Target
from polyfuse.explanation.contributions import calibrated, shared_sources
from polyfuse.inference import score
from polyfuse.metrics.bootstrap import Interval, draws, percentile_interval
from polyfuse.metrics.metric import Floats
from polyfuse.model import Model

_LEAST = 20  # rows that must have a value for it to be compared
_RESAMPLED, _LEVEL = 500, 0.95
_SLIGHT = 0.01  # of probability, or of the standard deviation of a number: less than this does not matter

#: A value of a column, what it is called, and which rows have it or one like it (rows,) bool.
_Value: TypeAlias = tuple[Any, str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Contrast:
    """Two values of a column: what setting them does, and what rows that have them look like.

    Attributes:
        output: what is compared: "probability of 'yes'", or the target of a regression.
        low, high: the two values.
        caused: mean over all rows of the answer where the column is set to `high`, less where it is set to `low`: the
            average effect do(x = high) - do(x = low) (Pearl 2009) of the model's answer.
        seen: mean answer of the rows that have the high value (of numbers: above the upper quarter), less that of those
            that have the low one: a correlation.
    """

    output: str
    low: str
    high: str
    caused: Interval
    seen: Interval


@dataclass(frozen=True)
class Effect:
    """What an intervention on one column or modality does.

    Attributes:
        name: of the column, or of the modality.
        kind: which of the two.
        moved: mean change of the answer where the value is drawn from those of all rows, do(x = value of another row):
            half the sum of the changes of all probabilities, in [0, 1]; of a regression the change itself, in its unit.
        lost: by how much the metric gets worse then (Breiman 2001).
        contrast: of a column of numbers or categories, two values compared.
        said: all this in a sentence.
    """

    name: str
    kind: Literal["column", "modality"]
    moved: Interval
    lost: Interval
    contrast: Contrast | None
    said: str


@dataclass(frozen=True)
class Interventions:
    """Effects of the columns and modalities of a model, those that move most first.

    They tell what moves the model's answers, not what moves the world: the model may have learned a correlation.

    Attributes:
        metric: that `lost` is in.
        rows: number of rows.
        effects: of each column of a table and each modality.
    """

    metric: str
    rows: int
    effects: list[Effect]

    def __str__(self) -> str:
        lines = [f"what moves the answers, on {self.rows} rows (change of the answer; {self.metric} lost)"]
        lines += [f"{effect.name:<28}{effect.moved!s:<26}{effect.lost}" for effect in self.effects]
        return "\n".join([*lines, *(effect.said for effect in self.effects)])

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def interventions(
    model: Model,
    rows: Rows,
    device: torch.device,
    *,
    calibration: Calibration | None = None,
    sources: Mapping[str, Source] | None = None,
    draw: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Interventions:
    """Set columns and modalities by hand, and look at what the model answers.

    Args:
        model: on the device.
        rows: with answers, at least two.
        device: where the model is.
        calibration: of its scores; they are taken as they are when left out.
        sources: of these rows, as `shared_sources` gives them, where they are known.
        draw: values drawn for each row.
        seed: of all random numbers.
        progress: shows how far it is.

    Raises:
        InputError: the model has several targets, or there are fewer than two rows.
    """
    if rows.schema.target.parts:
        raise InputError("the model answers several targets; ask for interventions on a model of one")
    if len(rows) < 2:
        raise InputError(f"interventions need at least 2 rows to draw from; {len(rows)} is given")
    progress = progress or Silent()
    schema = rows.schema
    sources = shared_sources(model, rows, device, progress) if sources is None else sources
    bench = _Bench(model, rows, device, calibration, sources, draw, seed)
    tables = [c for c in schema.columns if c.type in ("number", "category", "datetime")]
    several = [name for name in schema.modalities if len(schema.modalities) > 1]
    effects = []
    with progress.bar("Interventions", len(tables) + len(several)) as bar:
        for column in tables:
            effects.append(bench.effect(column.name, "column", [column.name], bench.contrast(column)))
            bar.advance(1)
        for name in several:
            effects.append(bench.effect(name, "modality", schema.modalities[name], None))
            bar.advance(1)
    effects.sort(key=lambda effect: -effect.moved.value)
    return Interventions(bench.metric.name, len(rows), effects)


class _Bench:
    """A model and rows, whose cells are set."""

    def __init__(
        self,
        model: Model,
        rows: Rows,
        device: torch.device,
        calibration: Calibration | None,
        sources: Mapping[str, Source],
        draw: int,
        seed: int,
    ) -> None:
        self._model, self._rows, self._device, self._draw, self._seed = model, rows, device, draw, seed
        self._calibration, self._sources = calibration, sources
        self._target: Target = rows.schema.target
        self.metric = measures(self._target)[model.head.metrics[0]]
        self._truth = model.head.truth(model.head.encode(rows.answers)).cpu().numpy()
        self._owner = {column: name for name, columns in rows.schema.modalities.items() for column in columns}
        self._plain = self._scores({})

    def effect(
        self, name: str, kind: Literal["column", "modality"], columns: list[str], seen: Contrast | None
    ) -> Effect:
        random = np.random.default_rng([self._seed, len(name), *name.encode()])
        drawn = []
        for _ in range(self._draw):
            donors = _others(len(self._rows), random)
            cells = {
                (column, row): self._rows.cell(column, donor) for column in columns for row, donor in enumerate(donors)
            }
            drawn.append(self._scores(cells))
        moved = _mean(np.mean([_change(some, self._plain) for some in drawn], axis=0), self._seed)
        worth, resampled = draws(self.metric, self._truth, [self._plain, *drawn], resamples=_RESAMPLED, seed=self._seed)
        sign = 1.0 if self.metric.greater_is_better else -1.0
        fall, falls = sign * float(worth[0] - worth[1:].mean()), sign * (resampled[0] - resampled[1:].mean(0))
        lost = percentile_interval(fall, [falls], _LEVEL)
        return Effect(name, kind, moved, lost, seen, _sentence(name, moved, self._target, seen))

    def contrast(self, column: Column) -> Contrast | None:
        """Compare two values of a column; None where too few rows have them."""
        cells = [self._rows.cell(column.name, row) for row in range(len(self._rows))]
        pair = _levels(column, cells) if column.type == "category" else _ends(column, cells)
        if pair is None or min(int(some.sum()) for _, _, some in pair) < _LEAST:
            return None
        (high, high_name, highs), (low, low_name, lows) = pair
        answers = [self._scores({(column.name, row): value for row in range(len(cells))}) for value in (high, low)]
        change, plain, output = self._compared(answers[0] - answers[1])
        caused, seen = _mean(change, self._seed), _apart(plain, highs, lows, self._seed)
        return Contrast(output, low_name, high_name, caused, seen)

    def _compared(self, change: Floats) -> tuple[Floats, Floats, str]:
        """Return what is compared: its change and its value in each row (rows,), and what it is called.

        Of several labels it is the probability of the one that moves most.
        """
        target = self._target
        if target.task == "regression":
            return change, self._plain, target.name
        two = target.task == "classification" and len(target.levels) == 2
        which = 1 if two else int(np.abs(change.mean(0)).argmax())
        return change[:, which], self._plain[:, which], f"probability of {target.levels[which]!r}"

    def _scores(self, cells: Mapping[tuple[str, int], Any]) -> Floats:
        changed = {self._owner[column] for column, _ in cells}
        sources: dict[str, Source] = {name: some for name, some in self._sources.items() if name not in changed}
        answered = score(self._model, self._rows.replaced(cells), self._device, sources=sources)
        return calibrated(self._calibration, *answered)


def _levels(column: Column, cells: Sequence[Any]) -> tuple[_Value, _Value] | None:
    """Return the two levels that most rows have."""
    counts = Counter(cells)
    common = sorted(column.levels, key=lambda level: -counts[level])[:2]
    if len(common) < 2:
        return None
    high, low = ((level, level, np.asarray([cell == level for cell in cells])) for level in common)
    return high, low


def _ends(column: Column, cells: Sequence[Any]) -> tuple[_Value, _Value] | None:
    """Return the 90 % and the 10 % quantile, and which rows are above the upper, below the lower quarter."""
    q = column.quantiles
    if len(q) < 51 or q[45] == q[5]:
        return None
    numbers = np.asarray([np.nan if cell is None else float(cell) for cell in cells])
    return (q[45], _number_text(q[45], column), numbers >= q[38]), (q[5], _number_text(q[5], column), numbers <= q[12])


def _others(rows: int, random: np.random.Generator) -> list[int]:
    """Draw another row for each, each row once: a random cycle."""
    order = random.permutation(rows)
    donors = np.empty(rows, dtype=np.int64)
    donors[order] = np.roll(order, 1)
    return [int(donor) for donor in donors]


def _change(scores: Floats, plain: Floats) -> Floats:
    """Return how far each row's scores went (rows,): total variation of probabilities, or the distance of numbers."""
    apart = np.abs(scores - plain)
    return apart if apart.ndim == 1 else apart.sum(axis=1) / 2


def _mean(values: Floats, seed: int) -> Interval:
    """Return the mean over rows with its bootstrap interval. values: (rows,)."""
    random = np.random.default_rng(seed)
    drawn = np.stack([values[random.integers(len(values), size=len(values))].mean() for _ in range(_RESAMPLED)])
    return percentile_interval(float(values.mean()), [drawn], _LEVEL)


def _apart(values: Floats, high: Any, low: Any, seed: int) -> Interval:
    """Return the difference between the means of two groups of rows, resampled apart."""
    random = np.random.default_rng(seed)
    a, b = values[high], values[low]
    drawn = np.stack(
        [
            a[random.integers(len(a), size=len(a))].mean() - b[random.integers(len(b), size=len(b))].mean()
            for _ in range(_RESAMPLED)
        ]
    )
    return percentile_interval(float(a.mean() - b.mean()), [drawn], _LEVEL)


def _number_text(value: float, column: Column) -> str:
    if column.type == "datetime":
        return str(np.datetime64(int(value), "s"))
    return f"{value:.0f}" if column.whole and abs(value) < 1e15 else f"{value:.4g}"


def _sentence(name: str, moved: Interval, target: Target, contrast: Contrast | None) -> str:
    """Say what an effect means."""
    size = (
        f"changes {target.name} by {moved.value:.3g} on average"
        if target.task == "regression"
        else f"shifts {moved.value:.1%} of the probability on average"
    )
    said = f"Taking {name!r} from another row {size}."
    if contrast is None:
        return said
    # An effect may be sure and yet too small to matter to anyone.
    slight = _SLIGHT * (target.std if target.task == "regression" else 1.0)
    moves, goes = ((at.low > 0 or at.high < 0) and abs(at.value) >= slight for at in (contrast.caused, contrast.seen))
    said += (
        f" Rows with {name} near {contrast.high} rather than {contrast.low} differ by {contrast.seen.value:+.3g} in"
        f" {contrast.output}; setting it so in every row, and nothing else, makes {contrast.caused.value:+.3g}."
    )
    if moves and goes and contrast.caused.value * contrast.seen.value < 0:
        return f"{said} The two point in opposite directions: other columns that go along with it hide what it does."
    if goes and (not moves or abs(contrast.caused.value) < abs(contrast.seen.value) / 2):
        return f"{said} Most of that difference comes with other columns, not from {name} itself."
    if moves and not goes:
        return f"{said} It moves the answer, though rows that have it do not differ on the whole."
    if not moves and not goes:
        return f"{said} Neither is surely more than nothing on these rows, or too small to matter."
    return f"{said} So {name} itself moves the answer."
