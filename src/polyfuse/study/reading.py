"""What a user says about a search: where it looks, and what stays as it is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_origin

from pydantic import TypeAdapter, ValidationError

from polyfuse.core.errors import InputError
from polyfuse.study.domains import Choices, Domain, Integers, Kind, Reals, Value, domain_of, doubling

_WIDE = 100.0  # ratio of the ends beyond which the logarithm is drawn


@dataclass(frozen=True)
class Range:
    """From one number to another, both included."""

    low: int | float
    high: int | float


Given: TypeAlias = Range | tuple[Value, ...]
#: Where a search looks, as it may be given: by key, "1e-4..1e-2", "concat,gated", (1e-4, 1e-2) or ["concat", "gated"];
#: or the command line's KEY=VALUE.
Spaces: TypeAlias = Mapping[str, Any] | Iterable[str]


def read_spaces(given: Spaces | None) -> dict[str, Given]:
    """Read where a search is to look.

    >>> read_spaces({"fusion": ["concat", "gated"], "training.learning_rate": (1e-4, 1e-2)})
    {'fusion': ('concat', 'gated'), 'training.learning_rate': Range(low=0.0001, high=0.01)}

    Raises:
        InputError: it cannot be read, or says something of a key twice.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {key: _read_value(key, value) for key, value in given.items()}
    found: dict[str, Given] = {}
    for text in [given] if isinstance(given, str) else given:
        key, value = read_space(text)
        if key in found:
            raise InputError(f"--space {key} is given twice; write all of it as one, e.g. {key}=a,b")
        found[key] = value
    return found


def read_space(text: str) -> tuple[str, Given]:
    """Read KEY=VALUE, where VALUE is a range or a list.

    >>> read_space("fusion=concat,gated")
    ('fusion', ('concat', 'gated'))
    >>> read_space("training.learning_rate=1e-4..1e-2")
    ('training.learning_rate', Range(low=0.0001, high=0.01))
    >>> read_space("fusion.depth=1..3")
    ('fusion.depth', Range(low=1, high=3))
    >>> read_space("head.class_weights=balanced")
    ('head.class_weights', ('balanced',))

    Raises:
        InputError: it is neither.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise InputError(f"--space {text!r}: write KEY=LOW..HIGH or KEY=ONE,OTHER, e.g. fusion=concat,gated")
    return key.strip(), _read_value(key.strip(), value)


def set_keys(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the dotted keys of what was set: these are not searched.

    >>> sorted(set_keys({"training.epochs": 3, "fusion": {"name": "attention", "heads": 8}, "tuning": "lora"}))
    ['fusion', 'fusion.heads', 'training.epochs', 'tuning']
    """
    found: set[str] = set()
    for key, value in settings.items():
        data = value.as_data() if hasattr(value, "as_data") else value
        if isinstance(data, Mapping) and data:
            found |= set_keys({key if inner == "name" else f"{key}.{inner}": each for inner, each in data.items()})
        else:
            found.add(key.removesuffix(".name"))
    return frozenset(found)


def settled(given: Given, annotation: Any, default: Any, key: str) -> Domain:
    """Return what was given as a domain of an option.

    Args:
        given: a range, or values.
        annotation: of the option.
        default: of the option; tells whether its logarithm is drawn.
        key: of the option, for messages.

    Raises:
        InputError: the option cannot take these values.
    """
    kind = Kind.of(annotation)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    if isinstance(given, tuple):
        values = [_checked(adapter, value, key) for value in given]
        for value in values:
            if not isinstance(value, bool | int | float | str):
                raise InputError(f"--space {key}: {value!r:.80} is no single value; set it with --set instead")
        return Choices(tuple(dict.fromkeys(values)))
    if get_origin(kind.type) is Literal or kind.type not in (int, float):
        raise InputError(f"--space {key}: it takes no range; list the values to choose from, e.g. {key}=ONE,OTHER")
    low, high = (_checked(adapter, end, key) for end in (given.low, given.high))
    usual = domain_of(annotation, default)
    log = low > 0 and (high / low > _WIDE or (not isinstance(usual, Choices) and usual is not None and usual.log))
    if kind.type is float:
        return Reals(float(low), float(high), log)
    return doubling(low, high) if kind.doubled else Integers(low, high, log)


def _read_value(key: str, value: Any) -> Given:
    if isinstance(value, str):
        if ".." in value and "/" not in value:  # which would be a path
            return _range(key, [_scalar(end) for end in value.split("..")], value)
        parts = tuple(_scalar(part) for part in value.split(","))
        if "" in parts:
            raise InputError(f"--space {key}={value}: a value is missing between two commas")
        return parts
    if isinstance(value, tuple) and len(value) == 2 and all(_is_number(end) for end in value):
        return _range(key, value, str(value))
    if isinstance(value, Sequence) and value and all(isinstance(each, bool | int | float | str) for each in value):
        return tuple(value)
    raise InputError(
        f"space: {key}: {value!r:.80} given: it is a pair of numbers, a list of values, or a text such as '1e-4..1e-2'"
    )


def _range(key: str, ends: Sequence[Any], shown: str) -> Range:
    if len(ends) != 2 or not all(_is_number(end) for end in ends):
        raise InputError(f"--space {key}={shown}: a range goes from a number to a number, e.g. {key}=1e-4..1e-2")
    if not ends[0] < ends[1]:
        raise InputError(f"--space {key}={shown}: a range goes from the lesser number to the greater one")
    return Range(*ends)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scalar(text: str) -> Value:
    """Read one value: an integer, a number, true, false, or a text."""
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _checked(adapter: TypeAdapter[Any], value: Any, key: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        told = "; ".join(item["msg"] for item in error.errors()[:1])
        raise InputError(f"--space {key}: {value!r:.80} given: {told}") from error
