"""What each modality gives: Shapley values of how well a model answers, over all subsets of its modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.batches import Source
from polyfuse.data.measures import measures
from polyfuse.data.rows import Rows
from polyfuse.ensemble import shared_features
from polyfuse.fitting.sources import encoded_source
from polyfuse.inference import score, weights_of
from polyfuse.metrics.bootstrap import Interval, draws, percentile_interval
from polyfuse.metrics.metric import Floats
from polyfuse.model import Model
from polyfuse.search.material import FeatureSource

EXACT = 8  # modalities of which all subsets are measured
_ORDERS = 64  # in which more of them are added, one after the other

Subset: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class Contributions:
    """What each modality gives to a model, in the unit of a metric, of which more is better.

    A metric of which less is better stands here with its sign changed.

    Attributes:
        metric: the head's first one.
        greater_is_better: whether more of the metric itself is better.
        rows: number of rows it was measured on.
        subsets: "image", "image + audio", …: the metric itself, with these modalities alone; "nothing" is the prior.
        values: the Shapley value of each modality (Shapley 1953): what it adds, on average over all orders in which
            modalities are added to the prior. Their sum is what all of them add.
        interactions: "image × audio": the Shapley interaction index (Grabisch & Roubens 1999): what two add together
            beyond what each adds alone. Empty where orders are drawn.
        best: the single modality with which the model answers best.
        beyond_best: by how much all together are better than it.
        beyond_late: by how much they are better than the mean of the answers to each modality alone (late fusion of
            the same model).
        weights: mean over rows of the weight that the fusion itself gives each modality, of one that weighs them
            (gates, shares of experts): where it looks, not what it gains. Empty of other fusions.
        orders: number of orders drawn of more than eight modalities; None where all subsets were measured. Intervals
            are over rows, not over orders.
        level: share of the resamples that an interval holds.
    """

    metric: str
    greater_is_better: bool
    rows: int
    subsets: dict[str, Interval]
    values: dict[str, Interval]
    interactions: dict[str, Interval]
    best: str
    beyond_best: Interval
    beyond_late: Interval
    weights: dict[str, float]
    orders: int | None = None
    level: float = 0.95

    def __str__(self) -> str:
        lines = [f"what each modality gives, in {self.metric}, on {self.rows} rows (Shapley values)"]
        lines += [f"{name:<28}{at}" for name, at in self.values.items()]
        lines += [f"{name:<28}{at}" for name, at in self.interactions.items()]
        lines.append(f"{'all beyond ' + self.best:<28}{self.beyond_best}")
        lines.append(f"{'all beyond the mean of each':<28}{self.beyond_late}")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def contributions(
    model: Model,
    rows: Rows,
    device: torch.device,
    *,
    calibration: Calibration | None = None,
    sources: Mapping[str, Source] | None = None,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> Contributions:
    """Measure what each modality gives: the model answers with every subset of them, the others taken away.

    Args:
        model: on the device.
        rows: with answers; Features of all of them are held in memory.
        device: where the model is.
        calibration: of its scores; they are taken as they are when left out.
        sources: of these rows, as `shared_sources` gives them, where they are known.
        resamples: of the rows, for the intervals.
        level: share of them that an interval holds.
        seed: of the resamples, and of the orders of more than eight modalities.
        progress: shows how far it is.

    Raises:
        InputError: the model has a single modality, or several targets.
    """
    names = list(model.modalities)
    if len(names) < 2:
        raise InputError(f"the model has the modality {names[0]!r} alone, which gives all there is")
    if rows.schema.target.parts:
        raise InputError("the model answers several targets; ask for what modalities give of a model of one")
    exact = len(names) <= EXACT
    orders = None if exact else orders_of(names, seed)
    wanted = list(map(frozenset, subsets(names))) if orders is None else through_orders(names, orders)
    metric = measures(rows.schema.target)[model.head.metrics[0]]
    truth = model.head.truth(model.head.encode(rows.answers)).cpu().numpy()
    shown = progress or Silent()
    sources = shared_sources(model, rows, device, shown) if sources is None else sources
    weights = weights_of(model, rows, device, sources=sources)
    scores = _scores(model, rows, device, wanted, sources, calibration, shown)
    late = np.mean([scores[frozenset([name])] for name in names], axis=0)
    worth, drawn = draws(metric, truth, [*scores.values(), late], resamples=resamples, seed=seed)
    sign = 1.0 if metric.greater_is_better else -1.0
    place = {some: i for i, some in enumerate(scores)}
    whole, alone = place[frozenset(names)], {name: place[frozenset([name])] for name in names}
    best = max(names, key=lambda name: sign * worth[alone[name]])

    def summed(weights: Mapping[Subset, float] | NDArray[np.float64]) -> Interval:
        row = weights if isinstance(weights, np.ndarray) else _row(weights, place, len(worth))
        return percentile_interval(float(row @ worth), [row @ drawn], level)

    def beyond(other: int) -> Interval:
        row = np.zeros(len(worth))
        row[whole], row[other] = sign, -sign
        return summed(row)

    def signed(weights: Mapping[Subset, float]) -> dict[Subset, float]:
        return {some: sign * weight for some, weight in weights.items()}

    return Contributions(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        rows=len(rows),
        subsets={called(some, names): summed({some: 1.0}) for some in scores},
        values={
            name: summed(signed(shapley_weights(names, name) if orders is None else drawn_weights(orders, name)))
            for name in names
        },
        interactions={
            f"{a} × {b}": summed(signed(interaction_weights(names, a, b)))
            for a, b in (combinations(names, 2) if exact else ())
        },
        best=best,
        beyond_best=beyond(alone[best]),
        beyond_late=beyond(len(scores)),
        weights={} if weights is None else dict(zip(names, weights.mean(0).tolist(), strict=True)),
        orders=None if orders is None else len(orders),
        level=level,
    )


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every subset, the smaller ones first.

    >>> subsets(["a", "b"])
    [(), ('a',), ('b',), ('a', 'b')]
    """
    return list(chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))


def shapley_weights(names: Sequence[str], name: str) -> dict[Subset, float]:
    """Return the weight of each subset's worth in the Shapley value of one member.

    φ_i = Σ_{S ∌ i} |S|! (n - |S| - 1)! / n! (v(S ∪ i) - v(S)).

    >>> {"".join(sorted(some)): w for some, w in shapley_weights("ab", "a").items()}
    {'a': 0.5, '': -0.5, 'ab': 0.5, 'b': -0.5}
    """
    n, weights = len(names), dict[Subset, float]()
    for some in subsets([other for other in names if other != name]):
        share = math.factorial(len(some)) * math.factorial(n - len(some) - 1) / math.factorial(n)
        weights[frozenset({*some, name})], weights[frozenset(some)] = share, -share
    return weights


def interaction_weights(names: Sequence[str], a: str, b: str) -> dict[Subset, float]:
    """Return the weight of each subset's worth in the Shapley interaction index of two members.

    I_ab = Σ_{S ∌ a, b} |S|! (n - |S| - 2)! / (n - 1)! (v(S ∪ ab) - v(S ∪ a) - v(S ∪ b) + v(S)).
    """
    n, weights = len(names), dict[Subset, float]()
    for some in subsets([other for other in names if other not in (a, b)]):
        share = math.factorial(len(some)) * math.factorial(n - len(some) - 2) / math.factorial(n - 1)
        for added, sign in (((a, b), 1), ((a,), -1), ((b,), -1), ((), 1)):
            weights[frozenset({*some, *added})] = sign * share
    return weights


def called(some: Subset, names: Sequence[str]) -> str:
    """Return what a subset is called: "image + audio"; "nothing"."""
    return " + ".join(name for name in names if name in some) or "nothing"


def shared_sources(model: Model, rows: Rows, device: torch.device, progress: Progress) -> dict[str, FeatureSource]:
    """Return the Features of each modality of which Features will do; each encoder runs once over the rows."""
    shared = shared_features(model)
    return {name: encoded_source(model, rows, name, device, progress) for name in model.modalities if name in shared}


def calibrated(calibration: Calibration | None, scores: Tensor, present: Tensor) -> Floats:
    """Return scores as they are answered (rows, …). present: (rows, modalities) bool."""
    found = scores.numpy()
    if calibration is not None:
        found = calibration.apply(found, present.any(1).numpy())
    return found.astype(np.float64)


def orders_of(names: Sequence[str], seed: int) -> list[tuple[str, ...]]:
    """Draw orders, each with its reverse: what an order says too much, the reverse says too little."""
    random = np.random.default_rng(seed)
    drawn = [tuple(names[i] for i in random.permutation(len(names))) for _ in range(_ORDERS // 2)]
    return [order for some in drawn for order in (some, some[::-1])]


def through_orders(names: Sequence[str], orders: Sequence[Sequence[str]]) -> list[Subset]:
    """Return the subsets that orders go through, and each modality alone and away."""
    through = [frozenset(order[:size]) for order in orders for size in range(len(names) + 1)]
    single = [some for name in names for some in (frozenset([name]), frozenset(names) - {name})]
    return sorted(set(through) | set(single), key=lambda some: (len(some), called(some, names)))


def drawn_weights(orders: Sequence[Sequence[str]], name: str) -> dict[Subset, float]:
    """Return the weight of each subset's worth in the Shapley value of one member, as some orders estimate it."""
    weights: dict[Subset, float] = {}
    for order in orders:
        at = list(order).index(name)
        for some, share in ((frozenset(order[: at + 1]), 1.0), (frozenset(order[:at]), -1.0)):
            weights[some] = weights.get(some, 0.0) + share / len(orders)
    return weights


def _row(weights: Mapping[Subset, float], place: Mapping[Subset, int], length: int) -> NDArray[np.float64]:
    row = np.zeros(length)
    for some, weight in weights.items():
        row[place[some]] = weight
    return row


def _scores(
    model: Model,
    rows: Rows,
    device: torch.device,
    wanted: Sequence[Subset],
    sources: Mapping[str, Source],
    calibration: Calibration | None,
    progress: Progress,
) -> dict[Subset, Floats]:
    """Return the scores with each subset of the modalities alone."""
    found: dict[Subset, Floats] = {}
    with progress.bar("Subsets of the modalities", len(wanted)) as bar:
        for some in wanted:
            gone = [name for name in model.modalities if name not in some]
            found[some] = calibrated(calibration, *score(model, rows, device, without=gone, sources=sources))
            bar.advance(1)
    return found
