"""Every suggestion, of every component, is a recipe that validates and builds; and only what is open is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polyfuse.core.errors import InputError
from polyfuse.data.reading import read_table
from polyfuse.fitting import Plan, make_plan
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.learners import LEARNERS
from polyfuse.recipe import read_recipe, updated
from polyfuse.study.deriving import SEARCHED, space_of
from polyfuse.study.domains import Choices, Domain, Integers, Value
from polyfuse.study.keeping import optuna, quiet
from polyfuse.study.reading import read_spaces, set_keys
from polyfuse.study.space import Parameter, Space
from polyfuse.tuning import TUNINGS

DRAWS = 12


def table(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "note": [" ".join(rng.choice(["one", "two", "cat", "dog"], 6)) for _ in range(rows)],
            "x": x,
            "place": rng.choice(["north", "south"], rows),
            "label": np.where(x > 0, "yes", "no"),
            "price": x + rng.normal(0, 0.1, rows),
            "tags": [["a"] if value > 0 else ["a", "b"] for value in x],
        }
    )


MODALITIES = {"text": {"columns": ["note"]}, "table": {"columns": ["x", "place"]}}
TARGETS = {"classification": "label", "regression": "price", "multilabel": "tags"}


def plan_of(target: str | list[str] = "label", recipe: Any = None, **settings: Any) -> Plan:
    asked = [target] if isinstance(target, str) else target
    types = {"note": "text"} | {name: "ignore" for name in TARGETS.values() if name not in asked}
    given = read_recipe(recipe or {"target": target, "columns": types, "modalities": MODALITIES})
    return make_plan(updated(given, settings), read_table(table()))


def space(target: str | list[str] = "label", asked: Any = None, **settings: Any) -> Space:
    plan = plan_of(target, **settings)
    return space_of(plan.recipe, plan.schema, set_keys(settings), read_spaces(asked))


def at_random(seed: int) -> Callable[[Parameter, Domain], Value]:
    rng = np.random.default_rng(seed)

    def pick(parameter: Parameter, domain: Domain) -> Value:
        if isinstance(domain, Choices):
            return domain.values[int(rng.integers(len(domain.values)))]
        if isinstance(domain, Integers):
            return int(rng.integers(domain.low, domain.high + 1))
        return float(rng.uniform(domain.low, domain.high))

    return pick


@pytest.mark.parametrize("name", FUSIONS)
def test_every_suggestion_of_a_fusion_builds(name: str) -> None:
    searched = space(fusion=name)
    # A `condition` is a name from the table, which no search can know.
    open_ = {option for option in FUSIONS.options(name) if option not in ("most_tokens", "condition")}
    assert {p.place[-1] for p in searched.parameters if p.place[0] == "fusion"} == open_
    for seed in range(DRAWS):
        recipe = searched.recipe(searched.draw(at_random(seed)))
        assert FUSIONS.build(recipe.fusion.name, recipe.fusion.options, {"a": 5, "b": 3}).dim


@pytest.mark.parametrize("name", LEARNERS)
def test_every_suggestion_of_a_learner_builds(name: str) -> None:
    plan = plan_of()
    searched = space(asked={"fusion": ["linear", "boosting"]})
    for seed in range(DRAWS):
        recipe = searched.recipe(searched.draw(at_random(seed)))
        assert recipe.fusion.name in LEARNERS
        assert LEARNERS.build(recipe.fusion.name, recipe.fusion.options, plan.schema.target)
    assert f"fusion.{name}.rounds" in searched.describe() or name != "boosting"


@pytest.mark.parametrize("name", [name for name in TUNINGS if name != "frozen"])
def test_every_suggestion_of_a_tuning_builds(name: str) -> None:
    searched = space(tuning={"text": name}, fusion="concat")
    assert f"tuning.text.{name}.learning_rate" in searched.describe()
    for seed in range(DRAWS):
        recipe = searched.recipe(searched.draw(at_random(seed)))
        assert isinstance(recipe.tuning, dict)
        tuning = TUNINGS.build(recipe.tuning["text"].name, recipe.tuning["text"].options)
        assert tuning.learning_rate == recipe.tuning["text"].options["learning_rate"]


def test_the_heads_of_several_targets_are_drawn_too() -> None:
    asked = list(TARGETS.values())
    plan, searched = plan_of(asked), space(asked, fusion="concat")
    found = {".".join(p.place): p.domain for p in searched.parameters if p.place[0] == "head"}
    options = {f"head.heads.{TARGETS[name]}.{option}" for name in TARGETS for option in HEADS.options(name)}
    assert set(found) == {"head.weights", *options}
    assert found["head.weights"] == Choices(("uncertainty", "equal"))
    seen = set()
    for seed in range(DRAWS):
        recipe = searched.recipe(searched.draw(at_random(seed)))
        assert recipe.head is not None
        assert HEADS.build("several", recipe.head.options, 6, plan.schema.target)
        seen.add(recipe.head.options["heads"]["price"]["dropout"])
    assert len(seen) == DRAWS
    given = plan_of(asked, head={"name": "several", "weights": {"price": 2.0}}, fusion="concat")
    kept = space_of(given.recipe, given.schema, set(), {})
    assert "head.weights" not in kept.describe()
    assert kept.recipe(kept.draw(at_random(0))).head.options["weights"] == {"price": 2.0}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [name for name in HEADS if name != "several"])
def test_every_suggestion_of_a_head_builds(name: str) -> None:
    plan = plan_of(TARGETS[name])
    searched = space(TARGETS[name], fusion="concat")
    assert {p.place[-1] for p in searched.parameters if p.place[0] == "head"} == set(HEADS.options(name))
    for seed in range(DRAWS):
        recipe = searched.recipe(searched.draw(at_random(seed)))
        assert recipe.head is not None
        assert HEADS.build(name, recipe.head.options, 6, plan.schema.target)


def test_optuna_draws_from_everything() -> None:
    searched = space(preset="best")
    module = optuna()
    with quiet():
        study = module.create_study(sampler=module.samplers.RandomSampler(seed=0))
        for _ in range(150):
            trial = study.ask()
            drawn = searched.suggest(trial)
            assert trial.params == drawn
            searched.recipe(drawn)
            study.tell(trial, 0.0)
    names = {trial.params["fusion"] for trial in study.trials}
    assert names == {*FUSIONS, *LEARNERS}
    assert {trial.params.get("tuning.text") for trial in study.trials} == {*TUNINGS, None}


@pytest.mark.parametrize("preset", ["balanced", "best"])
def test_what_was_drawn_stands_in_the_recipe(preset: str) -> None:
    searched = space(preset=preset)
    for seed in range(DRAWS):
        drawn = searched.draw(at_random(seed))
        data = searched.recipe(drawn).as_data()
        assert json.loads(json.dumps(data)) == data
        for parameter in searched.parameters:
            if parameter.name in drawn:
                assert found(data, parameter.place) == drawn[parameter.name], parameter.name
        # The same values give the same recipe, and that is read back as it was.
        assert searched.recipe(dict(reversed(drawn.items()))).as_data() == data
        assert read_recipe(data).as_data() == data


def found(data: dict[str, Any], place: tuple[str, ...]) -> Any:
    """Return what stands at a place of a recipe's data."""
    if place[0] == "fusion" and len(place) == 3:
        place = ("fusion", place[2])
    if place[0] == "tuning" and len(place) == 4:
        place = (*place[:2], place[3])
    at: Any = data
    for part in place:
        at = at[part]
    return at["name"] if isinstance(at, dict) else at


def test_options_are_drawn_only_with_what_they_belong_to() -> None:
    searched = space(preset="best")
    for seed in range(40):
        drawn = searched.draw(at_random(seed))
        for name in drawn:
            if name.count(".") == 2 and name.startswith("fusion."):
                assert name.split(".")[1] == drawn["fusion"]
            if name.count(".") == 3 and name.startswith("tuning."):
                assert name.split(".")[2] == drawn["tuning.text"]
        trained = drawn["fusion"] in FUSIONS
        assert ("training.learning_rate" in drawn) == trained
        assert ("head.dropout" in drawn) == trained
        assert ("tuning.text" in drawn) == trained


def test_one_option_does_not_exceed_another() -> None:
    searched = space(asked={"fusion": "experts"})
    drawn = [searched.draw(at_random(seed)) for seed in range(60)]
    assert all(each["fusion.experts.chosen"] <= each["fusion.experts.experts"] for each in drawn)
    assert len({each["fusion.experts.chosen"] for each in drawn}) > 3
    # Where the other one stays, it is the limit.
    fixed = space(fusion={"name": "experts", "experts": 3})
    assert max(fixed.draw(at_random(seed))["fusion.experts.chosen"] for seed in range(60)) == 3


def test_the_first_trial_is_the_recipe_as_it_stands() -> None:
    searched = space(training={"epochs": 3}, fusion="gated")
    expected = plan_of(training={"epochs": 3}, fusion="gated").recipe
    made = searched.recipe(searched.defaults())
    assert made.training == expected.training
    assert FUSIONS.options("gated")["dim"].default == made.fusion.options["dim"]
    assert space().defaults()["fusion"] == "concat"


def test_what_was_set_stays() -> None:
    head = {"name": "classification", "dropout": 0.3}
    searched = space(fusion={"name": "attention", "heads": 8}, training={"learning_rate": 0.01}, head=head)
    names = set(searched.describe())
    assert not names & {"fusion", "fusion.attention.heads", "training.learning_rate", "head.dropout", "training.epochs"}
    assert {"fusion.attention.dim", "training.weight_decay", "head.label_smoothing"} <= names
    recipe = searched.recipe(searched.draw(at_random(0)))
    assert recipe.fusion.options["heads"] == 8
    assert "most_tokens" not in recipe.fusion.options, "a fusion that was named reads what it reads"
    assert recipe.training.learning_rate == 0.01
    assert not {f"training.{name}" for name in SEARCHED} & set(space(training=space().base.training).describe())


def test_what_stands_in_a_recipe_is_where_the_search_begins() -> None:
    given = {
        "target": "label",
        "columns": {"note": "text", "price": "ignore", "tags": "ignore"},
        "modalities": MODALITIES,
        "fusion": {"name": "gated", "dim": 24},
        "training": {"learning_rate": 0.01},
    }
    plan = plan_of(recipe=given)
    searched = space_of(plan.recipe, plan.schema, (), {})
    assert "fusion" not in searched.describe(), "a fusion that is named is not searched unasked"
    by_name = {parameter.name: parameter for parameter in searched.parameters}
    assert by_name["fusion.gated.dim"].domain == Choices((6, 12, 24, 48, 96))
    assert searched.defaults()["training.learning_rate"] == 0.01
    wider = space_of(plan.recipe, plan.schema, (), read_spaces(["fusion=concat,gated"]))
    assert wider.defaults()["fusion"] == "gated"
    assert wider.defaults()["fusion.gated.dim"] == 24
    assert wider.recipe({"fusion": "concat"}).fusion.options == {}


def test_presets_hold() -> None:
    fast, plain, best = (space(preset=preset) for preset in ("fast", "balanced", "best"))
    assert set(fast.names("fusion")) == {"linear", "boosting", "concat"}
    assert set(plain.names("fusion")) == {*FUSIONS, *LEARNERS}
    assert plain.names("tuning", "text") == ("frozen",)
    assert best.names("tuning", "text") == tuple(TUNINGS)
    assert not any(name.startswith("tuning.") for name in plain.describe())
    # Set beside the preset, it stays; the options of what was set are searched.
    lora = space(preset="best", tuning={"text": "lora"})
    assert "tuning.text" not in lora.describe()
    assert "tuning.text.lora.rank" in lora.describe()


def test_one_modality_needs_no_fusion_of_several() -> None:
    types = {"note": "ignore", "price": "ignore", "tags": "ignore"}
    plan = plan_of(recipe={"target": "label", "columns": types, "modalities": {"table": MODALITIES["table"]}})
    searched = space_of(plan.recipe, plan.schema, (), {})
    assert set(searched.names("fusion")) == {"concat", "deep", *LEARNERS}
    assert "training.modality_dropout" not in searched.describe()


def test_asking_restricts_and_extends() -> None:
    searched = space(
        asked=[
            "fusion=attention,deep",
            "fusion.depth=1..2",
            "fusion.deep.dropout=0,0.2",
            "training.epochs=2..6",
            "training.optimizer=adamw,sgd",
            "tuning.text=frozen,loha",
            "modalities.table.encoder.dim=16..64",
        ]
    )
    domains = searched.describe()
    assert domains["fusion"] == "attention, deep"
    assert domains["fusion.attention.depth"] == domains["fusion.deep.depth"] == "1..2 by its logarithm"
    assert domains["fusion.deep.dropout"] == "0.0, 0.2"
    assert domains["fusion.attention.dropout"] == "0..0.5"
    assert domains["training.optimizer"] == "adamw, sgd"
    assert domains["modalities.table.encoder.dim"] == "16, 32, 64"
    assert domains["tuning.text.loha.learning_rate"]
    assert [name for name in domains if name.startswith("tuning.text.loha.")] == ["tuning.text.loha.learning_rate"]
    for seed in range(DRAWS):
        recipe = searched.recipe(searched.draw(at_random(seed)))
        assert recipe.modalities is not None
        assert recipe.modalities["table"].encoder is not None
        assert recipe.modalities["table"].encoder.options["dim"] in (16, 32, 64)
        assert recipe.training.epochs in range(2, 7)
        if recipe.fusion.name == "attention":
            assert recipe.fusion.options["most_tokens"] == 8


@pytest.mark.parametrize(
    ("asked", "settings", "told"),
    [
        ("fusoin=concat", {}, "did you mean 'fusion'"),
        ("fusion.dpeth=1..2", {}, "did you mean"),
        ("fusion=conkat,gated", {}, "no 'conkat' to search; did you mean 'concat'"),
        ("fusion=auto", {}, "no 'auto' to search"),
        ("fusion=1..3", {}, "list the names"),
        ("fusion=gated", {"fusion": "concat"}, "is set, and to be searched"),
        ("fusion.depth=1..2", {"fusion": "concat"}, "nothing of this name"),
        ("training.learning_rate=1..2", {"training": {"learning_rate": 0.1}}, "leave out --set training.learning_rate"),
        ("training.learning_rate=0..1", {}, "greater than 0"),
        ("training.seed=0..9", {}, "nothing of this name"),
        ("training.metric=accuracy", {}, "nothing of this name"),
        ("tuning.text=lorra", {}, "did you mean 'lora'"),
        ("tuning.table=lora", {}, "nothing of this name"),
        ("head.class_weights=heavy", {}, "'none' or 'balanced'"),
    ],
)
def test_what_cannot_be_searched_is_told(asked: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        space(asked=[asked], **settings)


def test_where_nothing_is_open_it_is_told() -> None:
    with pytest.raises(InputError, match="nothing is left to search"):
        space(fusion={"name": "linear", "strength": 1.0})
    with pytest.raises(InputError, match="none to try"):
        space(fusion={"name": "auto", "candidates": ["alone"]})
