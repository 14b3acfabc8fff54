"""Recipes are checked before any work, all errors at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfuse.core.errors import RecipeError
from polyfuse.recipe import Recipe, read_recipe, updated

FULL = """
target: digit
modalities:
  image: {columns: [image], encoder: {name: convnet, width: 16}}
  text: {columns: [title, review], encoder: {name: transformer, max_tokens: 64}}
  more: {columns: [other], share: text}
fusion: {name: attention, heads: 2}
tuning: {text: {name: lora, rank: 4}}
data: {group: speaker, on_bad_row: skip}
training: {epochs: 3, time_limit: 5m, learning_rate: 1e-3}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_and_mapping_agree_and_round_trip(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, FULL))
    assert recipe == read_recipe(yaml.safe_load(FULL))
    assert recipe.training.time_limit == 300
    assert recipe.training.learning_rate == 1e-3
    again = read_recipe(written(tmp_path, recipe.to_yaml()))
    assert again == recipe
    assert read_recipe(recipe) == recipe


def test_all_errors_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "target: y\n"
        "fusoin: concat\n"
        "fusion: {name: attention, head: 2}\n"
        "training:\n"
        "  epochs: 0\n"
        "  learning_rte: 0.1\n"
        "tuning: {text: {name: lora, rank: many}}\n"
        "modalities:\n"
        "  image: {columns: [], encoder: convnett}\n"
    )
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, text))
    told = str(caught.value)
    for expected in (
        "line 2, fusoin: unknown key; did you mean 'fusion'?",
        "line 3, fusion.head: attention has no such option; did you mean 'heads'?",
        "line 5, training.epochs: 0 given",
        "line 6, training.learning_rte: unknown key; did you mean 'learning_rate'?",
        "line 7, tuning.text.rank: 'many' given",
        "line 9, modalities.image.columns",
        "line 9, modalities.image.encoder: encoders: there is no 'convnett'; did you mean 'convnet'?",
    ):
        assert expected in told
    assert told.startswith("7 problems in ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "begins with  target"),
        ("[1, 2]", "begins with  target"),
        ("fusion: concat", "target: is missing"),
        ("target: [", "is not YAML"),
        ("target: &a [*a]", "alias"),
        ("a: &a [x]\nb: &b [*a, *a]\ntarget: *b", "alias"),
        ("target: y\ntarget: z", "given twice"),
        ("target: y\ntuning: 3", "one tuning for all"),
        ("target: y\ntuning:", "tuning"),
        ("target: y\ntuning: {text: 3}", "a tuning is a name"),
        ("target: y\ntuning: {rank: {rank: 3}}", "a tuning is a name"),
        ("target: y\nfusion: 5", "fusion"),
        ("target: y\nfusion: {heads: 5}", "fusion.name: is missing"),
        ("target: y\ncolumns: {a: pictures}", "columns.a"),
        ("target: y\nmodalities: {a: {columns: [x], encoder: mlp, share: b}}", "leave one of them out"),
        ("target: y\ntraining: {time_limit: soon}", "training.time_limit: 'soon' given"),
        ("target: y\ntraining: {trackers: [cometml]}", "training.trackers.0"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
        ("target: 3", "target: 3 given: a target is the name of a column, or a list of names"),
        ("target: []", "a target is the name of a column"),
        ("target: [a, 3]", "a target is the name of a column"),
        ("target: [a, b, a]", "the target 'a' is named twice"),
        ("target: y\ntask: clasification", "'clasification' given: a task is classification, multilabel, regression;"),
        ("target: y\ntask: several", "a task is classification, multilabel, regression;"),
        ("target: [a, b]\ntask: {a: number}", "a task is classification, multilabel, regression;"),
        ("target: [a, b]\nhead: {name: several, weights: some}", "head.weights"),
        ("target: [a, b]\nhead: {name: several, weights: {a: -1}}", "head.weights"),
        ("target: [a, b]\nhead: {name: several, heads: {a: {dropout: 0}}}", "a head is a name, or a mapping with a"),
        ("target: [a, b]\nhead: {name: several, heads: {a: regresion}}", "did you mean 'regression'"),
        (
            "target: [a, b]\nhead: {name: several, heads: {a: {name: regression, dropuot: 0}}}",
            "line 2, head.heads.a.dropuot: regression has no such option; did you mean 'dropout'",
        ),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, text))
    assert expected in str(caught.value)


def test_too_large_missing_or_binary(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at most"):
        read_recipe(written(tmp_path, "target: y #" + "x" * (8 << 20)))
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "missing.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RecipeError, match="is not YAML"):
        read_recipe(tmp_path / "b.yaml")
    with pytest.raises(RecipeError, match="is not YAML"):
        read_recipe(written(tmp_path, "target: " + "[" * 5000))


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["target", "task", "columns", "modalities", "fusion", "head", "tuning", "data", "training", "x"]),
)
def test_any_value_at_any_key_is_read_or_refused(value: object, key: str) -> None:
    try:
        recipe = read_recipe({"target": "y", key: value})
    except RecipeError:
        return
    assert read_recipe(recipe.as_data()) == recipe


def test_options_arrive_in_the_type_of_the_constructor(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-4 as a string.
    text = "target: y\nfusion: {name: attention, heads: '4'}\ntuning: {text: {name: lora, learning_rate: 1e-4}}"
    recipe = read_recipe(written(tmp_path, text))
    assert recipe.fusion.options == {"heads": 4}
    assert isinstance(recipe.tuning, dict)
    assert recipe.tuning["text"].options == {"learning_rate": 1e-4}
    given = {"target": "y", "fusion": {"name": "attention", "heads": "4"}}
    read_recipe(given)
    assert given["fusion"] == {"name": "attention", "heads": "4"}


def test_the_target_may_be_left_out_of_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, "fusion: concat")
    assert read_recipe(path, target="y") == read_recipe({"target": "y", "fusion": "concat"})
    assert read_recipe({"target": "x"}, target="y").target == "y"


def test_several_targets_round_trip(tmp_path: Path) -> None:
    text = (
        "target: [a, b]\ntask: {a: classification}\n"
        "head: {name: several, heads: {a: {name: classification, label_smoothing: '0.1'}}, weights: {a: 2, b: 0.5}}\n"
    )
    recipe = read_recipe(written(tmp_path, text))
    assert recipe.target == ["a", "b"]
    assert recipe.head is not None
    assert recipe.head.options["heads"] == {"a": {"name": "classification", "label_smoothing": 0.1}}
    assert recipe.head.options["weights"] == {"a": 2.0, "b": 0.5}
    assert read_recipe(written(tmp_path, recipe.to_yaml())) == recipe
    assert read_recipe(recipe) == recipe
    assert read_recipe({"target": "x"}, target=("a", "b")).target == ["a", "b"]
    assert read_recipe({"target": ["a"]}) == read_recipe({"target": "a"})
    assert updated(recipe, {"head.weights": "equal"}).head.options["weights"] == "equal"  # type: ignore[union-attr]


def test_a_tuning_of_a_modality_called_name() -> None:
    recipe = read_recipe({"target": "y", "tuning": {"name": {"name": "frozen"}, "text": "full"}})
    assert isinstance(recipe.tuning, dict)
    assert read_recipe(recipe.as_data()) == recipe


def test_updated_merges_and_replaces() -> None:
    recipe = Recipe(target="y")
    changed = updated(
        recipe,
        {
            "fusion": "attention",
            "fusion.heads": 8,
            "training.epochs": 2,
            "tuning.text": "lora",
            "training": {"seed": 5},
        },
    )
    assert changed.fusion.as_data() == {"name": "attention", "heads": 8}
    assert (changed.training.epochs, changed.training.seed) == (2, 5)
    assert changed.as_data()["tuning"] == {"text": "lora"}
    assert updated(changed, {"fusion": {"name": "concat"}}).fusion.as_data() == "concat"
    with pytest.raises(RecipeError, match="has no keys"):
        updated(recipe, {"training.trackers.first": "wandb"})
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        updated(recipe, {"training.epoch": 2})
