"""Whether a screen tells what it should, and what is left of that when the adversary knows of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from polyfuse.attacks import build_attack
from polyfuse.attacks.contract import Attack
from polyfuse.attacks.threat import Threat
from polyfuse.core.errors import InputError
from polyfuse.core.files import strict_json, written
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.rows import Rows
from polyfuse.metrics.bootstrap import Interval
from polyfuse.model import Model
from polyfuse.robustness.attacking import CHUNK, changed_cells
from polyfuse.robustness.audit import audit
from polyfuse.robustness.joint import Worst, attacked, subsets
from polyfuse.robustness.scene import Scene, Values
from polyfuse.screening import Screen, damaged, screened

FORMAT = 1
RATES = (0.01, 0.05)
ORDINARY, HARMLESS = "ordinary rows", "ordinary rows, and damaged ones answered rightly"
DAMAGED, ATTACKED, KNOWING = "damaged", "attacked", "attacked, knowing of the screen"
_RESAMPLES = 1000
_COLLAPSE = 0.5  # share of its true positives below which a screen is said to collapse

Array = NDArray[Any]


@dataclass(frozen=True)
class Told:
    """How well some rows are told from others.

    Attributes:
        rows: to be flagged.
        others: not to be flagged.
        auc: area under the ROC curve.
        tpr: false positive rate to the share of the rows that are above the threshold with at most that rate.
    """

    rows: int
    others: int
    auc: Interval
    tpr: dict[float, Interval]


@dataclass(frozen=True)
class Outcome:
    """What becomes of all rows.

    Attributes:
        wrong: share that is answered wrongly.
        missed: share that is answered wrongly and not flagged.
    """

    wrong: Interval
    missed: Interval


@dataclass(frozen=True, eq=False)
class DetectionReport:
    """What a screen sees, and what it misses.

    Attributes:
        task: what was asked.
        target: name of the column that was asked for.
        rows: number of rows.
        attack: name and options of the attack.
        threats: what the adversary may do, by modality.
        rate: of false positives that the screen was fitted for.
        flagged: share that is flagged of ordinary rows, and of damaged ones that are answered rightly.
        outcomes: as they are, damaged, attacked, and attacked by an adversary who knows the screen, to what becomes of
            all rows.
        told: what is not to be flagged, to what is, to how well they are told apart. Of attacked rows those whose
            answer was turned count; of damaged ones, beside harmless ones, those answered wrongly.
        weights: of the screen's signals.
        warnings: what a reader has to know before believing in the screen.
        seconds: that it took.
    """

    task: str
    target: str
    rows: int
    attack: dict[str, Any]
    threats: dict[str, dict[str, Any]]
    rate: float
    flagged: dict[str, Interval]
    outcomes: dict[str, Outcome]
    told: dict[str, dict[str, Told]]
    weights: dict[str, float]
    warnings: list[str]
    seconds: float

    def __str__(self) -> str:
        about = f"{self.task} of {self.target!r} on {self.rows} rows, {self.attack['name']} in {self.seconds:.1f} s"
        lines = [about, "", f"{'rows':<34}{'wrong':>8}{'wrong and not flagged':>32}"]
        lines += [f"{name:<34}{at.wrong.value:>8.4f}{_text(at.missed):>32}" for name, at in self.outcomes.items()]
        for others, found in self.told.items():
            heads = "".join(f"{f'TPR at {rate:.0%} FPR':>27}" for rate in RATES)
            lines += ["", f"told from {others}", f"{'':<34}{'rows':>6}{'ROC AUC':>27}{heads}"]
            lines += [
                f"{name:<34}{at.rows:>6}{_text(at.auc):>27}" + "".join(f"{_text(at.tpr[rate]):>27}" for rate in RATES)
                for name, at in found.items()
            ]
        lines += ["", *(f"flagged of {name}: {at.value:.1%}" for name, at in self.flagged.items())]
        lines.append(f"asked for: {self.rate:.1%} of ordinary rows")
        return "\n".join([*lines, *(f"warning: {said}" for said in self.warnings)])

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given."""
        return written(strict_json({"format": FORMAT, **asdict(self)}), path)


def detect(
    model: Model,
    screen: Screen,
    rows: Rows,
    device: torch.device,
    threats: Mapping[str, Threat],
    name: str = "ensemble",
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> DetectionReport:
    """Measure a screen on rows that are damaged, attacked, and attacked by an adversary who knows it.

    Both attacks go over every subset of the modalities under attack. The one that knows the screen wants an answer that
    is wrong, at a suspicion that neither the screen nor 5 % of these ordinary rows exceed (`attacks.goals.Unseen`);
    where it finds nothing better, what the other one found stands. All is measured on values as a table holds them.

    Args:
        model: on the device.
        screen: of the model.
        rows: with answers, that neither the model nor the screen has learned from.
        device: where the model is.
        threats: to each modality under attack.
        name: of the attack.
        options: of the attack.
        seed: of all random numbers.
        progress: shows how far it is.

    Raises:
        InputError: the attack or an option is unknown, or no answer of the task is right or wrong.
        PolyfuseError: a value went beyond its budget.
    """
    begun = time.monotonic()
    task = rows.schema.target.task
    if task not in ("classification", "multilabel"):
        raise InputError(
            f"detect: the task is {task}, of which no answer is right or wrong; it knows classification and multilabel"
        )
    attack = build_attack(name, options or {})
    rows = rows.subset(rows.present.any(1).nonzero().squeeze(1).tolist())
    run = _Run(model.eval(), screen, rows, device, threats, attack, seed, progress or Silent())
    ordinary = run.measured(rows)
    if not len(rows) or bool(ordinary.wrong.all()):
        raise InputError(
            "detect: the model answers none of these rows rightly, so there is nothing to attack; give others"
        )
    changed, touched = damaged(rows, seed)
    damage = run.measured(changed)
    plain_rows = run.attacked(None)
    plain = run.measured(plain_rows)
    aim = min(float(screen.threshold), _threshold(ordinary.logits, 0.05))
    knowing = run.measured(run.attacked(aim)).unless(plain)
    right, harmless = ~ordinary.wrong, touched & ~damage.wrong
    negatives = {
        ORDINARY: ordinary.logits,
        HARMLESS: np.concatenate([ordinary.logits, damage.logits[harmless]]),
    }
    told: dict[str, dict[str, Told]] = {}
    for others, logits in negatives.items():
        hurt = touched if others == ORDINARY else touched & damage.wrong
        found = {
            DAMAGED: damage.logits[hurt],
            **{kind: at.logits[right & at.wrong] for kind, at in ((ATTACKED, plain), (KNOWING, knowing))},
        }
        told[others] = {kind: _told(some, logits, seed) for kind, some in found.items()}
    limit = float(screen.threshold)
    situations = {"as they are": ordinary, DAMAGED: damage, ATTACKED: plain, KNOWING: knowing}
    return DetectionReport(
        task=task,
        target=rows.schema.target.name,
        rows=len(rows),
        attack={"name": name, **(options or {})},
        threats={key: threat.options() for key, threat in threats.items()},
        rate=screen.rate,
        flagged={
            ORDINARY: _share(ordinary.logits > limit, seed),
            "damaged rows answered rightly": _share(damage.logits[harmless] > limit, seed),
        },
        outcomes={
            kind: Outcome(_share(at.wrong, seed), _share(at.wrong & (at.logits <= limit), seed))
            for kind, at in situations.items()
        },
        told=told,
        weights=dict(zip(screen.signal_names, screen.weights.tolist(), strict=True)),
        warnings=_warnings(told[ORDINARY], len(rows)),
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """What model and screen say of all rows: whether the answer is wrong (rows,) bool, and the logits (rows,)."""

    wrong: Array
    logits: Array

    def unless(self, other: _Measured) -> _Measured:
        """Return of each row what serves an adversary best: first what is wrong, then what is less suspicious."""
        better = (self.wrong & ~other.wrong) | ((self.wrong == other.wrong) & (self.logits < other.logits))
        return _Measured(self.wrong | other.wrong, np.where(better, self.logits, other.logits))


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same from attack to attack."""

    model: Model
    screen: Screen
    rows: Rows
    device: torch.device
    threats: Mapping[str, Threat]
    attack: Attack
    seed: int
    progress: Progress

    def measured(self, rows: Rows) -> _Measured:
        """Answer rows by the way that every table goes."""
        scores, logits, _ = screened(self.model, self.screen, rows, self.device)
        head = self.model.head
        truth = head.truth(head.encode(rows.answers))
        wrong = ((scores >= 0.5) != truth.bool()).any(1) if head.task == "multilabel" else scores.argmax(1) != truth
        return _Measured(wrong.numpy(), logits.double().numpy())

    def attacked(self, aim: float | None) -> Rows:
        """Return the rows as an adversary leaves them. aim: suspicion not to be exceeded; None knows of no screen."""
        names = list(self.threats)
        clean: Values = {name: [] for name in names}
        found: Values = {name: [] for name in names}
        told = "Attacking" if aim is None else "Attacking, knowing of the screen"
        with self.progress.bar(told, len(self.rows)) as bar:
            for start in range(0, len(self.rows), CHUNK):
                part = self.rows.subset(range(start, min(start + CHUNK, len(self.rows))))
                scene = Scene.of(self.model, part, names, self.device)
                if aim is not None:
                    scene = scene.watched(self.screen, aim)
                worst = self._worst(scene)
                for name in names:
                    clean[name] += scene.values[name]
                    found[name] += worst.scene.values[name]
                bar.advance(len(part))
        for name, threat in self.threats.items():
            audit(threat, self.model.encoder(name), clean[name], found[name], name)
        cells = changed_cells(self.rows, clean, found)
        return self.rows.replaced({place: cell for row in cells for place, cell in row.items()})

    def _worst(self, scene: Scene) -> Worst:
        """Return the worst of all subsets: the last one is that of all modalities, which begins with the others'."""
        chosen = subsets(list(self.threats), self.seed)
        return [worst for _, worst in attacked(scene, self.threats, self.attack, chosen, self.seed)][-1]


def _threshold(others: Array, rate: float) -> float:
    """Return the least value that at most this share of others exceeds."""
    return float(np.sort(others)[math.ceil(len(others) * (1 - rate) - 1e-9) - 1])


def _auc(some: Array, others: Array) -> float:
    """P(s+ > s-) + P(s+ = s-) / 2."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, some, "left") + np.searchsorted(ordered, some, "right")
    return float(below.mean() / (2 * len(others)))


def _told(some: Array, others: Array, seed: int) -> Told:
    """Return the figures with percentile intervals, both sides resampled apart."""

    def figures(some: Array, others: Array) -> list[float]:
        return [_auc(some, others), *(float((some > _threshold(others, rate)).mean()) for rate in RATES)]

    if not len(some):
        unknown = Interval(math.nan, math.nan, math.nan)
        return Told(0, len(others), unknown, dict.fromkeys(RATES, unknown))
    random = np.random.default_rng(seed)
    drawn = [
        figures(*(side[random.integers(len(side), size=len(side))] for side in (some, others)))
        for _ in range(_RESAMPLES)
    ]
    ends = np.quantile(drawn, [0.025, 0.975], axis=0).T
    auc, *tpr = [
        Interval(value, float(low), float(high)) for value, (low, high) in zip(figures(some, others), ends, strict=True)
    ]
    return Told(len(some), len(others), auc, dict(zip(RATES, tpr, strict=True)))


def _share(which: Array, seed: int) -> Interval:
    if not len(which):
        return Interval(math.nan, math.nan, math.nan)
    random = np.random.default_rng(seed)
    means = which[random.integers(len(which), size=(_RESAMPLES, len(which)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(which.mean()), float(low), float(high))


def _warnings(told: Mapping[str, Told], rows: int) -> list[str]:
    rate = RATES[-1]
    before, after = (told[kind].tpr[rate].value for kind in (ATTACKED, KNOWING))
    said = []
    if not told[ATTACKED].rows:
        said.append("the attack turned no answer, so nothing is known of the screen under attack; give a larger budget")
    elif before < _COLLAPSE:
        said.append(
            f"the screen misses most of the attack even where the adversary knows nothing of it: TPR {before:.1%}"
        )
    if told[KNOWING].rows and (after < _COLLAPSE * before or (math.isnan(before) and after < _COLLAPSE)):
        said.append(
            f"detection collapses under an adversary who knows the screen: of the answers that are turned"
            f" {after:.1%} are flagged, at {rate:.0%} false positives, and {before:.1%} where the screen is not known;"
            " do not rely on it against such an adversary"
        )
    if rows < 1 / RATES[0]:
        said.append(f"{rows} ordinary rows: at {RATES[0]:.0%} false positives the threshold is the largest of them all")
    return said


def _text(at: Interval) -> str:
    return f"{at.value:.4f} ({at.low:.4f} to {at.high:.4f})"
