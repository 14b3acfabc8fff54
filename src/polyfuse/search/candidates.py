"""What is compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError, nearest
from polyfuse.data.schema import Schema
from polyfuse.ensemble import is_table
from polyfuse.fusion import FUSIONS
from polyfuse.learners import LEARNERS
from polyfuse.recipe.building import member_name, text_modalities
from polyfuse.recipe.component import Component
from polyfuse.recipe.ways import MemberSpec
from polyfuse.search.material import TOKENS

#: Candidates that are no single component: each modality alone, and the statistics of a text's words alone.
ALONE, WORDS = "alone", "words"
_OF_ONE = ("concat", "deep")  # with one modality, the others are these over again
_MOST_LABELS = 100  # boosting grows a tree for each label in each round


def names() -> list[str]:
    """Return the names of all candidates: what matters most where time is short comes first.

    What is slow comes last, the slowest of it first: side by side they end together.
    """
    fusions = [name for name in FUSIONS if FUSIONS[name].needs == "pooled"]
    return [
        "linear",
        WORDS,
        ALONE,
        *(name for name in LEARNERS if name != "linear"),
        *fusions,
        *(name for name in reversed(list(FUSIONS)) if name not in fusions),
    ]


def applying(schema: Schema) -> list[str]:
    """Return the names of the fusions and learners that are worth a try on a table, the quickest first."""
    found = [name for name in names() if name in FUSIONS or name in LEARNERS]
    if len(schema.modalities) == 1:
        found = [name for name in found if name not in FUSIONS or name in _OF_ONE]
    labels = sum(len(target.levels) for target in schema.target.each())
    return found if labels <= _MOST_LABELS else [name for name in found if name != "boosting"]


def check_names(chosen: Collection[str] | None) -> None:
    """Check names of candidates.

    Raises:
        InputError: there is no candidate of a name, or none is named.
    """
    if chosen is not None and not chosen:
        raise InputError("fusion.candidates: name at least one, or leave it out to compare everything")
    for name in chosen or ():
        if name not in names():
            raise InputError(f"fusion.candidates: there is no {name!r}; {nearest(name, names())}")


def candidates(chosen: Collection[str] | None, schema: Schema, encoders: Mapping[str, Encoder]) -> list[MemberSpec]:
    """Return what is compared, in the order of `names`.

    Args:
        chosen: names of candidates; all when None.
        schema: of the table.
        encoders: by modality.

    Raises:
        InputError: there is no candidate of a name.
    """
    known = names()
    check_names(chosen)
    chosen = (WORDS, ALONE, *applying(schema)) if chosen is None else chosen
    wanted = [name for name in known if name in chosen]
    texts = text_modalities(schema)
    found: list[MemberSpec] = []
    for name in wanted:
        if name == WORDS:
            found += [_spec("linear", [text], ["words"], schema) for text in texts]
        elif name == ALONE:
            found += _each_alone(schema, encoders, texts)
        else:
            options = {"most_tokens": TOKENS} if name in FUSIONS and "most_tokens" in FUSIONS.options(name) else {}
            found.append(MemberSpec(combine=Component.model_validate({"name": name, **options})))
    return found


def reading_only(modalities: Sequence[str], specs: Sequence[MemberSpec], schema: Schema) -> list[MemberSpec]:
    """Return what else reads only some modalities: the simpler candidates, as there would be if there were no others.

    Args:
        modalities: in the schema's order.
        specs: all candidates so far.
        schema: of the table.
    """
    if not 0 < len(modalities) < len(schema.modalities):
        return []
    known = [spec.combine.name for spec in specs if spec.modalities is None]
    found = [_spec(n, list(modalities), None, schema) for n in known if n in LEARNERS or n in _OF_ONE]
    return [spec for spec in found if spec not in specs]


def label(spec: MemberSpec, schema: Schema) -> str:
    """Say what a candidate is."""
    return member_name(spec, schema)


def _each_alone(schema: Schema, encoders: Mapping[str, Encoder], texts: Sequence[str]) -> list[MemberSpec]:
    """Return the best simple model of each modality alone: the floor that a combination has to be above."""
    found = []
    for name in schema.modalities:
        table = is_table(encoders[name])
        if len(schema.modalities) == 1 and name not in texts:
            continue  # alone it is what the learners see anyway
        parts = ["features"] if name in texts else None
        # What an encoder at rest says is learned from as well by a line; columns are not.
        kinds = ("boosting", "linear", "concat") if table else ("linear",)
        found += [_spec(kind, [name], parts, schema) for kind in kinds]
    return found


def _spec(name: str, modalities: list[str] | None, parts: Any, schema: Schema) -> MemberSpec:
    whole = modalities is not None and len(modalities) == len(schema.modalities)
    return MemberSpec(combine=Component(name=name), modalities=None if whole else modalities, parts=parts)
