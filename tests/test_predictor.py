"""The face: three lines of Python on a mixed table, saved, loaded, with parts missing."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import polyfuse as pf
import tiny
from cli_runner import polyfuse
from polyfuse.core.errors import ArtifactError, DataError, InputError, PolyfuseError, RecipeError
from polyfuse.training.cache import FeatureCache

QUICK = {"epochs": 4, "batch_size": 32}


def mixed(rows: int = 160, seed: int = 0) -> pd.DataFrame:
    """A table whose target is said by an image, a recording, a text and numbers, each a little."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, rows)
    words = np.array([["bad", "poor"], ["good", "fine"]])
    return pd.DataFrame(
        {
            "photo": [np.clip(rng.normal(90 + 60 * y, 40, (10, 10)), 0, 255).astype(np.uint8) for y in target],
            "sound": [
                ((0.5 * np.sin(np.arange(1600) * (0.3 + 0.5 * y)) + rng.normal(0, 0.3, 1600)).astype(np.float32), 8000)
                for y in target
            ],
            "note": [f"a {rng.choice(words[y])} day number {rng.integers(999)}" for y in target],
            "size": rng.normal(target, 1.0),
            "shop": rng.choice(["north", "south"], rows),
            "label": np.array(["no", "yes"])[target],
        },
        index=[f"row {i}" for i in range(rows)],
    )


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Callable[[str], str]) -> str:
    return tiny_model("bert")


@pytest.fixture(scope="module")
def recipe(checkpoint: str) -> dict[str, object]:
    note = {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": checkpoint}}
    modalities = {
        "image": {"columns": ["photo"], "encoder": {"name": "convnet", "width": 8}},
        "audio": {"columns": ["sound"], "encoder": {"name": "mel_convnet", "width": 8}},
        "text": note,
        "table": {"columns": ["size", "shop"]},
    }
    return {"target": "label", "modalities": modalities, "fusion": "concat", "training": QUICK}


@pytest.fixture(scope="module")
def fitted(recipe: dict[str, object]) -> pf.Predictor:
    return pf.Predictor(recipe=recipe).fit(mixed(), progress=False)


def test_three_lines_on_a_mixed_table(fitted: pf.Predictor) -> None:
    test = mixed(60, seed=1)
    answers = fitted.predict(test)
    assert answers.index.tolist() == test.index.tolist()
    assert answers.name == "label"
    assert set(answers) <= {"no", "yes"}
    proba = fitted.predict_proba(test)
    assert proba.columns.tolist() == ["no", "yes"]
    assert proba.index.tolist() == test.index.tolist()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-5)
    assert (proba.idxmax(axis=1) == answers).all()
    report = fitted.evaluate(test)
    assert report["accuracy"] == pytest.approx((answers == test["label"]).mean())
    assert report["accuracy"] > 0.7


def test_rows_are_independent_of_their_company(fitted: pf.Predictor) -> None:
    test = mixed(40, seed=2)
    whole = fitted.predict_proba(test)
    pd.testing.assert_frame_equal(fitted.predict_proba(test.iloc[::-1]).loc[test.index], whole, atol=1e-4)
    for i in (0, 17):
        pd.testing.assert_frame_equal(fitted.predict_proba(test.iloc[[i]]), whole.iloc[[i]], atol=1e-4)
    one = fitted.predict_proba(test.iloc[3].to_dict())
    np.testing.assert_allclose(one.to_numpy()[0], whole.to_numpy()[3], atol=1e-4)


def test_missing_columns_are_absent_modalities_with_one_warning(fitted: pf.Predictor) -> None:
    test = mixed(30, seed=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fitted.predict_proba(test.drop(columns=["photo", "size"]).assign(extra=1))
    told = [str(warning.message) for warning in caught if "lacks" in str(warning.message)]
    assert len(told) == 1
    assert "'photo'" in told[0]
    assert "'size'" in told[0]
    blank = fitted.predict_proba(test.assign(photo=None, size=np.nan))
    pd.testing.assert_frame_equal(found, blank, atol=1e-6)
    gone = fitted.predict_proba(test.assign(photo=None))
    pd.testing.assert_frame_equal(fitted.predict_proba(test, without=["image"]), gone, atol=1e-4)
    assert not np.allclose(gone, fitted.predict_proba(test))


def test_a_row_with_nothing_gets_the_prior_and_a_flag(fitted: pf.Predictor) -> None:
    test = mixed(5, seed=4).astype(object)
    test.iloc[2, :5] = None
    with pytest.warns(UserWarning, match="training prior"):
        answers = fitted.answer(test)
    assert answers.nothing_present.tolist() == [False, False, True, False, False]
    target = fitted.schema.target
    np.testing.assert_allclose(answers.scores.iloc[2], target.frequencies, rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_table_in_which_nothing_is_present(fitted: pf.Predictor, rows: int) -> None:
    with pytest.warns(UserWarning, match="lacks"):
        answers = fitted.answer(pd.DataFrame({"unknown": range(rows)}))
    assert answers.nothing_present.tolist() == [True] * rows
    assert answers.scores.shape == (rows, 2)
    with pytest.warns(UserWarning, match="lacks"):
        report = fitted.evaluate(pd.DataFrame({"label": ["yes", "no"]}))
    assert report["log_loss"] == pytest.approx(report.baseline["log_loss"])


def test_rows_that_are_left_out_of_a_measurement_are_told(recipe: dict[str, object]) -> None:
    settings = {"modalities": {"table": {"columns": ["size"]}}, "training": {"epochs": 1}}
    predictor = pf.Predictor("label", data={"on_bad_row": "skip"}, **settings).fit(mixed(60), progress=False)
    test = mixed(20, seed=1)
    test.loc[test.index[:3], "label"] = "maybe"
    with pytest.warns(UserWarning, match=r"not measured: 3 of 20 rows"):
        assert predictor.evaluate(test).rows == 17


def test_a_modality_may_bear_any_name(tmp_path: Path) -> None:
    table = mixed(60)
    modalities = {name: {"columns": ["size"]} for name in ("name", "training", "a.b c", "🙂")}
    predictor = pf.Predictor("label", modalities=modalities, training={"epochs": 1}).fit(table, progress=False)
    loaded = pf.load(predictor.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(loaded.predict_proba(table), predictor.predict_proba(table), atol=1e-6)


def test_the_folder_of_the_training_media_may_be_gone(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    settings = {"modalities": {"table": {"columns": ["size"]}}, "training": {"epochs": 1}}
    predictor = pf.Predictor("label", data={"media_root": str(tmp_path / "media")}, **settings)
    with pytest.raises(InputError, match="media_root"):
        pf.Predictor("label", data={"media_root": str(tmp_path / "none")}, **settings).fit(mixed(60), progress=False)
    folder = predictor.fit(mixed(60), progress=False).save(tmp_path / "run")
    (tmp_path / "media").rmdir()
    assert len(pf.load(folder).predict(mixed(5))) == 5


def test_saved_and_loaded_it_answers_the_same(fitted: pf.Predictor, tmp_path: Path, checkpoint: str) -> None:
    test = mixed(25, seed=5)
    folder = fitted.save(tmp_path / "run")
    assert not list(tmp_path.glob(".*"))
    for path in folder.rglob("*"):
        assert path.is_dir() or path.suffix in {".safetensors", ".parquet", ".json", ".yaml", ".md", ".txt"}, path
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    loaded = pf.load(moved)
    pd.testing.assert_frame_equal(loaded.predict_proba(test), fitted.predict_proba(test), atol=1e-6)
    assert loaded.metrics == json.loads(json.dumps(fitted.metrics))
    assert loaded.schema == fitted.schema
    assert "label" in (moved / "README.md").read_text(encoding="utf-8")
    again = loaded.save(tmp_path / "again")
    pd.testing.assert_frame_equal(pf.load(again).predict_proba(test), fitted.predict_proba(test), atol=1e-6)


@pytest.mark.parametrize("tuning", ["frozen", "full", "lora"])
@pytest.mark.parametrize("standalone", [True, False])
def test_every_tuning_survives_saving(recipe: dict[str, object], tmp_path: Path, tuning: str, standalone: bool) -> None:
    settings = {"modalities": {"text": recipe["modalities"]["text"]}, "training": {"epochs": 1}}  # type: ignore[index]
    predictor = pf.Predictor("label", fusion="concat", tuning={"text": tuning}, **settings)
    predictor.fit(mixed(60), progress=False)
    test = mixed(20, seed=6)
    predictor.save(tmp_path / "run", standalone=standalone)
    stored = (tmp_path / "run" / "encoders" / "0" / "backbone").exists()
    assert stored == (standalone or tuning == "full")
    loaded = pf.load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.predict_proba(test), predictor.predict_proba(test), atol=1e-5)


def test_a_backbone_left_outside_must_be_the_same(recipe: dict[str, object], tmp_path: Path) -> None:
    place = tiny.write("bert", tmp_path / "bert")
    text = {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": str(place)}}
    predictor = pf.Predictor("label", modalities={"text": text}, training={"epochs": 1}).fit(mixed(60), progress=False)
    predictor.save(tmp_path / "run", standalone=False)
    weights = load_file(place / "model.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in weights.items()}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match="no longer the one"):
        pf.load(tmp_path / "run")


def test_two_modalities_share_an_encoder(checkpoint: str) -> None:
    table = mixed(80).assign(other=lambda frame: frame["note"].str.replace("a ", "the "))
    shared = {
        "note": {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": checkpoint}},
        "other": {"columns": ["other"], "share": "note"},
    }
    predictor = pf.Predictor("label", modalities=shared, tuning="full", training=QUICK).fit(table, progress=False)
    assert len(predictor.model.encoders) == 1
    assert len(predictor.predict(table)) == 80


def test_regression_and_multilabel(tmp_path: Path) -> None:
    table = mixed(120).drop(columns=["photo", "sound", "note"])
    table["price"] = 1000 + 50 * table["size"] + np.where(table["shop"] == "north", 30, 0)
    predictor = pf.Predictor("price", columns={"label": "ignore"}, training={"epochs": 40, "learning_rate": 1e-2})
    report = predictor.fit(table, progress=False).evaluate(table)
    assert report["r2"] > 0.8
    assert predictor.predict(table).between(700, 1400).all()
    with pytest.raises(InputError, match="no probabilities"):
        predictor.predict_proba(table)
    loaded = pf.load(predictor.save(tmp_path / "run"))
    pd.testing.assert_series_equal(loaded.predict(table), predictor.predict(table))

    table["tags"] = [
        [shop, *(["big"] if size > 0 else [])] for shop, size in zip(table["shop"], table["size"], strict=True)
    ]
    tagger = pf.Predictor("tags", columns={"label": "ignore", "price": "ignore"}, training={"epochs": 30})
    tagger.fit(table, progress=False)
    assert tagger.evaluate(table)["multilabel_f1_micro"] > 0.8
    assert isinstance(tagger.predict(table).iloc[0], list)
    assert tagger.predict_proba(table).columns.tolist() == ["big", "north", "south"]


def test_gated_weights_can_be_read_back(recipe: dict[str, object]) -> None:
    predictor = pf.Predictor(recipe=recipe, fusion="gated").fit(mixed(60), progress=False)
    weights = predictor.fusion_weights(mixed(10, seed=1).assign(photo=None))
    assert weights.columns.tolist() == ["image", "audio", "text", "table"]
    assert (weights["image"] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    settings = {"modalities": {"table": {"columns": ["size"]}}, "training": {"epochs": 1}}
    plain = pf.Predictor("label", fusion="concat", **settings).fit(mixed(60), progress=False)
    with pytest.raises(InputError, match="no weights"):
        plain.fusion_weights(mixed(3))


def test_a_second_fit_encodes_nothing(
    recipe: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POLYFUSE_CACHE", str(tmp_path))
    pf.Predictor(recipe=recipe).fit(mixed(60), progress=False)
    written = {path: path.stat().st_mtime_ns for path in FeatureCache().folder.glob("*/*.safetensors")}
    assert written
    from polyfuse.encoders import ENCODERS

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the frozen encoder ran again")

    monkeypatch.setattr(ENCODERS["transformer"], "forward", refuse)
    pf.Predictor(recipe=recipe, fusion="attention").fit(mixed(60), progress=False)


def test_the_same_seed_gives_the_same_model_and_leaves_the_users_seed_alone(recipe: dict[str, object]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = pf.Predictor(recipe=recipe).fit(mixed(60), progress=False)
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(77)
    second = pf.Predictor(recipe=recipe).fit(mixed(60), progress=False)
    for (name, a), b in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_groups_stay_on_one_side(recipe: dict[str, object]) -> None:
    table = mixed(120).assign(person=[f"p{i % 12}" for i in range(120)])
    predictor = pf.Predictor(
        "label", data={"group": "person"}, modalities={"table": {"columns": ["size"]}}, training=QUICK
    )
    predictor.fit(table, progress=False)
    assert "person" not in {column.name for column in predictor.schema.columns}
    assert predictor.metrics["validation"]["rows"] % 10 == 0


def test_a_given_validation_table_decides(recipe: dict[str, object]) -> None:
    settings = {"modalities": {"table": {"columns": ["size", "shop"]}}, "training": QUICK}
    predictor = pf.Predictor("label", **settings).fit(mixed(80), validation=mixed(33, seed=9), progress=False)
    assert predictor.metrics["validation"]["rows"] == 33
    assert predictor.metrics["training"]["rows"] == 80


def test_an_undefined_metric_does_not_lose_the_model(tmp_path: Path) -> None:
    table = mixed(40).drop(columns=["photo", "sound", "note"])
    settings = {"columns": {"label": "ignore"}, "training": {"epochs": 2, "metric": "r2"}}
    predictor = pf.Predictor("size", fusion="concat", **settings)
    # R² of a single row is undefined.
    predictor.fit(table, validation=mixed(1, seed=3), out=tmp_path / "run", progress=False)
    assert predictor.metrics["training"]["best"] is None
    assert pf.load(tmp_path / "run").metrics == predictor.metrics
    # A predictor can be fitted again, on another table.
    predictor.fit(table.rename(columns={"shop": "market"}), progress=False)
    assert predictor.schema.modalities == {"table": ["market"]}


def test_wrong_calls_are_told(fitted: pf.Predictor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target is missing"):
        pf.Predictor()
    with pytest.raises(PolyfuseError, match="call  fit  first"):
        pf.Predictor("y").predict(mixed(3))
    with pytest.raises(RecipeError, match="did you mean 'fusion'"):
        pf.Predictor("y", fusoin="concat")
    with pytest.raises(InputError, match="label"):
        pf.Predictor("lable").fit(mixed(20), progress=False)
    with pytest.raises(InputError, match="did you mean 'image'"):
        fitted.predict(mixed(3), without=["imag"])
    with pytest.raises(DataError, match="maybe"):
        fitted.evaluate(mixed(3).assign(label="maybe"))
    with pytest.raises(InputError, match="accuracy"):
        pf.Predictor("label", training={"metric": "acuracy"}).fit(mixed(20), progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a Polyfuse artifact"):
        fitted.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    fitted.save(tmp_path / "run")
    with pytest.raises(InputError, match="overwrite"):
        fitted.save(tmp_path / "run")
    fitted.save(tmp_path / "run", overwrite=True)
    with pytest.raises(InputError, match="file"):
        fitted.save(tmp_path / "mine" / "thesis.txt")
    with pytest.raises(InputError, match="cannot be written"):
        fitted.save(tmp_path / "mine" / "thesis.txt" / "run")


@pytest.mark.parametrize("tuning", ["lora", "ia3", "last", "bias"])
def test_merged_it_answers_alike(recipe: dict[str, object], tmp_path: Path, tuning: str) -> None:
    settings = {"modalities": {"text": recipe["modalities"]["text"]}, "training": {"epochs": 2}}  # type: ignore[index]
    predictor = pf.Predictor("label", fusion="concat", tuning={"text": tuning}, **settings)
    predictor.fit(mixed(60), progress=False)
    test = mixed(20, seed=6)
    expected = predictor.predict_proba(test)
    predictor.save(tmp_path / "run")
    out, _ = polyfuse("merge", "run", "--out", "merged", cwd=tmp_path)
    assert out == ""
    merged = pf.load(tmp_path / "merged")
    pd.testing.assert_frame_equal(merged.predict_proba(test), expected, atol=1e-4)
    assert merged.recipe.as_data()["tuning"] == {"text": "full"}
    assert not (tmp_path / "merged" / "encoders" / "0" / "adapter").exists()
    encoder = merged.model.encoder("text")
    assert not any("lora" in name or "ia3" in name for name, _ in encoder.named_parameters())


def test_what_cannot_be_merged_is_told(recipe: dict[str, object]) -> None:
    settings = {"modalities": {"text": recipe["modalities"]["text"]}, "training": {"epochs": 1}}  # type: ignore[index]
    adapted = pf.Predictor("label", fusion="concat", tuning={"text": "adapter"}, **settings)
    with pytest.raises(InputError, match="cannot be folded"):
        adapted.fit(mixed(60), progress=False).merge()
    several = pf.Predictor("label", fusion="linear", **settings).fit(mixed(60), progress=False)
    with pytest.raises(InputError, match="ensemble"):
        several.merge()
