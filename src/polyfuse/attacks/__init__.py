"""Attacks: threat models, and searches for the worst input inside them, on any callable with bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from polyfuse.attacks.contract import Attack
from polyfuse.attacks.threat import Threat
from polyfuse.core.errors import InputError
from polyfuse.core.registry import Registry
from polyfuse.data.choosing import checked, readers
from polyfuse.data.schema import Column

THREATS: Registry[Threat] = Registry(
    "threats",
    {
        "linf": "polyfuse.attacks.threats:LinfThreat",
        "l2": "polyfuse.attacks.threats:L2Threat",
        "snr": "polyfuse.attacks.threats:SNRThreat",
        "patch": "polyfuse.attacks.threats:PatchThreat",
        "characters": "polyfuse.attacks.text:CharactersThreat",
        "words": "polyfuse.attacks.text:WordsThreat",
        "displace": "polyfuse.attacks.points:DisplaceThreat",
        "drop": "polyfuse.attacks.points:DropThreat",
        "add": "polyfuse.attacks.points:AddThreat",
        "ranges": "polyfuse.attacks.table:RangesThreat",
    },
)
ATTACKS: Registry[Attack] = Registry(
    "attacks",
    {
        "noise": "polyfuse.attacks.gradient:NoiseAttack",
        "fgsm": "polyfuse.attacks.gradient:FGSMAttack",
        "pgd": "polyfuse.attacks.gradient:PGDAttack",
        "apgd": "polyfuse.attacks.apgd:APGDAttack",
        "minimal": "polyfuse.attacks.minimal:MinimalAttack",
        "square": "polyfuse.attacks.square:SquareAttack",
        "ensemble": "polyfuse.attacks.ensemble:EnsembleAttack",
    },
)

#: A threat by its name, by "name:radius", by a mapping of its name and its options, or itself.
Choice: TypeAlias = str | Mapping[str, Any] | Threat

_DEFAULTS = {
    "image": "linf",
    "audio": "snr",
    "text": "characters",
    "points": "displace",
    "number": "ranges",
    "category": "ranges",
    "embedding": "l2",
}


def default_threat(columns: Sequence[Column]) -> str | None:
    """Return the name of the threat to a modality when none is chosen; None where there is none.

    >>> default_threat([Column(name="photo", type="image")])
    'linf'
    """
    return next((_DEFAULTS[column.type] for column in columns if column.type in _DEFAULTS), None)


def name_of(threat: Threat) -> str:
    """Return the name under which a threat is registered, or that of its class."""
    return next((name for name in THREATS if THREATS[name] is type(threat)), type(threat).__name__)


def build_threat(choice: Choice, modality: str, columns: Sequence[Column]) -> Threat:
    """Make the threat to a modality.

    >>> build_threat("linf:8/255", "photo", [Column(name="photo", type="image")]).options()
    {'radius': 0.03137254901960784}

    Raises:
        InputError: the name or an option is unknown, a value does not fit, or it changes nothing of the modality.
    """
    if isinstance(choice, Threat):
        return choice
    name, options = _read(choice, modality)
    options = checked(THREATS, name, options, f"budget of {modality!r}")
    if not any(column.type in THREATS[name].reads for column in columns):
        fitting = ", ".join(readers(THREATS, columns)) or "none"
        raise InputError(
            f"budget of {modality!r}: {name!r} changes {', '.join(sorted(THREATS[name].reads))}, and its columns are"
            f" {', '.join(column.type for column in columns)}; choose from {fitting}"
        )
    return THREATS.build(name, options, columns)


def build_attack(name: str, options: Mapping[str, Any]) -> Attack:
    """Make an attack.

    Raises:
        InputError: the name or an option is unknown, or a value does not fit.
    """
    return ATTACKS.build(name, checked(ATTACKS, name, options, "attack"))


def _read(choice: str | Mapping[str, Any], modality: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a threat and what is set of it."""
    if isinstance(choice, Mapping):
        options = dict(choice)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise InputError(f"budget of {modality!r}: {choice!r:.80} given; a mapping needs a name, e.g. linf")
        THREATS[name]
        return name, options
    name, colon, much = choice.partition(":")
    main = THREATS[name].main
    return name, {main: _fraction(much, modality)} if colon else {}


def _fraction(text: str, modality: str) -> float:
    """Return the number that a text says: 0.3, 8/255."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"budget of {modality!r}: {text!r} given; write a number or a fraction, e.g. linf:8/255"
        ) from error
