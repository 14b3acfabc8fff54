"""From ordinary rows to a screen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from polyfuse.core.errors import InputError
from polyfuse.core.progress import Progress, Silent
from polyfuse.core.types import Inputs
from polyfuse.data.batches import Source
from polyfuse.data.corruption import corruptions_for
from polyfuse.data.corruption.applying import corrupted
from polyfuse.data.rows import Rows
from polyfuse.data.splits import split
from polyfuse.inference import run
from polyfuse.model import Model, Texts
from polyfuse.screening.screen import Screen, Shape, Space
from polyfuse.screening.traces import Trace, check_task, spaces_of

#: From rows to where the inputs of some modalities come from.
SourcesOf: TypeAlias = Callable[[Rows], Mapping[str, Source]]

MOST = 2_000  # rows of a bank, and rows that a threshold is taken from
_COMPARED = 1_000  # rows that are compared with damaged ones
_LEAST = 12  # rows to learn from
_PROBED = 32  # rows that tell how long one takes
_RIDGE = 1e-2
_SEVERITIES = (3, 4, 5)


def check_room(apart: int, rate: float) -> None:
    """Check that rows kept apart are enough for a threshold: of n, the least rate is 1 / (n + 1).

    Raises:
        InputError: they are too few.
    """
    if _place(apart, rate) > apart:
        raise InputError(
            f"screen: a false positive rate of {rate:g} is asked for, and {apart} rows are kept apart: that needs"
            f" {_needed(rate)} of them; give more rows, keep a greater share apart (data.validation_share), or ask for"
            f" a rate of at least {1 / (apart + 1):.2g}"
        )


def threshold_of(logits: NDArray[Any], rate: float) -> float:
    """Return the ⌈(n + 1)(1 - rate)⌉-th smallest of n logits: a new ordinary row is above it with at most the rate.

    Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): true of any rows that are exchangeable with these.
    """
    return float(np.sort(logits)[_place(len(logits), rate) - 1])


def fit_screen(
    model: Model,
    learned: Rows,
    apart: Rows,
    device: torch.device,
    *,
    rate: float,
    neighbours: int,
    seed: int = 0,
    sources: SourcesOf | None = None,
    progress: Progress | None = None,
    deadline: float = math.inf,
) -> Screen:
    """Fit a screen.

    Two thirds of `learned` are what rows are compared with, at most 2,000; of the others, at most 1,000, the weights
    come: as they are they are ordinary, damaged by corruptions of severity 3 to 5 they are not. `apart` gives the
    threshold, at most 2,000 rows too.

    Args:
        model: on the device.
        learned: ordinary rows with answers, e.g. those that the model was trained on.
        apart: other ordinary rows, that the model has not learned from.
        device: where the model is.
        rate: share of ordinary rows that may be flagged.
        neighbours: which nearest neighbour the distance is taken to.
        seed: of all random numbers.
        sources: where inputs of ordinary rows come from, if not from their values.
        progress: shows how far it is.
        deadline: time.monotonic() at which it is to be there: of all rows as many are used as there is time for, by
            what a few of them take, and no fewer than it needs.

    Raises:
        InputError: there are too few rows, or the task is none that can be screened.
    """
    check_task(model.head.task)
    random = np.random.default_rng(seed)
    learned, apart = (_drawn(_present(rows), most, random) for rows, most in ((learned, 3 * MOST // 2), (apart, MOST)))
    check_room(len(apart), rate)
    if len(learned) < _LEAST:
        raise InputError(f"screen: {len(learned)} rows to learn from, and it needs {_LEAST}; give more rows")
    learned, apart = _in_time(model, learned, apart, device, rate, deadline)
    cut = min(MOST, 2 * len(learned) // 3)
    known, compared = (learned.subset(range(*ends)) for ends in ((0, cut), (cut, min(cut + _COMPARED, len(learned)))))
    with (progress or Silent()).bar("Screening", 4) as bar:
        kept = sources or (lambda rows: {})
        screen = _placed(model, known, device, neighbours, rate, len(apart), kept(known))
        bar.advance(1)
        ordinary = _signals(model, screen, compared, device, kept(compared))
        center, width = _scale(ordinary)
        bar.advance(1)
        changed, touched = damaged(compared, seed)
        left = np.flatnonzero(touched & changed.present.any(1).numpy()).tolist()
        harmed = _signals(model, screen, changed.subset(left), device, {})
        z = [np.nan_to_num(np.arcsinh((signals - center) / width)) for signals in (ordinary, harmed)]
        weights, bias = _regression(*z)
        bar.advance(1)
        for name, value in (("center", center), ("width", width), ("weights", weights), ("bias", bias)):
            getattr(screen, name).copy_(torch.as_tensor(value))
        empty = torch.zeros(())
        logits, _ = run(
            model, apart, device, lambda *of: screen.logits(Trace.of(model, *of)), empty, sources=kept(apart)
        )
        screen.threshold.copy_(torch.as_tensor(threshold_of(logits.numpy(), rate)))
        bar.advance(1)
    return screen


def _in_time(
    model: Model, learned: Rows, apart: Rows, device: torch.device, rate: float, deadline: float
) -> tuple[Rows, Rows]:
    """Return as many of some rows, in an order drawn at random, as there is time to ask the model about."""
    if deadline == math.inf:
        return learned, apart
    some = learned.subset(range(min(_PROBED, len(learned))))
    seconds = []
    for _ in range(2):  # the first time, kernels are compiled
        begun = time.monotonic()
        run(model, some, device, lambda *of: Trace.of(model, *of).disagreement, torch.zeros(()))
        seconds.append((time.monotonic() - begun) / len(some))
    asked = len(learned) + len(apart) + min(_COMPARED, len(learned) // 3)  # what is compared is asked damaged too
    share = min(1.0, (deadline - time.monotonic()) / max(min(seconds) * asked, 1e-9))
    fewest = min(len(learned), 3 * _LEAST), _needed(rate)
    compared, kept = (
        rows.subset(range(max(least, round(share * len(rows)))))
        for rows, least in zip((learned, apart), fewest, strict=True)
    )
    return compared, kept


def fit_halves(model: Model, rows: Rows, device: torch.device, **options: Any) -> Screen:
    """Fit a screen on rows that the model has not learned from: a third of them gives the threshold.

    Options are those of `fit_screen`.

    Raises:
        InputError: there are too few rows, or the task is none that can be screened.
    """
    check_task(model.head.task)
    check_room(len(rows) // 3, options["rate"])
    learned, apart = split(rows.answers, rows.schema.target.asked, share=1 / 3, seed=options["seed"])
    return fit_screen(model, rows.subset(learned.tolist()), rows.subset(apart.tolist()), device, **options)


def damaged(rows: Rows, seed: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Return rows damaged as the world damages them, and which of them were: (rows,) bool.

    Of each row one of its modalities is drawn, and each other one with a chance of a half; for each of these a
    corruption, with a severity from 3 to 5.

    Args:
        rows: that stay as they are.
        seed: of all random numbers.
    """
    random = np.random.default_rng(seed)
    kinds = {name: corruptions_for(rows.schema.of(name)) for name in rows.schema.modalities}
    dealt: dict[tuple[str, str, int], list[int]] = {}
    for row, here in enumerate(rows.present.tolist()):
        names = [name for name, there in zip(kinds, here, strict=True) if there and kinds[name]]
        first = int(random.integers(len(names))) if names else 0
        for at, name in enumerate(names):
            if at == first or random.random() < 0.5:
                kind = kinds[name][int(random.integers(len(kinds[name])))]
                dealt.setdefault((name, kind, int(random.choice(_SEVERITIES))), []).append(row)
    changed: dict[tuple[str, int], Any] = {}
    for (name, kind, severity), chosen in dealt.items():
        after = corrupted(rows.subset(chosen), name, kind, severity, seed)
        for column in rows.schema.modalities[name]:
            for at, row in enumerate(chosen):
                before, now = rows.cell(column, row), after.cell(column, at)
                if now is not before and not (isinstance(now, str | float) and now == before):
                    changed[column, row] = now
    touched = np.zeros(len(rows), dtype=bool)
    touched[sorted({row for _, row in changed})] = True
    return rows.replaced(changed), touched


def _place(rows: int, rate: float) -> int:
    """Return which of some logits in order is the threshold, from 1; beyond the last where they are too few."""
    return math.ceil((rows + 1) * (1 - rate) - 1e-9)


def _needed(rate: float) -> int:
    """Return how many rows kept apart a rate needs at least."""
    return math.ceil(1 / rate - 1e-9) - 1


def _present(rows: Rows) -> Rows:
    return rows.subset(rows.present.any(1).nonzero().squeeze(1).tolist())


def _drawn(rows: Rows, most: int, random: np.random.Generator) -> Rows:
    """Return rows in an order drawn at random, at most so many."""
    return rows.subset(random.permutation(len(rows))[:most].tolist())


def _placed(
    model: Model,
    rows: Rows,
    device: torch.device,
    neighbours: int,
    rate: float,
    apart: int,
    sources: Mapping[str, Source],
) -> Screen:
    """Return a screen that knows where some rows are, and nothing more."""
    widths = spaces_of(model)

    def views(inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        seen = Trace.of(model, inputs, present, texts)
        marked = [
            vector.masked_fill(~there[:, None], torch.nan)
            for vector, there in zip(seen.vectors, seen.there.T, strict=True)
        ]
        return torch.cat([*marked, seen.disagreement[:, None]], 1)  # the last so that there is something always

    every, _ = run(model, rows, device, views, torch.zeros(sum(widths.values()) + 1), sources=sources)
    groups = torch.zeros(len(rows), dtype=torch.long)
    if model.head.task == "classification":
        groups = model.head.encode(rows.answers)
    found = {}
    for name, vectors in zip(widths, torch.split(every[:, :-1], list(widths.values()), 1), strict=True):
        there = ~vectors.isnan().any(1)
        if bool(there.any()):
            found[name] = _statistics(F.normalize(vectors[there], dim=1), groups[there])
        else:  # nothing is known of it: every row is as near as any other
            found[name] = (
                torch.zeros(1, widths[name]),
                torch.zeros(widths[name], widths[name]),
                torch.zeros(1, widths[name]),
            )
    shapes = {
        name: Shape(dim=widths[name], groups=len(means), bank=len(bank)) for name, (means, _, bank) in found.items()
    }
    screen = Screen(model.head.task, shapes, neighbours=neighbours, rate=rate, rows=apart).to(device)
    for space, tensors in zip(screen.spaces, found.values(), strict=True):
        assert isinstance(space, Space)
        for buffer, value in zip((space.means, space.precision, space.bank), tensors, strict=True):
            buffer.copy_(value)
    return screen


def _statistics(u: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of each class that occurs, the inverse of the shrunk covariance within them, and the rows.

    Shrunk towards a multiple of the identity, by as much as Ledoit & Wolf (2004) find best.
    """
    from sklearn.covariance import ledoit_wolf

    codes, place = np.unique(groups.numpy(), return_inverse=True)
    means = torch.stack([u[torch.from_numpy(place == code)].mean(0) for code in range(len(codes))])
    within = (u - means[torch.from_numpy(place)]).double().numpy()
    covariance, _ = ledoit_wolf(within, assume_centered=True)
    # Rows that are all alike leave nothing to divide by.
    floor = 1e-8 + 1e-6 * float(np.trace(covariance)) / len(covariance)
    precision = np.linalg.inv(covariance + floor * np.eye(len(covariance)))
    return means, torch.from_numpy(precision).float(), u


def _signals(
    model: Model, screen: Screen, rows: Rows, device: torch.device, sources: Mapping[str, Source]
) -> NDArray[np.float64]:
    empty = torch.zeros(len(screen.signal_names))
    found, _ = run(model, rows, device, lambda *of: screen.signals(Trace.of(model, *of)), empty, sources=sources)
    values: NDArray[np.float64] = found.double().numpy()
    return values


def _scale(signals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each signal, without the rows where there is nothing to measure.

    What is the same in all ordinary rows has no unit to tell others by, and no end to its width.
    """
    known = ~np.isnan(signals)
    count = known.sum(0).clip(1)
    center = np.where(known, signals, 0).sum(0) / count
    width = np.sqrt((np.where(known, signals - center, 0) ** 2).sum(0) / count)
    return center, np.where(width > 1e-6 * (1 + np.abs(center)), width, np.inf)


def _regression(ordinary: NDArray[np.float64], harmed: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return w ≥ 0 and b of a ridge-regularised logistic regression in which both sides weigh the same.

    No signal may speak for a row: an adversary would raise it. Where no corruption can damage anything, all signals
    count the same.
    """
    from scipy.optimize import minimize

    count = ordinary.shape[1]
    if not len(harmed):
        return np.full(count, 1 / count), 0.0
    x = np.concatenate([ordinary, harmed])
    sign = np.repeat([-1.0, 1.0], [len(ordinary), len(harmed)])
    share = np.where(sign < 0, 0.5 / len(ordinary), 0.5 / len(harmed))

    def loss(of: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (x @ of[:-1] + of[-1])
        slope = -share * sign / (1 + np.exp(margin.clip(-500, 500)))
        value = share @ np.logaddexp(0, -margin) + _RIDGE / 2 * of[:-1] @ of[:-1]
        return float(value), np.append(slope @ x + _RIDGE * of[:-1], slope.sum())

    bounds = [(0.0, None)] * count + [(None, None)]
    found = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:-1], float(found[-1])
