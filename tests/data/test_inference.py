"""Types, modalities and targets are what a person would say they are."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyfuse.core.errors import DataError, InputError
from polyfuse.data.cells import CellError, moment, number
from polyfuse.data.inference import infer_schema
from polyfuse.data.kinds import guess_type
from polyfuse.data.reading import read_table
from polyfuse.data.schema import ColumnType, Schema, Target
from polyfuse.data.statistics import describe, quantiles

N = 60
RANDOM = np.random.default_rng(0)
PNG = io.BytesIO()
Image.new("L", (8, 6)).save(PNG, "PNG")
WAV = io.BytesIO()
soundfile.write(WAV, np.full(4000, 0.1), 8000, format="WAV")
PROSE = [f"the {['red', 'old', 'warm'][i % 3]} coat number {i} fits me" for i in range(N)]

COLUMNS: dict[str, tuple[list[Any], str | None, str]] = {
    "prose": (PROSE, "text", ""),
    "repeated prose": ([PROSE[i % 20] for i in range(N)], "text", ""),
    "answers in prose": ([PROSE[i % 4] for i in range(N)], "category", ""),
    "few notes": (PROSE[:8], "text", ""),
    "titles": ([f"Nice {i}" for i in range(N)], "text", ""),
    "chinese": ([f"这件外套很暖和{chr(0x4E00 + i)}" for i in range(N)], "text", ""),
    "few words": ([["red", "green", "blue"][i % 3] for i in range(N)], "category", ""),
    "brands": ([f"brand{i % 25}" for i in range(N)], "category", ""),
    "booleans": ([i % 2 == 0 for i in range(N)], "category", ""),
    "flags": ([i % 2 for i in range(N)], "category", ""),
    "flags with gaps": ([[0.0, 1.0, None][i % 3] for i in range(N)], "category", ""),
    "ratings": ([1 + i % 5 for i in range(N)], "number", ""),
    "decimals": ([i / 7 for i in range(N)], "number", ""),
    "amounts": (RANDOM.integers(0, 10**6, N).tolist(), "number", ""),
    "sorted amounts": ([i * 100 + i % 3 for i in range(N)], "number", ""),
    "texts of numbers": (["n/a", "1,234", *map(str, range(0, 3 * N - 6, 3))], "number", ""),
    "dates": ([f"2020-01-{1 + i % 28:02d}" for i in range(N)], "datetime", ""),
    "times": ([f"2020-01-01T10:{i:02d}:00Z" for i in range(N)], "datetime", ""),
    "timestamps": (pd.date_range("2020-01-01", periods=N).tolist(), "datetime", ""),
    "python dates": ([datetime.date(2020, 1, 1 + i % 28) for i in range(N)], "datetime", ""),
    "durations": ([datetime.timedelta(seconds=i * 1.5) for i in range(N)], "number", ""),
    "image paths": ([f"a/{i}.JPG" if i % 4 else None for i in range(N)], "image", ""),
    "audio paths": ([Path(f"a/{i}.flac") for i in range(N)], "audio", ""),
    "image bytes": ([PNG.getvalue()] * N, "image", ""),
    "image structs": ([{"bytes": PNG.getvalue(), "path": None}] * N, "image", ""),
    "audio structs": ([{"bytes": WAV.getvalue(), "path": "x"}] * N, "audio", ""),
    "path structs": ([{"bytes": None, "path": "x.wav"}] * N, "audio", ""),
    "pil": ([Image.new("L", (4, 4))] * N, "image", ""),
    "pixels": ([np.zeros((4, 4), np.uint8)] * N, "image", ""),
    "image lists": ([["a.png", "b.png"], [], None] * (N // 3), "image", ""),
    "audio arrays": ([(np.zeros(10), 8000)] * N, "audio", ""),
    "audio dicts": ([{"array": np.zeros(10), "sampling_rate": 8000}] * N, "audio", ""),
    "vectors": ([np.arange(4.0) + i for i in range(N)], "embedding", ""),
    "number lists": ([[1, 2.5, i] for i in range(N)], "embedding", ""),
    "json vectors": ([f"[1, 2, {i}]" for i in range(N)], "embedding", ""),
    "uuids": ([str(UUID(int=i * 7**30)) for i in range(N)], "text", "identifier"),
    "codes": ([f"A{i:04d}" for i in range(N)], "text", "identifier"),
    "zip codes": ([f"0{i:04d}" for i in range(N)], "text", "identifier"),
    "row id": (RANDOM.permutation(10 * N)[:N].tolist(), "number", "identifier"),
    "userId": (list(range(N)), "number", "identifier"),
    "Unnamed: 0": (list(range(N)), "number", "identifier"),
    "counter": ([i + i // 4 for i in range(N)], "number", "identifier"),
    "Clothing ID": ([i % 20 for i in range(N)], "category", ""),
    "paid": (RANDOM.permutation(10 * N)[:N].tolist(), "number", ""),
    "same": (["x"] * N, "category", "constant"),
    "same number": ([7] * N, "category", "constant"),
    "nothing": ([None] * N, None, "missing in every row"),
    "blanks": (["", " ", None, float("nan")] * (N // 4), None, "missing in every row"),
    "label lists": ([["a", "b"]] * N, None, "none of the types"),
    "ragged": ([[1.0] * (1 + i % 5) for i in range(N)], "embedding", "different lengths"),
    "objects": ([object()] * N, None, "none of the types"),
    "raw bytes": ([b"hello"] * N, None, "none of the types"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_types(name: str) -> None:
    cells, type, reason = COLUMNS[name]
    guess = guess_type(name, cells)
    assert guess.type == type
    assert reason in guess.reason
    assert bool(reason) == bool(guess.reason)


def frame(*names: str) -> pd.DataFrame:
    columns = {name: pd.Series(COLUMNS[name][0], dtype=object) for name in names}
    return pd.DataFrame({**columns, "y": [i % 3 for i in range(N)]})


def infer(*names: str, **options: Any) -> Schema:
    return infer_schema(read_table(frame(*names)), "y", **options)


def test_default_modalities() -> None:
    schema = infer("vectors", "decimals", "prose", "titles", "pixels", "audio arrays", "few words", "dates", "same")
    assert list(schema.modalities.items()) == [
        ("image", ["pixels"]),
        ("audio", ["audio arrays"]),
        ("text", ["prose", "titles"]),
        ("table", ["decimals", "few words", "dates"]),
        ("embedding", ["vectors"]),
    ]
    assert schema.left_out == {"same": "constant: every row holds 'x'"}
    several = infer("pixels", "pil", "vectors", "number lists")
    assert several.modalities == {n: [n] for n in ("pixels", "pil", "vectors", "number lists")}


def test_names_of_modalities_are_unique() -> None:
    table = frame("prose").assign(text=[np.zeros((2, 2), np.uint8)] * N, table=[np.ones((2, 2), np.uint8)] * N)
    schema = infer_schema(read_table(table), "y")
    assert schema.modalities == {"text_image": ["text"], "table": ["table"], "text": ["prose"]}


def test_overrides() -> None:
    schema = infer(
        "codes", "few words", "decimals", types={"codes": "category", "decimals": "ignore"}, ignore=["few words"]
    )
    assert [(column.name, column.type) for column in schema.columns] == [("codes", "category")]
    assert set(schema.left_out) == {"few words", "decimals"}
    named = infer("codes", "userId", "prose", modalities={"a": ["codes"], "b": ["userId"]})
    assert [column.type for column in named.columns] == ["text", "number"]
    assert named.left_out == {"prose": "feeds no modality"}
    assert named.modalities == {"a": ["codes"], "b": ["userId"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": {"pros": "text"}}, "no column 'pros'; did you mean 'prose'"),
        ({"ignore": ["prosa"]}, "did you mean 'prose'"),
        ({"modalities": {"text": ["y"]}}, "is the target"),
        ({"modalities": {"text": ["Prose"]}}, "modalities.text: .* did you mean 'prose'"),
        ({"modalities": {"text": []}}, "at least one column"),
        ({"modalities": {"text": ["nothing"]}}, "cannot feed a modality: missing in every row"),
        ({"modalities": {"text": ["prose"]}, "ignore": ["prose"]}, "is ignored"),
        ({"task": "regression", "target": "prose"}, "a regression needs finite numbers"),
        ({"task": "multilabel"}, "multilabel needs a list"),
        ({"target": "z"}, "no column 'z', the target"),
        ({"target": "pixels"}, "a label is a word"),
        ({"target": "label lists", "task": "classification"}, "holds lists"),
        ({"target": "nothing"}, "missing in every row"),
    ],
)
def test_bad_calls(options: dict[str, Any], message: str) -> None:
    table = read_table(frame("prose", "nothing", "pixels", "label lists"))
    target = options.pop("target", "y")
    with pytest.raises(InputError, match=message):
        infer_schema(table, target, **options)


def test_no_rows() -> None:
    with pytest.raises(DataError, match="has no rows"):
        infer_schema(read_table(pd.DataFrame({"a": [], "y": []})), "y")


def test_a_table_that_only_counts_keeps_its_counter() -> None:
    schema = infer("counter", "same")
    assert schema.modalities == {"table": ["counter"]}
    assert list(schema.left_out) == ["same"]
    assert infer("same").modalities == {}


def test_statistics() -> None:
    schema = infer(
        "texts of numbers", "few words", "dates", "image structs", "audio structs", "vectors", "flags with gaps"
    )
    found = {column.name: column for column in schema.columns}
    assert found["texts of numbers"].missing == pytest.approx(1 / N)
    assert len(found["texts of numbers"].quantiles) == 51
    assert found["texts of numbers"].quantiles[-1] == 1234
    assert schema.notes[-1].startswith("column 'texts of numbers': 1 of 60 values are no numbers")
    assert found["few words"].levels == ["blue", "green", "red"]
    assert found["dates"].quantiles[0] == datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert found["image structs"].size == 8
    assert found["audio structs"].size == 8000
    assert found["audio structs"].duration == pytest.approx(0.5)
    assert found["vectors"].size == 4
    assert found["flags with gaps"].levels == ["0", "1"]
    assert found["flags with gaps"].missing == pytest.approx(1 / 3)


def test_rare_levels_are_left_out() -> None:
    table = read_table(pd.DataFrame({"a": ["x"] * 3 + ["y"] * 5 + ["rare"]}))
    column, _ = describe("a", "category", table.frame["a"].tolist(), table.media)
    assert column.levels == ["y", "x"]


def test_quantiles_are_finite() -> None:
    assert quantiles([float("nan"), float("inf")]) == []
    assert quantiles([0.0, float("inf"), 100.0])[25] == 50
    assert np.isfinite(quantiles([-1.7e308, 1.7e308])).all()


TARGETS: dict[str, tuple[list[Any], str, list[Any]]] = {
    "texts": (["b", "a"] * 30, "classification", ["a", "b"]),
    "booleans": ([True, False] * 30, "classification", [False, True]),
    "whole": ([i % 10 for i in range(N)], "classification", list(range(10))),
    "whole as floats": ([1.0, 2.0, float("nan")] * 20, "classification", [1, 2]),
    "mixed": ([1, "a", 1] * 20, "classification", ["1", "a"]),
    "codes": ([i % 30 for i in range(600)], "classification", list(range(30))),
    "ages": ([20 + i % 50 for i in range(600)], "regression", []),
    "one each": (list(range(12)), "regression", []),
    "decimals": ([i / 3 for i in range(N)], "regression", []),
    "numbers as text": ([f"{i},000" for i in range(1, N)], "regression", []),
    "lists": ([["a"], ["b", "a"], [], ("b",)] * 15, "multilabel", ["a", "b"]),
    "arrays": ([np.asarray([1, 2]), np.asarray([2])] * 30, "multilabel", [1, 2]),
    "json lists": (['["a"]', '["b", "a"]'] * 30, "multilabel", ["a", "b"]),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str) -> None:
    cells, task, levels = TARGETS[name]
    table = read_table(pd.DataFrame({"x": RANDOM.normal(size=len(cells)), "y": pd.Series(cells, dtype=object)}))
    schema = infer_schema(table, "y")
    assert schema.target.task == task
    assert schema.target.levels == levels
    assert [type(level) for level in schema.target.levels] == [type(level) for level in levels]
    again = Schema.model_validate(json.loads(json.dumps(schema.as_json())))
    assert again == schema
    assert [type(level) for level in again.target.levels] == [type(level) for level in levels]


def test_figures_of_targets() -> None:
    def target(cells: list[Any], **options: Any) -> Target:
        table = read_table([{"x": i / 3, "y": cell} for i, cell in enumerate(cells)])
        return infer_schema(table, "y", **options).target

    assert target(["a", "b", "b", None]).frequencies == pytest.approx([1 / 3, 2 / 3])
    assert target([["a"], ["a", "b", "a"], [], None]).frequencies == pytest.approx([2 / 3, 1 / 3])
    numbers = target([1.5, 2.5, 4.0, float("inf")])
    assert (numbers.mean, numbers.std) == (pytest.approx(8 / 3), pytest.approx(np.std([1.5, 2.5, 4.0])))
    assert target([2.5, 2.5]).std == 1.0
    assert np.isfinite(target([1.7e308, -1.7e308, 0.5]).std)
    assert target([0, 1, 0, 1], task="regression").mean == 0.5
    assert target([0.5, 1.5] * 5, task="classification").levels == [0.5, 1.5]


def test_lengths_of_time_beyond_nanoseconds() -> None:
    days = 106_751_992
    assert number(datetime.timedelta(days=days)) == days * 86400.0
    assert number(np.timedelta64(days, "D")) == days * 86400.0
    assert number(np.timedelta64(1500, "ms")) == number(pd.Timedelta("1.5s")) == 1.5
    assert moment(np.datetime64("2970-01-01")) == moment("2970-01-01") > 0
    assert moment(np.datetime64(10**6, "D")) == 10**6 * 86400.0
    with pytest.raises(CellError, match="not months or years"):
        number(np.timedelta64(3, "M"))


ANY_CELL = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary(max_size=8), st.dates(),
    st.datetimes(), st.timedeltas(), st.decimals(), st.lists(st.floats(), max_size=3), st.lists(st.text(), max_size=3),
    st.dictionaries(st.sampled_from(["bytes", "path", "array", "x"]), st.none() | st.text(max_size=3), max_size=3),
    st.tuples(st.lists(st.floats(), max_size=2), st.integers()), st.complex_numbers(),
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.tuples(ANY_CELL, ANY_CELL), min_size=1, max_size=12), st.text(st.characters(), max_size=4))
def test_any_table_gives_a_schema_or_a_clear_error(cells: list[tuple[Any, Any]], name: str) -> None:
    records = [{name + "x": cell, "y": answer} for cell, answer in cells]
    try:
        schema = infer_schema(read_table(records), "y")
    except InputError:
        return
    assert Schema.model_validate(json.loads(json.dumps(schema.as_json(), allow_nan=False))) == schema


@settings(max_examples=60)
@given(
    st.lists(ANY_CELL, min_size=2, max_size=8),
    st.sampled_from(get_args(ColumnType)),
)
def test_any_type_can_be_asked_for(cells: list[Any], type: Any) -> None:
    schema = infer_schema(read_table([{"x": cell, "y": i % 2} for i, cell in enumerate(cells)]), "y", types={"x": type})
    assert schema.columns[0].type == type
