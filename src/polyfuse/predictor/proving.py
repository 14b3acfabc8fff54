"""How a model stands attacks, damage and noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polyfuse.core.progress import Progress
from polyfuse.data.rows import Rows
from polyfuse.predictor.holding import Holder
from polyfuse.progress import make_progress

if TYPE_CHECKING:
    from polyfuse.robustness import AttackReport, CertificateReport, DetectionReport, StressReport


class Proving(Holder):
    """Attacks, stresses, certifies, and measures its screen."""

    def attack(
        self,
        data: Any,
        *,
        modalities: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        absent: Collection[str] = (),
        towards: Any = None,
        attack: str = "ensemble",
        options: Mapping[str, Any] | None = None,
        factors: Sequence[float] = (),
        rows: int | None = None,
        seed: int = 0,
        examples: str | Path | None = None,
        checked: bool = True,
        progress: bool | Progress | None = None,
    ) -> AttackReport:
        """Search for inputs near those of a table that the model answers worst, in every subset of the modalities.

        Args:
            data: as for `evaluate`.
            modalities: that the adversary may change; when left out those with a budget, else all that it can. None is
                changed where the list is empty and some may be taken away.
            budgets: by modality, what may change and by how much: "linf:8/255", {"name": "snr", "decibels": 20}.
            absent: modalities that the adversary may take away, of which one stays in each row.
            towards: the label that the adversary wants to be answered, in rows of other labels; anything wrong, when
                left out.
            attack: name of the search; `polyfuse info` lists them.
            options: of the search.
            factors: on all radii, for each of which the worst case is measured too.
            rows: at most so many, drawn at random.
            seed: of all random numbers.
            examples: a folder for rows whose answer was changed, to look at and to listen to; it must not exist yet.
            checked: whether a few rows are attacked in other ways too, to see whether the figures can be believed.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: the folder exists, a modality, a budget or an attack is unknown, or cannot act here.
        """
        from polyfuse.robustness import attack_model, threats_of

        model = self._need_model().model
        threats = threats_of(model, self.schema, modalities, budgets or {}, absent)
        shown = make_progress(progress)
        given = _some(self._rows_to_measure(data, shown), rows, seed)
        folder = Path(examples) if examples is not None else None
        searched: dict[str, Any] = {
            "absent": absent,
            "towards": towards,
            "factors": factors,
            "seed": seed,
            "examples": folder,
        }
        return attack_model(
            model, given, self._device, threats, attack, options, checked=checked, progress=shown, **searched
        )

    def detect(
        self,
        data: Any,
        *,
        modalities: Sequence[str] | None = None,
        budgets: Mapping[str, Any] | None = None,
        attack: str = "ensemble",
        options: Mapping[str, Any] | None = None,
        rows: int | None = None,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> DetectionReport:
        """Measure the screen: on damaged rows, under an attack, and under one by an adversary who knows the screen.

        Args:
            data: as for `evaluate`; rows that neither the model nor its screen has learned from.
            modalities: as for `attack`.
            budgets: as for `attack`.
            attack: name of the search.
            options: of the search.
            rows: at most so many, drawn at random.
            seed: of all random numbers.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: there is no screen, the task has no wrong answers, or the attack is wrong as in `attack`.
        """
        from polyfuse.robustness import detect, threats_of

        model, screen, shown = self._need_model().model, self._need_screen(), make_progress(progress)
        threats = threats_of(model, self.schema, modalities, budgets or {})
        given = _some(self._rows_to_measure(data, shown), rows, seed)
        return detect(model, screen, given, self._device, threats, attack, options, seed=seed, progress=shown)

    def stress(
        self,
        data: Any,
        *,
        modalities: Sequence[str] | None = None,
        severities: Sequence[int] = (1, 2, 3, 4, 5),
        seeds: int = 3,
        references: Mapping[str, Holder] | None = None,
        rows: int | None = None,
        progress: bool | Progress | None = None,
    ) -> StressReport:
        """Measure the model where modalities are missing, and where values are damaged as the world damages them.

        Args:
            data: as for `evaluate`.
            modalities: whose values are damaged; all when left out.
            severities: of the damage, from 1, barely noticeable, to 5, heavy.
            seeds: of what is random; figures are means over them.
            references: other predictors of the same column, which are measured beside it; see `references`.
            rows: at most so many, drawn at random.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: a modality or a severity is unknown, or the model has several targets.
        """
        from polyfuse.robustness import stress

        model, shown = self._need_model().model, make_progress(progress)
        given = _some(self._rows_to_measure(data, shown), rows, 0)
        others = {name: (other.model, other.schema) for name, other in (references or {}).items()}
        chosen: dict[str, Any] = {"modalities": modalities, "severities": severities, "seeds": seeds}
        return stress(model, given, self._device, **chosen, references=others, progress=shown)

    def certify(
        self,
        data: Any,
        noise: Mapping[str, float],
        *,
        samples: int = 1000,
        selection: int = 100,
        alpha: float = 0.001,
        rows: int | None = None,
        seed: int = 0,
        progress: bool | Progress | None = None,
    ) -> CertificateReport:
        """Smooth the model by noise, and find for each row a radius within which nothing can change its answer.

        Train with the same noise (`training={"noise": …}`), or a model that never saw any answers little.

        Args:
            data: as for `evaluate`.
            noise: standard deviation by modality, in the unit of its continuous input: {"image": 0.25}, in pixels from
                0 to 1. A larger one reaches further and answers less well.
            samples: draws that certify an answer; the radius cannot exceed what so many can tell.
            selection: other draws that choose it.
            alpha: probability, for each row, that its certificate is wrong.
            rows: at most so many, drawn at random.
            seed: of all random numbers.
            progress: whether bars are shown.

        Raises:
            DataError: with every problem found in the table.
            InputError: the task is no classification, a number does not fit, or a modality is unknown or has no
                continuous input.
        """
        from polyfuse.robustness import Smoothing, certify_model

        model, shown = self._need_model().model, make_progress(progress)
        smoothing = Smoothing(noise, samples, selection, alpha).checked(model, self.schema)
        given = _some(self._rows_to_measure(data, shown), rows, seed)
        return certify_model(model, given, self._device, smoothing, seed=seed, progress=shown)


def _some(rows: Rows, most: int | None, seed: int) -> Rows:
    """Return at most so many rows, drawn at random."""
    if most is None or most >= len(rows):
        return rows
    return rows.subset(sorted(np.random.default_rng(seed).choice(len(rows), most, replace=False).tolist()))
