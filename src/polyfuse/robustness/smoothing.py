"""Randomised smoothing: a radius within which no change whatever can turn an answer.

The smoothed model answers what the model answers most often at x + ε, ε ~ N(0, σ²). Where that has a probability of at
least p > 1/2, no change of x shorter than σ Φ⁻¹(p) turns it. With noise of its own on each of several inputs, the model
is one of x_m / σ_m, laid side by side: the answer stands as long as √(Σ_m ‖δ_m‖² / σ_m²) < Φ⁻¹(p).

Source: Cohen, Rosenfeld & Kolter 2019, Certified Adversarial Robustness via Randomized Smoothing,
https://arxiv.org/abs/1902.02918.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from polyfuse.attacks.noise import UNITS, check_noise, noisy
from polyfuse.attacks.problem import Point
from polyfuse.attacks.threat import Seam
from polyfuse.core.errors import InputError
from polyfuse.core.files import strict_json, written
from polyfuse.core.progress import Progress, Silent
from polyfuse.data.rows import Rows
from polyfuse.data.schema import Schema
from polyfuse.inference import score
from polyfuse.metrics.bootstrap import Interval
from polyfuse.metrics.metric import Array
from polyfuse.model import Model
from polyfuse.robustness.report import aligned
from polyfuse.robustness.scene import Scene

FORMAT = 1
_CHUNK = 128  # draws that go through the model together
_STEP = 0.25  # between the radii of the curve, in standard deviations


@dataclass(frozen=True)
class Smoothing:
    """The noise, and how well its effect is known.

    Attributes:
        noise: σ by modality, in the unit of its continuous input.
        samples: n, draws that bound the probability of the answer.
        selection: n₀, other draws that choose the answer.
        alpha: probability, for each row, that its certificate is wrong.

    Raises:
        InputError: there is no noise, or a number does not fit.
    """

    noise: Mapping[str, float]
    samples: int = 1000
    selection: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not self.noise:
            raise InputError('certify: no noise given; say on what, and how much of it, e.g. {"image": 0.25}')
        if not 0 < self.alpha < 1:
            raise InputError(f"certify: alpha {self.alpha!r} given; it is a probability between 0 and 1, e.g. 0.001")
        if self.selection < 1:
            raise InputError(f"certify: selection {self.selection!r} given; the answer is chosen from 1 draw or more")
        needed = math.floor(math.log(self.alpha) / math.log(0.5)) + 1
        if self.samples < needed:
            raise InputError(
                f"certify: {self.samples!r} samples given: at alpha {self.alpha:g} not even as many equal answers"
                f" certify anything; take at least {needed}, and 1000 or more for radii of use"
            )

    def checked(self, model: Model, schema: Schema) -> Self:
        """Return itself, where the model can be smoothed so.

        Raises:
            InputError: the task is no classification, or noise cannot be added where it was asked for.
        """
        if model.head.task != "classification":
            raise InputError(
                f"certify: the model answers {model.head.task}, and a certificate is of one label that stays the most"
                " likely; fit a model of one target with the task classification"
            )
        check_noise(self.noise, schema, model.encoder, "certify")
        return self

    @property
    def farthest(self) -> float:
        """The radius where all draws agree, in standard deviations: no certificate goes beyond it."""
        return _quantile(self.alpha ** (1 / self.samples))


@dataclass(frozen=True)
class Certificate:
    """What is known of the smoothed answer of one row.

    Attributes:
        label: number of the answer; None where it abstains, for no answer is sure to be the most likely.
        bound: that the probability of the label chosen is at least, with confidence 1 - α.
    """

    label: int | None
    bound: float

    @property
    def radius(self) -> float:
        """Φ⁻¹(bound), in standard deviations of the noise; 0 where it abstains."""
        return 0.0 if self.label is None else _quantile(self.bound)


def lower_bound(hits: int, draws: int, alpha: float) -> float:
    """Return the one-sided lower bound of Clopper & Pearson (1934) on a probability, with confidence 1 - α at least.

    >>> round(lower_bound(990, 1000, 0.001), 4)
    0.976
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, hits, draws - hits + 1)) if hits else 0.0


def certified(count: Callable[[int], Array], smoothing: Smoothing) -> Certificate:
    """Certify one row: CERTIFY of Cohen et al. 2019.

    Args:
        count: from a number of draws to how often each label was answered (labels,), anew at each call.
        smoothing: how many draws, and α.
    """
    label = int(count(smoothing.selection).argmax())
    # Other draws than those that chose the label, which flatter it.
    bound = lower_bound(int(count(smoothing.samples)[label]), smoothing.samples, smoothing.alpha)
    return Certificate(label if bound > 0.5 else None, bound)


@torch.no_grad()
def counted(
    outputs: Callable[[Point], Tensor],
    seams: Mapping[str, Seam],
    noise: Mapping[str, float],
    draws: int,
    random: torch.Generator,
) -> Array:
    """Return how often each label is answered at draws of x + ε, (labels,) int64.

    Args:
        outputs: from continuous inputs (draws, …) to logits (draws, labels).
        seams: x of one row. What of it is padding or absent stays, so the length is a given: a certificate is of
            changes that leave it.
        noise: σ by modality.
        draws: in all; memory does not grow with them.
        random: on the device of the seams.
    """
    total: Tensor | int = 0
    for start in range(0, draws, _CHUNK):
        some = min(_CHUNK, draws - start)
        output = outputs({name: noisy(seam, noise[name], random, some) for name, seam in seams.items()})
        total = total + torch.bincount(output.argmax(1), minlength=output.shape[1])
    assert isinstance(total, Tensor)
    counts: Array = total.cpu().numpy()
    return counts


@dataclass(frozen=True, eq=False)
class CertificateReport:
    """How a smoothed model answers, and within which radius of each row nothing can change that.

    Attributes:
        target: name of the column that was asked for.
        rows: number of rows.
        smoothing: noise, draws and α.
        units: of each modality with noise, in words.
        unchanged: columns without noise: a certificate holds as long as they stay what they are.
        plain: accuracy of the model itself, without noise.
        abstained: share of rows without an answer; they count as wrong.
        curve: radius, in standard deviations, to the share of rows answered rightly and certified so far out; at 0 the
            accuracy of the smoothed model. All intervals are of 95 %, after Clopper & Pearson.
        frame: for each row `answer` (missing where it abstains), `truth`, `bound` on the answer's probability, `radius`
            in standard deviations, and `radius:MODALITY` in the modality's own unit where it alone is changed.
        seconds: that it took.
    """

    target: str
    rows: int
    smoothing: Smoothing
    units: dict[str, str]
    unchanged: list[str]
    plain: Interval
    abstained: float
    curve: dict[float, Interval]
    frame: pd.DataFrame
    seconds: float

    @property
    def smoothed(self) -> Interval:
        """Accuracy of the smoothed model, abstentions counted as wrong."""
        return self.curve[0.0]

    def __str__(self) -> str:
        how, names = self.smoothing, list(self.units)
        noise = [f"{name}: noise of σ = {how.noise[name]:g}, {unit}" for name, unit in self.units.items()]
        together = ", where √(Σ ‖δ‖² / σ²) is the joint radius" if len(names) > 1 else ""
        fixed = f", and as long as {', '.join(self.unchanged)} stay as they are" if self.unchanged else ""
        lines = [("radius in σ", *(f"{name} alone" for name in names), "certified", "95 % interval")]
        lines += [
            (
                f"{radius:.2f}",
                *(f"{radius * how.noise[name]:.4g}" for name in names),
                f"{at.value:.4f}",
                f"{at.low:.4f} to {at.high:.4f}",
            )
            for radius, at in self.curve.items()
        ]
        return "\n".join(
            [
                f"classification of {self.target!r} on {self.rows} rows, smoothed, in {self.seconds:.1f} s",
                *noise,
                f"answers chosen from {how.selection} draws, certified by {how.samples} others; each certificate holds"
                f" with confidence {1 - how.alpha:g} (α = {how.alpha:g}) for inputs as the encoders read them (L2)"
                f"{together}{fixed}",
                "",
                f"accuracy without noise {self.plain}, smoothed {self.smoothed}; {self.abstained:.1%} of the rows"
                " abstained, counted as wrong",
                "",
                *aligned(lines),
            ]
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """Return strict JSON, written to `path` where one is given."""
        table = self.frame.astype(object).where(self.frame.notna(), None)
        certificates = [{"row": row, **line} for row, line in zip(table.index, table.to_dict("records"), strict=True)]
        document = {"format": FORMAT, **asdict(replace(self, frame=pd.DataFrame())), "smoothed": asdict(self.smoothed)}
        return written(strict_json({**document, "frame": certificates}), path)


def certify_model(
    model: Model,
    rows: Rows,
    device: torch.device,
    smoothing: Smoothing,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> CertificateReport:
    """Certify rows, one after another.

    Args:
        model: on the device.
        rows: with answers.
        device: where the model is.
        smoothing: that the model has been checked for.
        seed: of all random numbers; those of a row do not depend on which others there are.
        progress: shows how far it is.
    """
    begun = time.monotonic()
    model.eval()
    head, schema, noise = model.head, rows.schema, smoothing.noise
    truth = head.encode(rows.answers).numpy()
    plain, _ = score(model, rows, device)
    found = []
    with (progress or Silent()).bar("Certifying", len(rows)) as bar:
        for row in range(len(rows)):
            random = torch.Generator(device)
            random.manual_seed((seed * 1_000_003 + int(rows.positions[row])) % 2**63)
            found.append(_certified(Scene.of(model, rows.subset([row]), list(noise), device), smoothing, random))
            bar.advance(1)
    radii = np.array([certificate.radius for certificate in found])
    right = np.array([certificate.label == label for certificate, label in zip(found, truth.tolist(), strict=True)])
    levels = schema.target.levels
    frame = pd.DataFrame(
        {
            "answer": pd.Series([None if one.label is None else levels[one.label] for one in found], dtype=object),
            "truth": pd.Series(rows.answers, dtype=object),
            "bound": [one.bound for one in found],
            "radius": radii,
            **{f"radius:{name}": radii * deviation for name, deviation in noise.items()},
        }
    ).set_axis(rows.index, axis=0)
    steps = np.arange(0.0, smoothing.farthest, _STEP).tolist()
    return CertificateReport(
        target=schema.target.name,
        rows=len(rows),
        smoothing=smoothing,
        units={name: _unit(schema, name) for name in noise},
        unchanged=_unchanged(schema, noise),
        plain=_share(plain.argmax(1).numpy() == truth),
        abstained=float(np.mean([one.label is None for one in found])),
        curve={radius: _share(right & (radii >= radius)) for radius in steps},
        frame=frame,
        seconds=time.monotonic() - begun,
    )


def _certified(scene: Scene, smoothing: Smoothing, random: torch.Generator) -> Certificate:
    """Certify the only row of a scene."""
    seams = {name: scene.seam(name) for name in smoothing.noise}

    def outputs(x: Point) -> Tensor:
        draws = len(next(iter(x.values())))
        return scene.outputs(x, torch.zeros(draws, dtype=torch.long, device=scene.present.device))

    return certified(lambda draws: counted(outputs, seams, smoothing.noise, draws, random), smoothing)


def _quantile(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))


def _share(hits: Array) -> Interval:
    """Return a share with its interval of 95 %."""
    from scipy.stats import binomtest

    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="exact")
    return Interval(float(hits.mean()), float(interval.low), float(interval.high))


def _unit(schema: Schema, name: str) -> str:
    return "; ".join(dict.fromkeys(UNITS[column.type] for column in schema.of(name) if column.type in UNITS))


def _unchanged(schema: Schema, noise: Mapping[str, float]) -> list[str]:
    return [
        column.name
        for name in schema.modalities
        for column in schema.of(name)
        if name not in noise or column.type not in UNITS
    ]
