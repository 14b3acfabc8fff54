"""Beyond the adversary: how a model answers when parts are missing, and when values are damaged."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyfuse.core.errors import InputError, nearest
from polyfuse.core.files import strict_json, written
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.corruption import corruptions_for
from polyfuse.data.corruption.applying import corrupted
from polyfuse.data.rows import Rows
from polyfuse.inference import score
from polyfuse.metrics import METRICS
from polyfuse.metrics.bootstrap import Interval, bootstrap
from polyfuse.model import Model
from polyfuse.robustness.joint import subsets

FORMAT = 1
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, eq=False)
class StressReport:
    """How a model answers under stress.

    Attributes:
        task: what was asked.
        target: name of the column that was asked for.
        rows: number of rows.
        metric: that is shown, the first one of the head.
        greater_is_better: whether more of it is better.
        clean: on the rows as they are.
        without: "image", "image + audio", …: where these modalities are taken away from every row.
        dropped: share of the modalities dropped at random, in each row at least one staying, to mean and standard
            deviation over seeds.
        corrupted: modality to corruption to the metric at each severity, the mean over seeds.
        severities: of the corruptions.
        seeds: number of seeds.
        seconds: that it took.
    """

    task: str
    target: str
    rows: int
    metric: str
    greater_is_better: bool
    clean: Interval
    without: dict[str, Interval]
    dropped: dict[float, tuple[float, float]]
    corrupted: dict[str, dict[str, list[float]]]
    severities: tuple[int, ...]
    seeds: int
    seconds: float

    def mean(self, modality: str) -> float:
        """Return the mean of the metric over all corruptions and severities of a modality."""
        return float(np.mean([value for values in self.corrupted[modality].values() for value in values]))

    def __str__(self) -> str:
        head = f"{self.task} of {self.target!r} on {self.rows} rows, {self.metric}, in {self.seconds:.0f} s"
        lines = [head, "", f"{'as they are':<28}{_text(self.clean)}"]
        lines += [f"{'without ' + names:<28}{_text(at)}" for names, at in self.without.items()]
        lines += ["", "modalities dropped at random"] if self.dropped else []
        lines += [f"{rate:<28.0%}{mean:.4f} ± {std:.4f}" for rate, (mean, std) in self.dropped.items()]
        for modality, found in self.corrupted.items():
            lines += ["", f"{modality + ', severity':<28}" + "".join(f"{severity:>8}" for severity in self.severities)]
            lines += [f"{name:<28}" + "".join(f"{value:>8.3f}" for value in values) for name, values in found.items()]
            lines.append(f"{'mean of all':<28}{self.mean(modality):>8.3f}")
        return "\n".join(lines)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given."""
        means = {modality: self.mean(modality) for modality in self.corrupted}
        document = {"format": FORMAT, **asdict(self), "means": means}
        return written(strict_json(document), path)


def stress(
    model: Model,
    rows: Rows,
    device: torch.device,
    *,
    modalities: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    seeds: int = 3,
    progress: Progress | None = None,
) -> StressReport:
    """Take modalities away, and damage values, and measure.

    Args:
        model: on the device.
        rows: with answers.
        device: where the model is.
        modalities: that are corrupted; all when left out.
        severities: of the corruptions, from 1 to 5.
        seeds: of what is random; figures are means over them.
        progress: shows how far it is.

    Raises:
        InputError: a modality is unknown, or the model has several targets.
    """
    begun = time.monotonic()
    schema = rows.schema
    for name in modalities or ():
        if name not in schema.modalities:
            raise InputError(f"stress: there is no modality {name!r}; {nearest(name, schema.modalities)}")
    if schema.target.parts:
        raise InputError("stress: the model answers several targets; fit a model of one")
    names = list(schema.modalities)
    chosen = {name: corruptions_for(schema.of(name)) for name in modalities or names}
    gone = [some for some in subsets(names, 0) if len(some) < len(names)]
    rates = RATES if len(names) > 1 else ()
    measure = _Measure(model, rows, device)
    total = 1 + len(gone) + len(rates) * seeds + sum(map(len, chosen.values())) * len(severities) * seeds
    with (progress or Silent()).bar("Stressing", total) as bar:

        def value(changed: Rows) -> float:
            bar.advance(1)
            return measure.value(changed)

        clean = measure.interval(())
        bar.advance(1)
        without = {}
        for some in gone:
            without[" + ".join(name for name in names if name in some)] = measure.interval(some)
            bar.advance(1)
        dropped = {}
        for rate in rates:
            values = [value(_dropped(rows, rate, seed)) for seed in range(seeds)]
            dropped[rate] = float(np.mean(values)), float(np.std(values))
        damaged: dict[str, dict[str, list[float]]] = {}
        for name, kinds in chosen.items():
            damaged[name] = {
                kind: [
                    float(np.mean([value(corrupted(rows, name, kind, severity, seed)) for seed in range(seeds)]))
                    for severity in severities
                ]
                for kind in kinds
            }
    return StressReport(
        task=schema.target.task,
        target=schema.target.name,
        rows=len(rows),
        metric=measure.metric.name,
        greater_is_better=measure.metric.greater_is_better,
        clean=clean,
        without=without,
        dropped=dropped,
        corrupted={name: found for name, found in damaged.items() if found},
        severities=tuple(severities),
        seeds=seeds,
        seconds=time.monotonic() - begun,
    )


class _Measure:
    """The head's first metric of a model on versions of the same rows."""

    def __init__(self, model: Model, rows: Rows, device: torch.device) -> None:
        self._model, self._rows, self._device = model, rows, device
        head = model.head
        self.metric = METRICS[head.metrics[0]]
        self._truth: Tensor = head.truth(head.encode(rows.answers))

    def value(self, changed: Rows) -> float:
        """Return it on some version."""
        scores, _ = score(self._model, changed, self._device)
        return self.metric.function(self._truth.numpy(), scores.numpy())

    def interval(self, without: Collection[str]) -> Interval:
        """Return it with its interval on the rows as they are, but for modalities that are taken away."""
        scores, _ = score(self._model, self._rows, self._device, without=without)
        return bootstrap([self.metric], self._truth.numpy(), scores.numpy())[self.metric.name]


def _dropped(rows: Rows, rate: float, seed: int) -> Rows:
    """Return rows from which modalities are dropped at random; of what a row has, one always stays."""
    drawn = np.random.default_rng((seed, round(1000 * rate))).random(tuple(rows.present.shape))
    present = rows.present.numpy()
    gone = present & (drawn < rate)
    # Of a row that would lose all, the one that was drawn last stays.
    last = np.where(present, drawn, -1).argmax(1)
    gone[np.arange(len(rows)), last] &= (present & ~gone).any(1)
    others: dict[tuple[str, int], Any] = {}
    for at, columns in enumerate(rows.schema.modalities.values()):
        others |= {(column, row): None for row in np.flatnonzero(gone[:, at]).tolist() for column in columns}
    return rows.replaced(others)


def _text(at: Interval) -> str:
    return f"{at.value:.4f}  ({at.low:.4f} to {at.high:.4f})"
