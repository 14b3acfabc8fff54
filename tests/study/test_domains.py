"""What an option is drawn from follows from its annotation, and lies within what the annotation allows."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, TypeAdapter, ValidationError

from polyfuse.core.errors import InputError
from polyfuse.core.options import AtMost, Count, Depth, Doubled, Heads, Rate, Share, Usual, Width
from polyfuse.core.registry import Registry
from polyfuse.recipe.reading import FAMILIES
from polyfuse.study.domains import Choices, Domain, Integers, Kind, Reals, domain_of, doubling
from polyfuse.study.reading import Range, read_space, read_spaces, set_keys, settled
from polyfuse.training.settings import TrainingSettings
from polyfuse.tuning.backbone import Decay

OPTIONS = [
    pytest.param(parameter.annotation, parameter.default, id=f"{name}.{option}")
    for registry in FAMILIES.values()
    for name in registry
    for option, parameter in registry.options(name).items()
] + [
    pytest.param(hint, TrainingSettings.model_fields[name].default, id=f"training.{name}")
    for name, hint in get_type_hints(TrainingSettings, include_extras=True).items()
    if name in TrainingSettings.model_fields
]


def samples(domain: Domain) -> list[Any]:
    if isinstance(domain, Choices):
        return list(domain.values)
    if isinstance(domain, Integers):
        return list(range(domain.low, domain.high + 1))
    return [domain.low, *np.random.default_rng(0).uniform(domain.low, domain.high, 20).tolist(), domain.high]


@pytest.mark.parametrize(("annotation", "default"), OPTIONS)
def test_all_that_may_be_drawn_of_any_option_is_allowed(annotation: Any, default: Any) -> None:
    domain = domain_of(annotation, default)
    if domain is None:
        return
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for value in samples(domain):
        assert adapter.validate_python(value) == value
    assert domain.nearest(domain.nearest(default)) == domain.nearest(default)
    assert domain.nearest(default) in samples(domain) or isinstance(domain, Reals)


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (bool, True, Choices((False, True))),
        (Literal["a", "b"], "b", Choices(("a", "b"))),
        (Share, 0.1, Reals(0.0, 0.5)),
        (Rate, 1e-3, Reals(1e-3 / 30, 0.03, log=True)),
        (Rate, 3.0, Reals(0.1, 10.0, log=True)),
        (Count, 8, Integers(2, 32, log=True)),
        (Count, 1, Integers(1, 4, log=True)),
        (Depth, 2, Integers(1, 8, log=True)),
        (Depth, 40, Integers(10, 64, log=True)),
        (Width, 128, Choices((32, 64, 128, 256, 512))),
        (Width, 12, Choices((3, 6, 12, 24, 48))),
        (Heads, 2, Choices((1, 2, 4, 8))),
        (Decay, 1.0, Reals(0.5, 1.0)),
        (Annotated[float, Ge(0), Le(10)], 0.01, Reals(0.01 / 30, 0.3, log=True)),
        (Annotated[float, Ge(0), Le(10)], 1.0, Reals(0.0, 10.0)),
        (Annotated[float, Ge(0)], 1.0, Reals(1 / 30, 30.0, log=True)),
        (Annotated[float, Ge(1), Le(16_384)], 16.0, Reals(1.0, 480.0, log=True)),
        (Annotated[float, Ge(0.01), Le(1)], 0.2, Reals(0.01, 1.0)),
        (Annotated[float, Gt(0), Lt(1), Field(le=0.5)], 0.3, Reals(0.01, 0.5, log=True)),
        (Annotated[int, Gt(3), Lt(20)], 8, Integers(4, 19, log=True)),
        (Annotated[int, Field(ge=2), Doubled()], 8, Choices((2, 4, 8, 16, 32))),
        (Annotated[float, Field(ge=0), Usual(1e-4, 0.3, log=True)], 0.01, Reals(1e-4, 0.3, log=True)),
        (Count | None, 8, Integers(2, 32, log=True)),
        # Too little is said.
        (Count | None, None, None),
        (str | None, "a", None),
        (float, 1.0, None),
        (tuple[str, ...], ("a",), None),
        (dict[str, int] | Literal["auto"], "auto", None),
        (int, 0, None),
    ],
)
def test_the_rules(annotation: Any, default: Any, expected: Domain | None) -> None:
    found = domain_of(annotation, default)
    if isinstance(expected, Reals) and isinstance(found, Reals):
        assert (found.low, found.high, found.log) == (
            pytest.approx(expected.low),
            pytest.approx(expected.high),
            expected.log,
        )
    else:
        assert found == expected


def test_marks_are_read_through_aliases() -> None:
    kind = Kind.of(Annotated[Count, AtMost("experts")] | None)
    assert (kind.type, kind.optional, kind.at_most) == (int, True, "experts")
    assert (kind.low, kind.high) == (1, 1_000_000)


def test_marks_do_not_disturb_the_check_of_values() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Width)
    assert adapter.validate_python(100) == 100
    with pytest.raises(ValidationError):
        adapter.validate_python(0)
    assert TypeAdapter(Share).validate_python(0.9) == 0.9


@pytest.mark.parametrize(
    ("given", "annotation", "default", "expected"),
    [
        (Range(1e-4, 1e-2), Rate, 1e-3, Reals(1e-4, 1e-2, log=True)),
        (Range(0.1, 0.2), Share, 0.1, Reals(0.1, 0.2)),
        (Range(0, 1), Annotated[float, Ge(0), Le(10)], 1.0, Reals(0.0, 1.0)),
        (Range(2, 6), Count, 4, Integers(2, 6, log=True)),
        (Range(64, 256), Width, 128, Choices((64, 128, 256))),
        (Range(4, 32), Count | None, None, Integers(4, 32)),
        ((3, 5, 3), Count, 4, Choices((3, 5))),
        ((1e-3,), Rate, 1e-2, Choices((1e-3,))),
        (("none",), Literal["none", "balanced"], "none", Choices(("none",))),
    ],
)
def test_what_is_asked_for(given: Any, annotation: Any, default: Any, expected: Domain) -> None:
    assert settled(given, annotation, default, "key") == expected


@pytest.mark.parametrize(
    ("given", "annotation", "told"),
    [
        (Range(0, 100), Rate, "greater than 0"),
        (Range(1.5, 3), Count, "valid integer"),
        (Range(1, 3), Literal["a"], "takes no range"),
        (Range(0, 1), bool, "takes no range"),
        (("c",), Literal["a", "b"], "'a' or 'b'"),
        (("text",), Rate, "valid number"),
    ],
)
def test_what_an_option_cannot_take_is_told(given: Any, annotation: Any, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        settled(given, annotation, 1, "fusion.x")
    assert "fusion.x" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["fusion", "=a", "fusion=", "a=1..", "a=..2", "a=x..y", "a=3..1", "a=1..1", "a=1..inf", "a=b,,c", "a=1..2..3"],
)
def test_what_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(InputError, match="--space"):
        read_space(text)


def test_a_path_is_no_range() -> None:
    assert read_space("modalities.text.encoder.checkpoint=../one,../other")[1] == ("../one", "../other")


def test_python_and_the_command_line_say_the_same() -> None:
    said = read_spaces(["fusion=concat,gated", "training.mixup=0..0.5", "training.batch_size=32,64", "x.flag=true"])
    given = {
        "fusion": ["concat", "gated"],
        "training.mixup": (0, 0.5),
        "training.batch_size": "32, 64",
        "x.flag": [True],
    }
    assert said == read_spaces(given)
    with pytest.raises(InputError, match="given twice"):
        read_spaces(["fusion=concat", "fusion=gated"])
    for wrong in ({"a": 3}, {"a": []}, {"a": (1, "b", None)}, {"a": (2, 1)}):
        with pytest.raises(InputError, match="space"):
            read_spaces(wrong)


def test_keys_that_were_set() -> None:
    from polyfuse.recipe import Component

    assert set_keys({"fusion": Component(name="gated"), "training": {}, "data": {"group": "who"}}) == {
        "fusion",
        "training",
        "data.group",
    }
    assert set_keys({"fusion.name": "gated", "tuning": {"text": {"name": "lora", "rank": 4}}}) == {
        "fusion",
        "tuning.text",
        "tuning.text.rank",
    }


def test_doubling_begins_at_the_lesser_end() -> None:
    for low, high in ((1, 1), (3, 50), (16, 16), (16, 31)):
        expected = []
        value = low
        while value <= high:
            expected.append(value)
            value *= 2
        assert list(doubling(low, high).values) == expected


def test_every_family_is_covered() -> None:
    assert all(isinstance(registry, Registry) for registry in FAMILIES.values())
    assert any(domain_of(*param.values[:2]) is not None for param in OPTIONS)
