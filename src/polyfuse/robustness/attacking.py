"""From a model and rows to a report on how it answers under attack."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyfuse.attacks import THREATS, Choice, build_attack, build_threat, default_threat, name_of
from polyfuse.attacks.contract import Attack
from polyfuse.attacks.minimal import MinimalAttack
from polyfuse.attacks.threat import Threat
from polyfuse.core.errors import InputError, nearest
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Schema
from polyfuse.inference import score
from polyfuse.metrics.bootstrap import Interval
from polyfuse.model import Model
from polyfuse.robustness.audit import audit
from polyfuse.robustness.checks import Checked, check_attack
from polyfuse.robustness.examples import check_free, write_examples
from polyfuse.robustness.joint import attacked, subsets
from polyfuse.robustness.least import least_changes
from polyfuse.robustness.measuring import Yardstick, targeted
from polyfuse.robustness.report import AttackReport, Budget
from polyfuse.robustness.scene import Scene, Values, is_differentiable

CHUNK = 64  # rows attacked together


def threats_of(
    model: Model,
    schema: Schema,
    modalities: Sequence[str] | None,
    budgets: Mapping[str, Choice],
    absent: Collection[str] = (),
) -> dict[str, Threat]:
    """Return the threat to each modality under attack.

    Args:
        model: that is attacked.
        schema: of its training table.
        modalities: under attack; all with a budget, or else all that can be attacked, when left out.
        budgets: threat models that are not to be the default.
        absent: modalities that may be taken away, whether or not there is a threat to them.

    Raises:
        InputError: a modality is unknown, has no threat, or its encoder has no place where an attack can act.
    """
    for name in [*(modalities or ()), *budgets, *absent]:
        if name not in schema.modalities:
            raise InputError(f"attack: there is no modality {name!r}; {nearest(name, schema.modalities)}")
    if absent and len(schema.modalities) == 1:
        raise InputError("attack: the only modality cannot be taken away; leave  absent  out")
    named = modalities if modalities is not None else [name for name in schema.modalities if name in budgets] or None
    threats = {}
    for name in schema.modalities if named is None else named:
        columns = schema.of(name)
        choice = budgets.get(name) or default_threat(columns)
        if choice is None and named is None:
            continue
        if choice is None:
            raise InputError(
                f"attack: nothing is known that could attack {name!r}; threat models: {', '.join(THREATS)}"
            )
        threat = build_threat(choice, name, columns).bound(model.encoder(name))
        if threat.continuous and not model.encoder(name).continuous:
            raise InputError(f"attack: the encoder of {name!r} has no continuous input for {choice!r}; leave it out")
        threats[name] = threat
    if not threats and not absent:
        raise InputError(f"attack: none of the modalities {', '.join(schema.modalities)} can be attacked")
    return threats


def attack_model(
    model: Model,
    rows: Rows,
    device: torch.device,
    threats: Mapping[str, Threat],
    name: str = "ensemble",
    options: Mapping[str, Any] | None = None,
    *,
    absent: Collection[str] = (),
    towards: object = None,
    factors: Sequence[float] = (),
    seed: int = 0,
    examples: Path | None = None,
    checked: bool = True,
    progress: Progress | None = None,
) -> AttackReport:
    """Attack rows in every subset of the modalities.

    Args:
        model: on the device.
        rows: with answers.
        device: where the model is.
        threats: to each modality under attack.
        name: of the attack.
        options: of the attack.
        absent: modalities that the adversary may take away.
        towards: the label that the adversary wants to be answered; anything wrong, when left out. Rows of which it is
            true are left out.
        factors: on all radii, for each of which the worst case is measured too.
        seed: of all random numbers.
        examples: a folder for rows whose answer was changed, which must not exist yet.
        checked: whether a few rows are attacked in other ways too, to see whether the figures can be believed.
        progress: shows how far it is.

    Raises:
        InputError: the folder exists, the attack or an option is unknown, or the task is none that can be attacked.
        PolyfuseError: a value went beyond its budget.
    """
    begun = time.monotonic()
    if examples is not None:
        check_free(examples)
    attack = build_attack(name, options or {})
    model.eval()
    wanted = None
    if towards is not None:
        rows, wanted = targeted(rows, towards)
    yardstick = Yardstick(model.head.task, model.head.truth(model.head.encode(rows.answers)), wanted)
    hand = [name for name in model.modalities if name in threats or name in absent]
    chosen = subsets(hand, seed)
    shown = progress or Silent()
    total = len(rows) * len(chosen) * (1 + len(factors))
    with shown.bar("Attacking", total) as bar:
        run = _Run(model, rows, device, yardstick, attack, hand, frozenset(absent), chosen, seed, bar.advance)
        whole = run.of(threats)
        curve = {factor: run.of({key: threat.scaled(factor) for key, threat in threats.items()}) for factor in factors}
    least = {}
    if isinstance(attack, MinimalAttack) and is_differentiable(model):
        least = least_changes(run.scenes(threats), threats, chosen, attack.steps)
    seen = Checked({}, [])
    if checked and threats:
        some = rows.subset(range(min(CHUNK, len(rows))))
        seen = check_attack(Scene.of(model, some, list(threats), device, wanted), threats, seed, shown)
    budgets = {
        key: Budget(name_of(threat), threat.norm, threat.options(), threat.unchanged(), whole.used[key])
        for key, threat in threats.items()
    }
    target = rows.schema.target
    known = {0.0: whole.clean.value, 1.0: whole.worst.value}
    known |= {factor: at.worst.value for factor, at in curve.items()}
    report = AttackReport(
        task=target.task,
        target=target.name,
        rows=len(rows),
        metric=yardstick.metric,
        attack={"name": name, **(options or {})},
        towards=None if towards is None else str(towards),
        budgets=budgets,
        clean=whole.clean,
        subsets=whole.subsets,
        worst=whole.worst,
        absent=[name for name in hand if name in absent],
        curve=dict(sorted(known.items())) if factors else {},
        least=least,
        checks=seen.seen,
        warnings=seen.warnings,
        seconds=time.monotonic() - begun,
    )
    if examples is not None:
        write_examples(examples, rows, whole.rows, model.head.decode(whole.before), model.head.decode(whole.after))
    return report


@dataclass(frozen=True, eq=False)
class _Measured:
    """Figures of one set of budgets, and the rows behind the worst of them."""

    clean: Interval
    subsets: dict[str, Interval]
    worst: Interval
    used: dict[str, float]
    rows: Rows
    before: Tensor
    after: Tensor


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same from budget to budget."""

    model: Model
    rows: Rows
    device: torch.device
    yardstick: Yardstick
    attack: Attack
    hand: Sequence[str]
    absent: frozenset[str]
    chosen: Sequence[frozenset[str]]
    seed: int
    advance: Any

    def of(self, threats: Mapping[str, Threat]) -> _Measured:
        """Attack all rows, and measure by the way that every table goes."""
        found: dict[frozenset[str], Values] = {some: {name: [] for name in self.hand} for some in self.chosen}
        clean: Values = {name: [] for name in self.hand}
        for scene in self.scenes(threats):
            for name in self.hand:
                clean[name] += scene.values[name]
            for some, worst in attacked(scene, threats, self.attack, self.chosen, self.seed, self.absent):
                for name in self.hand:
                    found[some][name] += worst.scene.values[name]
                self.advance(len(scene.rows))
        used = {
            name: max(
                audit(
                    threats.get(name),
                    self.model.encoder(name),
                    clean[name],
                    found[some][name],
                    name,
                    absent=name in self.absent,
                )
                for some in self.chosen
            )
            for name in self.hand
        }
        return self._measured(clean, found, used)

    def scenes(self, changed: Collection[str]) -> Iterator[Scene]:
        """Yield the clean rows, some at a time. changed: modalities that are not only taken away."""
        for start in range(0, len(self.rows), CHUNK):
            part = self.rows.subset(range(start, min(start + CHUNK, len(self.rows))))
            yield Scene.of(self.model, part, list(changed), self.device, self.yardstick.wanted, absent=self.absent)

    def _measured(self, clean: Values, found: Mapping[frozenset[str], Values], used: dict[str, float]) -> _Measured:
        yardstick = self.yardstick
        before, _ = score(self.model, self.rows, self.device)
        worst, rows = before, [dict[tuple[str, int], Any]() for _ in range(len(self.rows))]
        subsets: dict[str, Interval] = {}
        for some, values in found.items():
            cells = changed_cells(self.rows, clean, values)
            merged = {place: cell for row in cells for place, cell in row.items()}
            after, _ = score(self.model, self.rows.replaced(merged), self.device)
            subsets[" + ".join(name for name in values if name in some)] = yardstick.interval(after)
            worse = yardstick.harm(after) > yardstick.harm(worst)
            worst = torch.where(worse.view(-1, *[1] * (after.ndim - 1)), after, worst)
            rows = [theirs if taken else mine for taken, theirs, mine in zip(worse.tolist(), cells, rows, strict=True)]
        return _Measured(
            yardstick.interval(before),
            subsets,
            yardstick.interval(worst),
            used,
            self.rows.replaced({place: cell for row in rows for place, cell in row.items()}),
            before,
            worst,
        )


def changed_cells(rows: Rows, clean: Values, found: Values) -> list[dict[tuple[str, int], Any]]:
    """Return for each row the cells that were changed, by column and row."""
    cells: list[dict[tuple[str, int], Any]] = [{} for _ in range(len(rows))]
    for name, values in found.items():
        columns = rows.schema.modalities[name]
        for row, (before, after) in enumerate(zip(clean[name], values, strict=True)):
            if after is not before:
                changed = after if after is not None else [None] * len(columns)
                cells[row] |= {(column, row): cell for column, cell in zip(columns, changed, strict=True)}
    return cells
