"""From candidates to the model that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyfuse.core.interruption import interruptible
from polyfuse.core.progress import Progress
from polyfuse.ensemble import Ensemble, Member
from polyfuse.fusion import FUSIONS
from polyfuse.learners.learner import Array, Learner
from polyfuse.model import FusionModel, Model
from polyfuse.recipe.component import Component
from polyfuse.recipe.ways import MemberSpec
from polyfuse.search.comparison import Comparison, Entry
from polyfuse.search.material import Material
from polyfuse.search.selection import crossed, greedy_weights

#: Share of the mean below which a model is not worth its time.
_LEAST = 0.04
_PARTS = 5
#: Of an interval that is one standard error wide to either side.
_ONE_ERROR = 0.6827


@dataclass(frozen=True)
class Found:
    """The best way to combine.

    Attributes:
        model: fitted on all rows.
        fusion: what stands in the recipe for it.
        scores: of rows that it was measured on, by models that had not seen them.
        measured: positions of those rows.
        comparison: headings and lines of the table, as it is kept.
        reason: why this one, in one sentence.
        members: of the model, with what each is: what another may be mixed with.
        base: the best fusion, None where none was measured.
        floored: whether the floor was chosen: what has learned from the rows is no better, the whole model included.
    """

    model: Model
    fusion: Component
    scores: Array
    measured: Array
    comparison: dict[str, Any]
    reason: str
    members: list[tuple[MemberSpec, Member]]
    base: Component | None
    floored: bool = False


@dataclass(frozen=True)
class Floor:
    """What reads nothing that has learned from the rows: it can be compared by folds over all of them.

    The rest is compared on the rows kept aside, which are few. Where it is no better there than what stands here, by
    more than one standard error, the choice is made here, by many more rows (one-standard-error rule, Breiman et al.
    1984): so a modality that says nothing does no harm.

    Attributes:
        comparison: not begun yet.
        specs: the candidates, all of which are compared on the rows kept aside too.
        folds: positions to learn from, positions to measure on.
        learned: the modalities whose encoder has learned from the rows.
        scores: of the rows kept aside, by the model that was trained as a whole.
    """

    comparison: Comparison
    specs: Sequence[MemberSpec]
    folds: Sequence[tuple[Array, Array]]
    learned: Sequence[str]
    scores: Array


@dataclass(frozen=True)
class Choice:
    """What is to be fitted on all rows.

    Attributes:
        entries: the models that are averaged.
        weights: of each.
        scores: of the rows measured on.
        rows: positions of those rows.
        reason: why.
    """

    entries: list[Entry]
    weights: list[float]
    scores: Array
    rows: Array
    reason: str


def find(
    comparison: Comparison,
    specs: Sequence[MemberSpec],
    folds: Sequence[tuple[Array, Array]],
    *,
    ensemble: bool,
    progress: Progress,
    given: bool = False,
    floor: Floor | None = None,
) -> Found:
    """Compare candidates, choose, and fit what was chosen on all rows.

    Args:
        comparison: not begun yet.
        specs: the candidates.
        folds: positions to learn from, positions to measure on.
        ensemble: whether several may be averaged.
        progress: shows the table as it grows.
        given: whether all candidates are wanted, with the weights that they have, and nothing is chosen.
        floor: what some have to be better than.
    """
    _compare(comparison, specs, folds, progress)
    if floor is None or comparison.stopped or _pays(comparison, floor):
        choice = _given(comparison) if given else _choose(comparison, ensemble=ensemble)
        return _found(comparison, choice, progress)
    _compare(floor.comparison, floor.specs, floor.folds, progress)
    found = _found(floor.comparison, _choose(floor.comparison, ensemble=ensemble, floor=True), progress)
    rows = f"{len(comparison.leading_rows):,} rows kept aside"
    learned = " and ".join(floor.learned)
    reason = f"{found.reason}; to read {learned} too, also trained as a whole, is no better, or hardly, on the {rows}"
    others = _lines([entry for entry in comparison.entries if entry.spec not in floor.specs], {})
    lines = [*found.comparison["candidates"], *others]
    kept = {**found.comparison, "candidates": lines, "reason": reason}
    return replace(found, comparison=kept, reason=reason, floored=True)


def _compare(
    comparison: Comparison, specs: Sequence[MemberSpec], folds: Sequence[tuple[Array, Array]], progress: Progress
) -> None:
    with interruptible(comparison.stop), progress.bar("Comparing", len(specs) * len(folds)) as bar:
        comparison.run(specs, folds, bar)


def _pays(comparison: Comparison, floor: Floor) -> bool:
    """Tell whether the best of what has learned is better than the best of the rest, both on the rows kept aside."""
    leaders = comparison.leaders()
    resting = [scores for entry, scores in leaders if entry.spec in floor.specs]
    others = [scores for entry, scores in leaders if entry.spec not in floor.specs]
    if not resting:
        return True
    rows = comparison.leading_rows
    best = min([*others[:1], floor.scores], key=lambda scores: comparison.badness(scores, rows))
    return comparison.worse(resting[0], best, rows, level=_ONE_ERROR).low > 0


def _found(comparison: Comparison, choice: Choice, progress: Progress) -> Found:
    """Fit what was chosen on all rows."""
    with progress.bar("Fitting", len(choice.entries)) as bar:
        models = comparison.fitted(choice.entries, lambda entry: bar.advance(1, entry.name))
    chosen = [
        (entry.spec, _member(comparison, entry, model, weight))
        for entry, model, weight in zip(choice.entries, models, choice.weights, strict=True)
    ]
    model, fusion = _assembled(comparison.material, chosen)
    specs = [entry.spec for entry, _ in comparison.leaders()]
    base = next((spec.combine for spec in specs if spec.combine.name in FUSIONS and spec.modalities is None), None)
    shares = {id(entry): weight for entry, weight in zip(choice.entries, choice.weights, strict=True)}
    lines = _lines(comparison.entries, shares)
    kept = {"metric": comparison.metric.name, "candidates": lines, "reason": choice.reason}
    return Found(model, fusion, choice.scores, choice.rows, kept, choice.reason, chosen, base)


def mixed(
    found: Found,
    spec: MemberSpec,
    member: Member,
    scores: Array,
    rows: Array,
    comparison: Comparison,
    *,
    given: bool = False,
) -> Found:
    """Mix in a model that was trained as a whole, with the weight that is best on the rows that it has not seen.

    It takes part only where that is better by more than one standard error: the simpler model has the benefit of the
    doubt (Breiman et al. 1984).

    Args:
        found: so far.
        spec: what the model is.
        member: the model.
        scores: its scores.
        rows: positions of the rows that they are of; all are among those that `found` was measured on.
        comparison: that decides.
        given: whether the weight that it has is wanted, beside those of the others, and nothing is chosen.
    """
    before = found.scores[np.searchsorted(found.measured, rows)]
    others = sum(spec.weight for spec, _ in found.members)
    shares = [member.weight / (others + member.weight)] if given else np.linspace(0, 1, 11).tolist()
    tried = {share: (1 - share) * before + share * scores for share in shares}
    share = min(tried, key=lambda share: comparison.badness(tried[share], rows))
    if not given and not comparison.worse(before, tried[share], rows, level=_ONE_ERROR).low > 0:
        share = 0.0
    told = _told(comparison, member.name, share, before, tried[share], rows)
    reason = f"{found.reason}; {told}"
    kept = {**found.comparison, "reason": reason}
    if share == 0:
        return replace(found, comparison=kept, reason=reason)
    chosen = [(s, replace(m, weight=m.weight * (1 - share))) for s, m in found.members if share < 1]
    chosen.append((spec, replace(member, weight=share)))
    model, fusion = _assembled(comparison.material, chosen)
    return replace(
        found,
        model=model,
        fusion=fusion,
        scores=tried[share],
        measured=rows,
        comparison=kept,
        reason=reason,
        members=chosen,
    )


def _told(comparison: Comparison, name: str, share: float, before: Array, after: Array, rows: Array) -> str:
    kept = f"on the {len(rows):,} rows kept aside"
    if share == 0:
        return f"{name} makes it no better, or hardly, {kept}"
    gain = comparison.worse(before, after, rows)
    return (
        f"{name} has a weight of {share:.1f}, with which {comparison.metric.name} {kept} is better by {gain.value:.4f}"
        f" ({gain.low:.4f} to {gain.high:.4f})"
    )


def _choose(comparison: Comparison, *, ensemble: bool, floor: bool = False) -> Choice:
    """Choose the best candidate, or the mean of several where that is better beyond chance."""
    leaders, rows = comparison.leaders(), comparison.leading_rows
    entries, scores = [entry for entry, _ in leaders], [scores for _, scores in leaders]
    best = entries[0]
    alone = Choice([best], [1.0], scores[0], rows, _why(best, entries, floor=floor))
    if not ensemble or len(leaders) < 2:
        return alone

    def badness(some: Array, places: Array) -> float:
        return comparison.badness(some, rows[places])

    order = np.random.default_rng(0).permutation(len(rows))
    mean = crossed(scores, badness, np.array_split(order, _PARTS))
    gain = comparison.worse(scores[0], mean, rows)
    if not gain.low > 0:
        return alone
    weights = greedy_weights(scores, lambda some: comparison.badness(some, rows))
    weights = np.where(weights >= _LEAST, weights, 0.0)
    weights = weights / weights.sum()
    chosen = [(entry, float(weight)) for entry, weight in zip(entries, weights, strict=True) if weight > 0]
    if len(chosen) < 2:
        return alone
    named = ", ".join(f"{entry.name} {weight:.2f}" for entry, weight in chosen)
    reason = (
        f"an ensemble ({named}): {comparison.metric.name} better than {best.name}'s by {gain.value:.4f}"
        f" ({gain.low:.4f} to {gain.high:.4f})"
    )
    return Choice([entry for entry, _ in chosen], [weight for _, weight in chosen], mean, rows, reason)


def _why(best: Entry, leaders: Sequence[Entry], *, floor: bool) -> str:
    if floor:
        return f"{best.name}: the best of {len(leaders)} that were measured by folds over all rows"
    if best.spec.modalities is None:
        many = len(leaders)
        return f"{best.name}: the best of {many} that were measured to the end; no mean of several is surely better"
    named = " and ".join(best.spec.modalities)
    if all(entry.spec.modalities is not None for entry in leaders):
        return f"{best.name}: the best of those that read {named} alone; no model of all was measured to the end"
    return f"{best.name}: {named} alone does as well as any combination, so nothing else is read"


def _given(comparison: Comparison) -> Choice:
    """Return the candidates with the weights that they were given."""
    entries, known = comparison.entries, comparison.leaders()
    total = sum(entry.spec.weight for entry, _ in known)
    mean: Array = sum((entry.spec.weight / total * scores for entry, scores in known), np.zeros(1))
    every = sum(entry.spec.weight for entry in entries)
    weights = [entry.spec.weight / every for entry in entries]
    return Choice(list(entries), weights, mean, comparison.leading_rows, "as given")


def _member(comparison: Comparison, entry: Entry, model: FusionModel | Learner, weight: float) -> Member:
    asked, known = entry.spec.modalities, comparison.material.bank.modalities
    read = tuple(name for name in known if asked is None or name in asked)
    return Member(entry.name, weight, model, read, tuple(entry.spec.parts or ("features", "words")))


def _assembled(material: Material, chosen: Sequence[tuple[MemberSpec, Member]]) -> tuple[Model, Component]:
    """Return the model, a plain fusion model where it is one, and what the recipe says of it."""
    spec, only = chosen[0]
    if len(chosen) == 1 and isinstance(only.model, FusionModel) and spec.modalities is None:
        return only.model, spec.combine
    bank = material.bank
    encoders = {name: bank.encoder(name) for name in bank.modalities}
    model = Ensemble(encoders, bank.head, [member for _, member in chosen], bank.words, precision=bank.precision)
    specs = [spec.model_copy(update={"weight": round(member.weight, 6)}) for spec, member in chosen]
    return model, Component.model_validate({"name": "ensemble", "members": specs})


def _lines(entries: Sequence[Entry], shares: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return candidates as JSON values. shares: the weight of each in what was chosen, by its id."""
    lines = []
    for entry in entries:
        at = entry.interval if entry.folds else None
        lines.append(
            {
                "candidate": entry.name,
                "spec": entry.spec.as_data(),
                "value": at and at.value,
                "low": at and at.low,
                "high": at and at.high,
                "rows": len(entry.measured()[0]) if entry.folds else 0,
                "folds": entry.folds,
                "seconds": round(entry.seconds, 3),
                "weight": shares.get(id(entry), 0.0),
                "note": entry.note,
            }
        )
    return lines
