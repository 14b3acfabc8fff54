"""Ways to combine that are no single fusion: one is found, or several are averaged."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field, model_validator

from polyfuse.core.registry import Registry
from polyfuse.data.schema import Strict
from polyfuse.recipe.component import Component
from polyfuse.training.settings import Duration

Folds = Annotated[int, Ge(2), Le(50)]
Repeats = Annotated[int, Ge(1), Le(50)]
Part = Literal["features", "words"]


class MemberSpec(Strict):
    """One model of an ensemble.

    Attributes:
        combine: a fusion or a learner, with its options.
        weight: share in the mean, relative to the others.
        modalities: that it reads; all when left out.
        parts: of a learner, what it reads of a modality: its "features" (and columns), the statistics of its "words".
        tuned: whether the encoders that the recipe tunes were trained together with it; else it reads them as they are.
    """

    combine: Component
    weight: float = Field(1.0, gt=0, le=1e6)
    modalities: list[str] | None = Field(None, min_length=1)
    parts: list[Part] | None = Field(None, min_length=1)
    tuned: bool = False

    @model_validator(mode="after")
    def _whole(self) -> MemberSpec:
        if self.tuned and self.modalities is not None:
            raise ValueError("a member that is tuned reads all modalities: leave modalities out, or tuned")
        return self

    def as_data(self) -> dict[str, object]:
        """Return JSON values, what is not set left out."""
        data = self.model_dump(mode="json", exclude_defaults=True, exclude={"combine"})
        return {"combine": self.combine.as_data(), **data}


class AutoWay:
    """The best way to combine, found by cross-validation on cached Features.

    Compared are every fusion, a `linear` and a `boosting` learner, each modality `alone` (a table by both learners and
    a concatenation), and the statistics of a text's `words` alone. The best comes out, or an ensemble of several
    (Caruana et al. 2004) where that is better beyond chance. Where an encoder has to learn from the rows first, all
    are compared on the rows kept aside; unless one that reads such an encoder is better there by a standard error, the
    others are chosen from by folds over all rows, and it is not read at all.

    Args:
        candidates: what is compared, by these names; everything when left out.
        folds: parts that the rows are dealt out to; each candidate is measured on rows that it has not seen.
        repeats: times that they are dealt anew.
        ensemble: whether several may be averaged.
        seconds: that the comparison may take, or "30s", "5m"; half of what the encoders need for these rows when left
            out, and at least 10 (20 where candidates are compared one by one, on a GPU or one core). Candidates that
            are behind beyond chance are dropped on the way.
    """

    def __init__(
        self,
        *,
        candidates: list[str] | None = None,
        folds: Folds = 5,
        repeats: Repeats = 1,
        ensemble: bool = True,
        seconds: Duration | None = None,
    ) -> None:
        self.candidates, self.folds, self.repeats = candidates, folds, repeats
        self.ensemble, self.seconds = ensemble, seconds


class EnsembleWay:
    """The weighted mean of what several models say; what `auto` may find, written down.

    Args:
        members: each with `combine` (a fusion or a learner) and `weight`; see the recipe of a fitted ensemble.
    """

    def __init__(self, *, members: list[MemberSpec] = []) -> None:  # noqa: B006
        total = sum(member.weight for member in members)
        self.members = [member.model_copy(update={"weight": member.weight / total}) for member in members]


WAYS: Registry[object] = Registry(
    "ways", {"auto": "polyfuse.recipe.ways:AutoWay", "ensemble": "polyfuse.recipe.ways:EnsembleWay"}
)
