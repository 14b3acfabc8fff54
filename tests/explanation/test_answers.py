"""What would change an answer, what lies near, and attributions of models whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import polyfuse as pf
from polyfuse.core.errors import InputError
from polyfuse.data.augmentation.table import spread
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.explanation import FAST, AudioPart, Effort, ImagePart, TablePart, TextPart, explain_model
from polyfuse.explanation.counterfactual import MOVED, counterfactuals, observed
from polyfuse.explanation.question import Question
from polyfuse.explanation.subjects import subject_of
from polyfuse.inference import score
from polyfuse.model import FusionModel

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "augmentation": "none",
    "fusion": "concat",
    "training": {"epochs": 12, "trackers": [], "compute": "float32"},
}


def rows_of(predictor: pf.Predictor, table: pd.DataFrame) -> Rows:
    return read_rows(read_table(table, media_root=None), predictor.schema, training=False, answers=True)


def two_tables(rows: int = 240) -> pd.DataFrame:
    """Return numbers of which the sum of five decides, in two modalities, and a category that decides nothing."""
    drawn = np.random.default_rng(0)
    table = pd.DataFrame(drawn.normal(size=(rows, 6)), columns=list("abcdef"))
    table["whole"] = drawn.integers(0, 5, rows)
    table["colour"] = drawn.choice(["red", "green", "blue"], rows)
    total = table[list("abcef")].sum(axis=1)
    table["y"] = np.where(total > 0, "up", "down")
    table["amount"] = total * 10
    return table


@pytest.fixture(scope="module")
def constant(table: pd.DataFrame) -> pf.Predictor:
    """Return a predictor that always answers the same."""
    predictor = pf.Predictor("y", modalities=TWO, **SETTINGS | {"training": {"epochs": 1, "trackers": []}})
    predictor.fit(table.drop(columns="amount"), progress=False)
    head: Any = predictor.model.head
    with torch.no_grad():
        head.out[1].weight.zero_()
    return predictor


TWO = {"one": {"columns": ["a", "b", "e", "whole"]}, "two": {"columns": ["c", "f", "d", "colour"]}}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return two_tables()


@pytest.fixture(scope="module", params=["concat", "boosting"])
def predictor(request: pytest.FixtureRequest, table: pd.DataFrame) -> pf.Predictor:
    settings = {**SETTINGS, "fusion": request.param}
    return pf.Predictor("y", modalities=TWO, **settings).fit(table.drop(columns="amount"), progress=False)


def altered(table: pd.DataFrame, row: int, cells: dict[str, Any]) -> dict[str, Any]:
    return {**table.drop(columns=["y", "amount"]).loc[row].to_dict(), **cells}


def test_a_counterfactual_holds_and_nothing_smaller_does(predictor: pf.Predictor, table: pd.DataFrame) -> None:
    rows = rows_of(predictor, table)
    scale = {column.name: spread(column.quantiles) for column in predictor.schema.columns if column.quantiles}
    sizes = []
    # The rows farthest from the border need more columns than one.
    order = np.argsort(-table["amount"].abs().to_numpy(), kind="stable")
    for row in [*order[:3].tolist(), *order[-3:].tolist()]:
        question = Question(predictor.model, rows, row, CPU)
        found = counterfactuals(question).columns
        assert found is not None
        cells = {str(change.column): change.after for change in found.changes}
        sizes.append(len(cells))
        said = predictor.predict(altered(table, row, cells), progress=False)[0]
        assert said == found.answer != question.answer
        moves = [abs(v - table.loc[row, k]) / scale[k] if k in scale else 1.0 for k, v in cells.items()]
        assert found.distance == pytest.approx(sum(moves), rel=1e-6)
        single = [
            (column.name, value)
            for column in predictor.schema.columns
            for value in observed(column)
            if value != table.loc[row, column.name]
        ]
        others = pd.DataFrame([altered(table, row, {name: value}) for name, value in single])
        turned = (predictor.predict(others, progress=False) != question.answer).to_numpy()
        if len(cells) > 1:
            assert not turned.any()
            continue
        near = [
            abs(value - table.loc[row, name]) / scale[name] if name in scale else 1.0
            for (name, value), other in zip(single, turned, strict=True)
            if other
        ]
        assert found.distance == pytest.approx(min(near))
    assert set(sizes) > {1}


def test_whole_numbers_stay_whole_and_only_what_was_seen_is_tried(predictor: pf.Predictor) -> None:
    columns = {column.name: column for column in predictor.schema.columns}
    assert observed(columns["whole"]) == [0, 1, 2, 3, 4]
    assert set(observed(columns["colour"])) == {"red", "green", "blue"}
    values = observed(columns["a"])
    assert values == [columns["a"].quantiles[5 * i] for i in range(11)]
    assert observed(columns["a"].model_copy(update={"quantiles": [1.0] * 51})) == []


def test_modalities_taken_away_or_swapped(predictor: pf.Predictor, table: pd.DataFrame) -> None:
    rows = rows_of(predictor, table)
    found = explain_model(predictor.model, rows.subset(range(12)), CPU, "occlusion", train=rows, effort=FAST)
    removed = swapped = 0
    for one in found.rows:
        row = int(one.row)
        assert one.counterfactuals is not None
        told = one.counterfactuals
        gone = {
            name: predictor.predict(table.loc[[row]], without=[name], progress=False).iloc[0] for name in ("one", "two")
        }
        assert (told.removed is not None) == any(said != one.answer for said in gone.values())
        assert told.tried["removed"] == 2
        if told.removed is not None:
            removed += 1
            assert len(told.removed.changes) == 1
            assert gone[told.removed.changes[0].modality] == told.removed.answer
        if told.swapped is None:
            continue
        swapped += 1
        (change,) = told.swapped.changes
        donor = int(change.after.removeprefix("that of row "))
        cells = table.loc[donor, predictor.schema.modalities[change.modality]].to_dict()
        assert predictor.predict(altered(table, row, cells), progress=False)[0] == told.swapped.answer != one.answer
        said = str(found)
        assert f"other answer, swapped: {change.modality} that of row {donor}" in said
    assert 0 < removed < 12
    assert swapped > 2


def test_none_found_is_said(table: pd.DataFrame, constant: pf.Predictor) -> None:
    found = constant.explain(table, train=table, rows=1, fast=True, progress=False)
    told = found.rows[0].counterfactuals
    assert told is not None
    assert (told.columns, told.removed, told.swapped) == (None, None, None)
    assert told.tried["columns"] > 40
    assert told.tried["removed"] == 2
    assert told.tried["swapped"] == 0  # there is no row with another answer
    assert "other answer, columns: none found" in str(found)
    for part in found.rows[0].parts.values():
        assert np.abs(part.weights).max() == 0  # type: ignore[attr-defined]


def test_neighbours_are_those_of_all_rows_by_hand(predictor: pf.Predictor, table: pd.DataFrame) -> None:
    rows = rows_of(predictor, table)
    effort = replace(FAST, points=2, orders=1)
    found = explain_model(predictor.model, rows.subset([5, 9]), CPU, "occlusion", train=rows, effort=effort)
    assert found.compared == 240
    if not isinstance(predictor.model, FusionModel):
        assert [one.neighbours[0].row for one in found.rows] == ["5", "9"]
        return
    model: Any = predictor.model
    inputs = {n: model.encoder(n).prepare([rows.value(n, row) for row in range(240)]) for n in model.modalities}
    with torch.no_grad():
        fused = model.fusion(model.encode(inputs, rows.present), rows.present).pooled.double().numpy()
    unit = fused / np.sqrt((fused**2).sum(1, keepdims=True))
    for one in found.rows:
        far = 1 - unit @ unit[int(one.row)]
        order = np.argsort(far)[:5]
        assert [int(near.row) for near in one.neighbours] == order.tolist()
        np.testing.assert_allclose([near.distance for near in one.neighbours], far[order].clip(0), atol=1e-5)
        assert [near.truth for near in one.neighbours] == table["y"].iloc[order].tolist()
        said = predictor.predict(table.iloc[order], progress=False).tolist()
        assert [near.answer for near in one.neighbours] == said


def test_learners_are_explained_by_occlusion(predictor: pf.Predictor, table: pd.DataFrame) -> None:
    plain = predictor.explain(table, rows=6, progress=False)
    parts = [part for row in plain.rows for part in row.parts.values()]
    trees = not isinstance(predictor.model, FusionModel)
    assert {part.method for part in parts} == {"occlusion" if trees else "integrated_gradients"}
    for name in ("integrated_gradients", "gradient_input") if trees else ():
        with pytest.raises(InputError, match="learners such as trees have a part in it"):
            predictor.explain(table, method=name, progress=False)  # type: ignore[arg-type]
    # Only a, b, c, e and f decide.
    size: dict[str, list[float]] = {}
    for part in parts:
        assert isinstance(part, TablePart)
        for name, weight in zip(part.names, part.weights, strict=True):
            size.setdefault(name, []).append(abs(weight))
    mean = {name: np.mean(values) for name, values in size.items()}
    assert min(mean[name] for name in "abcef") > max(mean[name] for name in ("d", "whole", "colour"))
    for some in plain.gains.values():
        assert some["typical values"].deletion.low > 0
        assert some["typical values"].insertion.low > 0


def test_a_regression_is_explained_in_its_unit(table: pd.DataFrame) -> None:
    predictor = pf.Predictor("amount", modalities=TWO, **SETTINGS).fit(table.drop(columns="y"), progress=False)
    found = predictor.explain(table, rows=3, progress=False)
    assert found.explains == "value in the unit of the target"
    for row in found.rows:
        assert (row.score, row.label) == (None, None)
        assert row.output == pytest.approx(row.answer, rel=1e-5)
        assert row.counterfactuals is not None
        assert row.counterfactuals.columns is not None
        assert abs(row.counterfactuals.columns.answer - row.answer) > MOVED * predictor.schema.target.std
        for name, part in row.parts.items():
            assert isinstance(part, TablePart)
            assert part.convergence is not None
            cells = dict(zip(part.names, part.replaced, strict=True))
            other = predictor.predict(altered(table, int(row.row), cells), progress=False)[0]
            assert sum(part.weights) == pytest.approx(row.answer - other, rel=0.03, abs=0.2), name


def test_several_labels_dates_vectors_and_rows_that_lack_all() -> None:
    drawn = np.random.default_rng(0)
    vectors = drawn.normal(size=(60, 6)).astype(np.float32)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(drawn.integers(0, 300, 60), unit="D")
    labels = [[name for name, on in (("plus", v[0] > 0), ("more", v[1] > 0)) if on] for v in vectors]
    table = pd.DataFrame({"vector": list(vectors), "other": list(vectors[:, ::-1].copy()), "day": days, "y": labels})
    table["n"] = drawn.normal(size=60)
    columns = {"vector": "embedding", "other": "embedding"}
    modalities = {"vectors": {"columns": ["vector", "other"]}, "table": {"columns": ["day", "n"]}}
    predictor = pf.Predictor("y", columns=columns, modalities=modalities, **SETTINGS).fit(table, progress=False)
    found = predictor.explain(table, rows=2, fast=True, progress=False)
    for row in found.rows:
        assert isinstance(row.answer, list)
        assert row.label in ("plus", "more")
        by_name = {name: part for part in row.parts.values() for name in getattr(part, "names", ())}
        vector, day = by_name["vector"], by_name["day"]
        assert vector.method == "integrated_gradients"
        assert vector.convergence is not None
        assert isinstance(vector, TablePart)
        assert vector.values == ["vector of 6"] * 2
        assert np.abs(vector.weights).min() > 1e-4
        assert isinstance(day, TablePart)
        assert "2024-" in day.values[day.names.index("day")]
        assert day.weights[day.names.index("day")] != 0
    lone = predictor.explain({"vector": None, "other": None, "day": None, "n": None}, progress=False).rows[0]
    assert lone.parts == {}
    assert lone.counterfactuals is None
    assert lone.score == pytest.approx(float(predictor.model.head.prior().max()))


def pictures(rows: int = 120) -> pd.DataFrame:
    """Return pictures with a red patch in one corner or a blue one in the other, and notes of which a word decides."""
    drawn = np.random.default_rng(0)
    made = []
    for i in range(rows):
        pixels = drawn.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        place = slice(0, 4) if i % 2 else slice(12, 16)
        pixels[place, place] = (255, 0, 0) if i % 2 else (0, 0, 255)
        words = [*drawn.choice(list("efghijklm"), 5), ["cat", "dog"][i % 2]]
        drawn.shuffle(words)
        made.append({"photo": Image.fromarray(pixels), "note": " ".join(words), "y": ["no", "yes"][i % 2]})
    return pd.DataFrame(made)


def test_attributions_find_what_decides(tiny_model: Callable[[str], str]) -> None:
    table, settings = (
        pictures(),
        SETTINGS | {"training": SETTINGS["training"] | {"epochs": 12, "batch_size": 8, "patience": 12}},
    )
    image = pf.Predictor("y", **settings, modalities={"image": {"columns": ["photo"]}})
    image.fit(table[["photo", "y"]], progress=False)
    assert image.evaluate(table[["photo", "y"]], progress=False)["accuracy"] > 0.95
    for method in ("integrated_gradients", "occlusion"):
        found = image.explain(table[["photo"]], rows=3, method=method, fast=True, progress=False)  # type: ignore[arg-type]
        for row in found.rows:
            part = row.parts["image"]
            assert isinstance(part, ImagePart)
            at = slice(0, 4) if row.answer == "yes" else slice(12, 16)
            weights = part.weights.clip(min=0)
            assert weights[at, at].sum() > 0.25 * weights.sum()  # on a sixteenth of the pixels
        for gain in found.gains["image"].values():
            assert gain.better == 1
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    text = pf.Predictor("y", **settings, modalities={"text": {"columns": ["note"], "encoder": encoder}})
    text.fit(table[["note", "y"]], progress=False)
    assert text.evaluate(table[["note", "y"]], progress=False)["accuracy"] > 0.95
    found = text.explain(table[["note"]], rows=3, fast=True, progress=False)
    for row in found.rows:
        assert row.parts["text"].method == "integrated_gradients"
        assert row.parts["text"].ranked()[0][0] == {"no": "cat", "yes": "dog"}[row.answer]
    assert all(gain.better == 1 for gain in found.gains["text"].values())


def notes(rows: int = 80) -> pd.DataFrame:
    """Return a note of which one word decides, a second one that says nothing and may lack, and a number."""
    drawn = np.random.default_rng(0)
    label = np.arange(rows) % 2
    said = [" ".join([*drawn.choice(list("efghijklm"), 3), ["cat", "dog"][y], "x"]) for y in label]
    more = [None if i % 3 else " ".join(drawn.choice(list("nopqrst"), 4)) for i in range(rows)]
    return pd.DataFrame({"note": said, "more": more, "n": drawn.normal(size=rows), "y": np.array(["no", "yes"])[label]})


@pytest.fixture(scope="module")
def reader(tiny_model: Callable[[str], str]) -> pf.Predictor:
    """Return an ensemble of learners that read words."""
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    modalities = {"text": {"columns": ["note", "more"], "encoder": encoder}, "table": {"columns": ["n"]}}
    fusion = {"name": "auto", "folds": 2, "candidates": ["linear", "words"]}
    types = {"note": "text", "more": "text"}
    settings = SETTINGS | {"fusion": fusion, "modalities": modalities, "columns": types}
    return pf.Predictor("y", **settings).fit(notes(), progress=False)


def test_learners_that_read_words(reader: pf.Predictor) -> None:
    table = notes()
    assert reader.model.reads_text
    found = reader.explain(table, rows=3, fast=True, train=table, progress=False)
    for row in found.rows:
        at = int(row.row)
        proba = reader.predict_proba(table.loc[[at]], progress=False).iloc[0]
        assert row.answer == reader.predict(table.loc[[at]], progress=False).iloc[0]
        assert row.score == pytest.approx(proba.max(), abs=1e-6)
        part = row.parts["text"]
        assert isinstance(part, TextPart)
        assert part.method == "occlusion"
        assert part.ranked()[0][0] == {"no": "cat", "yes": "dog"}[row.answer]
        place = part.words.index(part.ranked()[0][0])
        masked = table.loc[[at]].assign(note=table.loc[at, "note"].replace(part.words[place], "[UNK]"))
        said = reader.predict_proba(masked, progress=False).iloc[0]
        # Raw outputs are the logarithms of probabilities before calibration, which keeps their order.
        assert (part.weights[place] > 0) == (said[row.answer] < proba[row.answer])
        both = rows_of(reader, pd.concat([table.loc[[at]], masked]))
        raw = score(reader.model, both, CPU)[0].log().numpy()
        code = reader.schema.target.levels.index(row.answer)
        assert part.weights[place] == pytest.approx(raw[0, code] - raw[1, code], abs=1e-4)
        assert row.output == pytest.approx(raw[0, code], abs=1e-4)
        assert part.columns == ["note"] * 5 + ["more"] * (0 if at % 3 else 4)
        assert row.counterfactuals is not None
        assert row.counterfactuals.swapped is not None
        assert row.neighbours[0].row == row.row


def test_long_texts_are_taken_away_in_groups_and_what_is_not_read_has_no_weight(
    tiny_model: Callable[[str], str],
) -> None:
    encoder = {"name": "transformer", "checkpoint": tiny_model("bert")}
    table = notes().assign(long=[" ".join(["cat dog a b"] * 25)] * 80)[["long", "n", "y"]]
    modalities = {"text": {"columns": ["long"], "encoder": encoder}, "table": {"columns": ["n"]}}
    settings = SETTINGS | {"modalities": modalities, "columns": {"long": "text"}}
    settings |= {"training": {"epochs": 1, "trackers": []}}
    predictor = pf.Predictor("y", **settings).fit(table, progress=False)
    subject = subject_of(Question(predictor.model, rows_of(predictor, table), 0, CPU), "text", 0)
    assert (len(subject.piece_of), subject.pieces) == (100, 64)
    part = predictor.explain(table, rows=1, fast=True, progress=False).rows[0].parts["text"]
    assert isinstance(part, TextPart)
    assert part.method == "integrated_gradients"
    read = predictor.model.encoder("text").max_tokens - 2  # type: ignore[operator]
    assert np.abs(part.weights[:read]).min() > 0
    assert np.abs(part.weights[read:]).max() == 0
    pieces = np.random.default_rng(0).normal(size=64)
    np.testing.assert_allclose(subject.summed(subject.spread(pieces)), pieces)


def test_a_sound_is_shown_as_it_is() -> None:
    time = np.arange(8000) / 8000
    waves = [(0.5 * np.sin(2 * np.pi * pitch * time)).astype(np.float32) for pitch in (500, 2000)] * 30
    table = pd.DataFrame({"sound": [(wave, 8000) for wave in waves], "y": ["low", "high"] * 30})
    settings = SETTINGS | {"training": {"epochs": 1, "trackers": []}}
    encoder = {"name": "mel_convnet", "mels": 16, "width": 8, "dim": 16}
    modalities = {"audio": {"columns": ["sound"], "encoder": encoder}}
    predictor = pf.Predictor("y", **settings, modalities=modalities).fit(table, progress=False)
    effort = Effort(steps=4, most=4, points=2, orders=1)
    found = explain_model(predictor.model, rows_of(predictor, table).subset([0, 1]), CPU, effort=effort)
    loudest = []
    for row in found.rows:
        part = row.parts["audio"]
        assert isinstance(part, AudioPart)
        assert (part.rate, part.seconds) == (8000, pytest.approx(1, abs=1e-3))
        assert part.wave.shape == (256, 2)
        assert part.wave[1:-1, 0].min() == pytest.approx(-0.5, abs=1e-2)
        assert part.wave[1:-1, 1].max() == pytest.approx(0.5, abs=1e-2)
        assert part.weights.shape == (256,)
        assert part.mel.min() >= -80
        assert part.mel.max() == 0
        loudest.append(int(part.mel.mean(1).argmax()))
    # 2595 log10(1 + f / 700): of 40 bands up to 4 kHz, 500 Hz lies nearest to the 12th, 2 kHz to the 29th.
    assert loudest == [11, 28]
