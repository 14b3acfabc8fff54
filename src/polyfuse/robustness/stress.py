"""Beyond the adversary: how a model answers when parts are missing, and when values are damaged."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from polyfuse.data.schema import Schema
from polyfuse.inference import score
from polyfuse.metrics import METRICS
from polyfuse.metrics.bootstrap import Interval, bootstrap
from polyfuse.model import Model
from polyfuse.robustness.joint import subsets

FORMAT = 1
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Reference:
    """How another model of the same rows stands under the same stress.

    With m and r the metrics of the model and of the other one, over all damage d of one kind, and the sign that makes
    more of them better: relative = mean of m(d) - r(d), and effective = relative - (m(0) - r(0)), which is what is left
    of it when both begin alike (after Liang et al. 2021, whose only reference is late fusion).

    Attributes:
        clean: its metric on the rows as they are.
        relative: by kind of damage, the modality that is corrupted or "dropped": by how much the model is better there.
        effective: by how much less it falls.
    """

    clean: float
    relative: dict[str, float]
    effective: dict[str, float]


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
        references: other models of the same rows, e.g. late fusion, by name.
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
    references: dict[str, Reference] = field(default_factory=dict)

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
        for name, other in self.references.items():
            lines += ["", f"{'beside ' + name:<28}{'better by':>12}{'falls less by':>16}"]
            lines.append(f"{'as they are':<28}{self._better(self.clean.value, other.clean):>+12.4f}")
            lines += [
                f"{kind:<28}{value:>+12.4f}{other.effective[kind]:>+16.4f}" for kind, value in other.relative.items()
            ]
        return "\n".join(lines)

    def _better(self, mine: float, other: float) -> float:
        return mine - other if self.greater_is_better else other - mine

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
    references: Mapping[str, tuple[Model, Schema]] | None = None,
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
        references: other models on the device, each with the schema of its training table, by name.
        progress: shows how far it is.

    Raises:
        InputError: a modality is unknown, the model has several targets, or a reference answers something else or
            reads columns that the model does not know.
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
    for name, (_, seen) in (references or {}).items():
        _check_reference(name, seen, schema)
    measure = _Measure(model, rows, device)
    others = {name: _Measure(other, rows.seen_by(seen), device) for name, (other, seen) in (references or {}).items()}
    at: dict[str, dict[str, list[float]]] = {name: {} for name in others}
    total = 1 + len(gone) + len(rates) * seeds + sum(map(len, chosen.values())) * len(severities) * seeds
    with (progress or Silent()).bar("Stressing", total) as bar:

        def value(changed: Rows, kind: str) -> float:
            for name, other in others.items():
                at[name].setdefault(kind, []).append(other.value(changed))
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
            values = [value(_dropped(rows, rate, seed), "dropped") for seed in range(seeds)]
            dropped[rate] = float(np.mean(values)), float(np.std(values))
        damaged: dict[str, dict[str, list[float]]] = {}
        for name, kinds in chosen.items():
            damaged[name] = {
                kind: [
                    float(np.mean([value(corrupted(rows, name, kind, severity, seed), name) for seed in range(seeds)]))
                    for severity in severities
                ]
                for kind in kinds
            }
    own = {"dropped": float(np.mean([mean for mean, _ in dropped.values()] or [clean.value]))}
    own |= {name: float(np.mean(list(found.values()))) for name, found in damaged.items() if found}
    sign = 1 if measure.metric.greater_is_better else -1
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
        references={name: _beside(own, clean.value, at[name], others[name].value(rows), sign) for name in others},
    )


def _check_reference(name: str, seen: Schema, schema: Schema) -> None:
    mine, theirs = schema.target, seen.target
    if (theirs.name, theirs.task, set(theirs.levels)) != (mine.name, mine.task, set(mine.levels)):
        raise InputError(
            f"stress: the reference {name!r} answers {theirs.name!r} ({theirs.task}), with other labels or not the same"
            f" as {mine.name!r} ({mine.task}); give models of the same column, fitted on the same labels"
        )
    known = {column.name for column in schema.columns}
    strange = [column.name for column in seen.columns if column.name not in known]
    if strange:
        raise InputError(
            f"stress: the reference {name!r} reads {', '.join(map(repr, strange))}, which the model does not know, so"
            " that both would not be under the same stress; give a model that reads some of its columns"
        )


def _beside(
    own: Mapping[str, float], clean: float, other: Mapping[str, Sequence[float]], other_clean: float, sign: int
) -> Reference:
    """Return how a model stands beside another one, from the mean under each kind of damage, and without any."""
    relative = {kind: sign * (own[kind] - float(np.mean(values))) for kind, values in other.items()}
    ahead = sign * (clean - other_clean)
    return Reference(other_clean, relative, {kind: value - ahead for kind, value in relative.items()})


class _Measure:
    """The head's first metric of a model on versions of the same rows."""

    def __init__(self, model: Model, rows: Rows, device: torch.device) -> None:
        self._model, self._rows, self._device = model, rows, device
        head = model.head
        self.metric = METRICS[head.metrics[0]]
        self._truth: Tensor = head.truth(head.encode(rows.answers))

    def value(self, changed: Rows) -> float:
        """Return it on some version."""
        scores, _ = score(self._model, changed.seen_by(self._rows.schema), self._device)
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
