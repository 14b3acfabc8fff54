from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint

import pytest
from torch import nn

from polyfuse.core import registry as module
from polyfuse.core.contract import Encoder, Fusion
from polyfuse.core.errors import InputError
from polyfuse.core.registry import Registry
from polyfuse.encoders import ENCODERS


class Thing:
    def __init__(self, supplied: int, *, size: int = 3) -> None:
        self.supplied, self.size = supplied, size


@pytest.fixture
def things() -> Registry[Thing]:
    return Registry("things", {"thing": f"{__name__}:Thing", "parser": "json:JSONDecoder"})


def test_a_component_is_imported_when_it_is_asked_for() -> None:
    lazy: Registry[object] = Registry("things", {"ghost": "no_such_module_anywhere:Ghost"})
    assert "ghost" in lazy
    assert list(lazy) == ["ghost"]
    with pytest.raises(ModuleNotFoundError):
        lazy["ghost"]


def test_options_are_the_keyword_only_parameters(things: Registry[Thing]) -> None:
    assert list(things.options("thing")) == ["size"]
    assert things.options("thing")["size"].annotation is int
    built = things.build("thing", {"size": 5}, 1)
    assert (built.supplied, built.size) == (1, 5)


def test_unknown_names_and_options_are_explained(things: Registry[Thing]) -> None:
    with pytest.raises(InputError, match="there is no 'thng'; did you mean 'thing'"):
        things["thng"]
    with pytest.raises(InputError, match="has no option 'sze'; did you mean 'size'"):
        things.build("thing", {"sze": 1}, 1)
    with pytest.raises(InputError, match="has no option 'supplied'"):
        things.build("thing", {"supplied": 1}, 1)


def test_registered_names_are_unique(things: Registry[Thing]) -> None:
    things.register("other", Thing)
    things.register("decoder", "json:JSONDecoder")
    assert things["other"] is Thing
    assert things["decoder"] is json.JSONDecoder  # type: ignore[comparison-overlap]
    assert len(things) == 4
    with pytest.raises(InputError, match="the name 'other' is taken"):
        things.register("other", Thing)


def test_third_parties_come_through_entry_points(things: Registry[Thing], monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("theirs", f"{__name__}:Thing", "polyfuse.things")]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == "polyfuse.things" else [])
    assert things["theirs"].__name__ == "Thing"
    clash: Registry[Thing] = Registry("things", {"theirs": "json:JSONDecoder"})
    with pytest.raises(InputError, match="wants the name 'theirs'"):
        list(clash)


def test_names_do_not_import_the_classes() -> None:
    before = set(sys.modules)
    assert len(list(ENCODERS)) >= 8
    assert not {name for name in set(sys.modules) - before if name.startswith("polyfuse.encoders.")}


def test_a_backbone_is_found_under_its_name() -> None:
    class Wrapped(Encoder):
        def __init__(self) -> None:
            super().__init__()
            assert self.backbone is None
            self.backbone = nn.Linear(2, 2)

        prepare = forward = None  # type: ignore[assignment]

    encoder = Wrapped()
    assert isinstance(encoder.backbone, nn.Linear)
    assert set(encoder.state_dict()) == {"backbone.weight", "backbone.bias"}
    assert Fusion.needs == "pooled"
