"""Rows as a schema reads them, and every problem in a table at once."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyfuse.core.errors import DataError, InputError
from polyfuse.core.types import Sound
from polyfuse.data import decoding
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows, rows_with
from polyfuse.data.schema import Column, Schema, Target

N = 20


@pytest.fixture
def table(tmp_path: Path) -> Table:
    rows = []
    for i in range(N):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
        soundfile.write(tmp_path / f"{i}.wav", np.full(100, 0.01 * (i + 1)), 8000)
        rows.append(
            {
                "photo": f"{i}.png",
                "sound": f"{i}.wav",
                "note": f"this is the note number {i}",
                "price": i / 3,
                "size": ["small", "large"][i % 2],
                "when": f"2020-01-{1 + i:02d}",
                "vector": [float(i), 1.0],
                "y": ["no", "yes"][i % 2],
            }
        )
    return Table(read_table(rows).frame, tmp_path, "the table")


def changed(table: Table, column: str, cells: dict[int, Any]) -> Table:
    values = table.frame[column].tolist()
    for row, cell in cells.items():
        values[row] = cell
    filled = np.empty(len(values), dtype=object)
    filled[:] = values if column != "vector" else None
    for i, value in enumerate(values):
        filled[i] = value
    return Table(table.frame.assign(**{column: filled}), table.folder, table.name)


def problems(table: Table, schema: Schema, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        read_rows(table, schema, **{"training": True, **options})
    return [str(problem) for problem in caught.value.problems]


def test_values(table: Table) -> None:
    schema = infer_schema(table, "y")
    rows = read_rows(table, schema, training=True)
    assert list(schema.modalities) == ["image", "audio", "text", "table", "embedding"]
    assert len(rows) == N
    assert rows.present.shape == (N, 5)
    assert bool(rows.present.all())
    assert rows.answers == ["no", "yes"] * (N // 2)
    (images,) = rows.value("image", 3)  # type: ignore[misc]
    assert images[0].getpixel((0, 0)) == (3, 0, 0)
    (sound,) = rows.value("audio", 3)  # type: ignore[misc]
    assert isinstance(sound, Sound)
    assert rows.value("text", 3) == ("this is the note number 3",)
    assert rows.value("table", 3) == (1.0, "large", pd.Timestamp("2020-01-04").timestamp())
    (vector,) = rows.value("embedding", 3)  # type: ignore[misc]
    assert vector.dtype == np.float32
    assert vector.tolist() == [3.0, 1.0]


def test_missing_cells_and_columns(table: Table) -> None:
    schema = infer_schema(table, "y")
    other = changed(changed(changed(table, "note", {0: " "}), "price", {0: None}), "photo", {1: None})
    rows = read_rows(other, schema, training=False)
    assert rows.value("text", 0) is None
    assert rows.digest("text", 0) is None
    assert rows.value("table", 0) == (None, "small", pd.Timestamp("2020-01-01").timestamp())
    assert rows.present[:2].tolist() == [[True, True, False, True, True], [False, True, True, True, True]]
    part = Table(table.frame[["note"]].assign(extra=1), table.folder, "part")
    rows = read_rows(part, schema, training=False)
    assert rows.present.any(0).tolist() == [False, False, True, False, False]
    with pytest.raises(InputError, match="read without their answers"):
        _ = rows.answers
    with pytest.raises(InputError, match="no column 'y', the target"):
        read_rows(part, schema, training=False, answers=True)


def test_order_index_and_subsets_are_kept(table: Table) -> None:
    frame = table.frame.set_index(pd.Index([f"r{i}" for i in range(N)]))
    rows = read_rows(Table(frame, table.folder, "t"), infer_schema(table, "y"), training=True)
    part = rows.subset([5, 2]).subset([1, 0])
    assert list(part.index) == ["r2", "r5"]
    assert part.positions.tolist() == [2, 5]
    assert part.answers == ["no", "yes"]
    assert part.present.shape == (2, 5)
    assert part.digest("audio", 0) == rows.digest("audio", 2)
    assert part.value("text", 1) == rows.value("text", 5)


def test_digests_tell_content_and_order_apart(table: Table) -> None:
    schema = infer_schema(table, "y")
    rows = read_rows(table, schema, training=True)
    for modality in schema.modalities:
        digests = [rows.digest(modality, row) for row in range(N)]
        assert len(set(digests)) == N
        assert all(isinstance(digest, bytes) and len(digest) == 16 for digest in digests)
    data = (table.folder / "3.png").read_bytes()  # type: ignore[operator]
    other = read_rows(changed(table, "photo", {0: data, 1: {"bytes": data, "path": "?"}}), schema, training=True)
    assert other.digest("image", 0) == other.digest("image", 1) == rows.digest("image", 3)
    texts = pd.DataFrame({"a": ["x", "y", "x"], "b": ["y", "x", None]})
    columns = [Column(name=name, type="text") for name in "ab"]
    two = Schema(columns=columns, modalities={"t": ["a", "b"]}, target=Target(name="y", task="regression"))
    found = read_rows(read_table(texts), two, training=False)
    assert len({found.digest("t", row) for row in range(3)}) == 3


def test_decoding_is_done_once_while_there_is_room(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = infer_schema(table, "y", modalities={"image": ["photo"]})
    decoded = []
    decode = decoding.decode_images
    monkeypatch.setattr(decoding, "decode_images", lambda loaded: decoded.append(1) or decode(loaded))

    def look(rows: Rows) -> int:
        decoded.clear()
        for row in range(N):
            assert rows.value("image", row)[0][0].getpixel((0, 0)) == (row, 0, 0)  # type: ignore[index]
            rows.digest("image", row)
        return len(decoded)

    assert look(read_rows(table, schema, training=True)) == 0
    assert look(read_rows(table, schema, training=True, memory=5 * 48)) == N - 5
    assert look(read_rows(table, schema, training=True, memory=0)) == N


def test_all_problems_are_reported_together(table: Table) -> None:
    schema = infer_schema(table, "y")
    wav = io.BytesIO()
    soundfile.write(wav, np.full(1000, 0.1), 8000, format="WAV")
    broken = changed(
        table, "photo", {0: "none.png", 1: "gone.png", 2: b"hello", 3: "../x.png", 4: "http://x.org/a.png"}
    )
    broken = changed(broken, "sound", {5: wav.getvalue()[:500], 6: (np.zeros(0), 8000)})
    broken = changed(broken, "price", {7: float("inf"), 8: float("-inf"), 9: [1, 2]})
    broken = changed(broken, "vector", {10: [1.0], 11: "x", 12: [1.0, float("nan")]})
    broken = changed(broken, "note", {13: ["a", "list"]})
    broken = changed(broken, "y", {14: None, 15: "maybe"})
    found = problems(broken, schema)
    assert len(found) == 14
    for expected in (
        f"column 'photo': there is no such file in {table.folder}, e.g. 'none.png' (rows 0, 1)",
        "column 'photo': this is no image that can be read: 5 bytes (row 2)",
        "column 'photo': a URL is never fetched; download the file and name its path: 'http://x.org/a.png' (row 4)",
        "column 'sound': the recording is empty (row 6)",
        "column 'price': a number must be finite; leave the cell empty where there is none, e.g. inf (rows 7, 8)",
        "column 'price': a number is expected: a list (row 9)",
        "column 'vector': an embedding of 2 numbers is expected: one of 1 (row 10)",
        "column 'vector': an embedding holds numbers that are not finite (row 12)",
        "column 'note': text is expected: a list (row 13)",
        "column 'y': the target is missing; fill it in, or leave the row out (row 14)",
        "column 'y': the label is not among those of the training rows: 'maybe' (row 15)",
    ):
        assert expected in found
    assert any("'photo': the path leaves the folder" in line and line.endswith("(row 3)") for line in found)
    assert any("cut off" in line and line.endswith("(row 5)") for line in found)

    rows = read_rows(broken, schema, training=False, on_bad_row="absent")
    assert len(rows) == N
    assert rows.skipped == {}
    assert rows.present[:5, 0].tolist() == [False] * 5
    assert rows.present[5:7, 1].tolist() == [False] * 2
    assert rows.value("table", 7)[0] is None  # type: ignore[index]
    rows = read_rows(broken, schema, training=True, on_bad_row="absent")
    assert sorted(rows.skipped) == [14, 15]
    assert len(rows.answers) == len(rows) == N - 2
    assert rows.notes[-1].startswith("2 of 20 rows were left out")
    with pytest.raises(DataError, match="4 rows with a target: a training needs at least 10"):
        read_rows(broken, schema, training=True, on_bad_row="skip")
    rows = read_rows(broken, schema, training=False, on_bad_row="skip")
    assert rows.positions.tolist() == [14, 15, 16, 17, 18, 19]
    assert "there is no such file" in rows.skipped[0]


def test_a_thousand_missing_files_are_one_problem() -> None:
    table = read_table([{"photo": f"{i}.png", "y": i % 2} for i in range(1000)])
    (found,) = problems(table, infer_schema(table, "y"))
    assert found.endswith("(rows 0, 1, 2, 3, 4, 5, 6, 7 and 992 more)")
    with pytest.raises(DataError, match="no row is left without a problem"):
        read_rows(table, infer_schema(table, "y"), training=True, on_bad_row="skip")


def training(cells: list[Any], **options: Any) -> list[str]:
    table = read_table([{"x": i / 3, "y": cell} for i, cell in enumerate(cells)])
    return problems(table, infer_schema(table, "y", **options))


def test_tables_that_cannot_be_learned_from() -> None:
    assert training(["a"]) == ["1 row with a target: a training needs at least 10"]
    assert training(["a", "b"] * 4) == ["8 rows with a target: a training needs at least 10"]
    assert training(["a"] * 12) == ["column 'y': the target is 'a' in every row: there is nothing to tell apart"]
    assert training([2.5] * 12) == ["column 'y': the target is 2.5 in every row: there is nothing to tell apart"]
    assert training([["a"]] * 12) == ["column 'y': the target is ['a'] in every row: there is nothing to tell apart"]
    (many,) = training([f"class {i}" for i in range(10_000)])
    assert many.startswith("column 'y': 10,000 classes: at most 1,000 can be learned from 10,000 rows")
    assert training([1.5, 2.5] * 8 + [float("inf")]) == ["column 'y': the target must be finite: inf (row 16)"]
    table = read_table([{"id": f"A{i}", "same": "x", "y": i % 2} for i in range(20)])
    (nothing,) = problems(table, infer_schema(table, "y"))
    assert nothing.startswith("there is nothing to learn from: every column is left out (id: identifier")
    table = read_table([{"y": i % 2} for i in range(20)])
    assert problems(table, infer_schema(table, "y")) == ["there is no other column; set the type of one to use it"]


def test_empty_tables() -> None:
    table = read_table([{"x": i / 3, "y": i % 2} for i in range(20)])
    schema = infer_schema(table, "y")
    empty = Table(table.frame[:0], None, "nothing.csv")
    for options in ({"training": True}, {"training": False, "answers": True}):
        for mode in ("raise", "skip", "absent"):
            assert problems(empty, schema, on_bad_row=mode, **options)[0].startswith(
                ("nothing.csv has no rows", "0 rows")
            )
    rows = read_rows(empty, schema, training=False)
    assert len(rows) == 0
    assert rows.present.shape == (0, 1)


def test_labels_keep_their_kind_however_the_table_was_read() -> None:
    def answers(train: list[Any], test: list[Any]) -> list[Any]:
        table = read_table([{"x": i / 3, "y": cell} for i, cell in enumerate(train)])
        other = read_table(pd.DataFrame({"x": [0.5] * len(test), "y": pd.Series(test, dtype=object)}))
        return read_rows(other, infer_schema(table, "y"), training=False, answers=True).answers

    for train, test, expected in (
        ([0, 1] * 10, [1.0, "0", True, np.int64(1)], [1, 0, 1, 1]),
        (["0", "1"] * 10, [0, 1.0, "1"], ["0", "1", "1"]),
        ([True, False] * 10, ["True", 1, np.bool_(False)], [True, True, False]),
        ([["b"], ["a"]] * 10, [["b", "a", None, "b"], []], [["a", "b"], []]),
        ([0.5, 1.25, 7.0] * 10, ["1,000", 3], [1000.0, 3.0]),
    ):
        found = answers(train, test)
        assert found == expected
        assert [type(answer) for answer in found] == [type(answer) for answer in expected]


def test_categories_and_numbers_in_any_form() -> None:
    def cells(type: Any, values: list[Any]) -> list[Any]:
        schema = Schema(
            columns=[Column(name="x", type=type)],
            modalities={"m": ["x"]},
            target=Target(name="y", task="regression"),
        )
        table = read_table(pd.DataFrame({"x": pd.Series(values, dtype=object)}))
        rows = read_rows(table, schema, training=False)
        return [value[0] if (value := rows.value("m", row)) else None for row in range(len(rows))]

    assert cells("category", [3, 3.0, "3", True, np.bool_(False), 0.5, None]) == [
        "3",
        "3",
        "3",
        "True",
        "False",
        "0.5",
        None,
    ]
    assert cells("number", ["1,234", " 7 ", "n/a", True, "", "1_0"]) == [1234.0, 7.0, None, 1.0, None, None]
    days = ["1970-01-02", pd.Timestamp("1970-01-02"), pd.Timestamp("1970-01-02 01:00", tz="Europe/Paris"), "soon"]
    assert cells("datetime", days) == [86400.0, 86400.0, 86400.0, None]
    assert cells("text", ["a\0b", "😀", "\ud800", "\t", 5]) == ["a\0b", "😀", "\ufffd", None, "5"]
    assert cells("embedding", ["[1, 2]", (1, 2), [], None])[2:] == [None, None]


class Bars:
    def __init__(self) -> None:
        self.seen: list[tuple[str, float | None, float]] = []

    @contextmanager
    def bar(self, what: str, total: float | None = None) -> Any:
        self.done = 0.0
        yield self
        self.seen.append((what, total, self.done))

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps


def test_progress_counts_what_is_decoded(table: Table) -> None:
    bars = Bars()
    read_rows(table, infer_schema(table, "y"), training=True, progress=bars)
    assert bars.seen == [("Checking", 3 * N, 3 * N)]


def test_single_rows_of_a_class_are_noted() -> None:
    table = read_table([{"x": i / 3, "y": "rare" if i == 0 else "ab"[i % 2]} for i in range(20)])
    rows = read_rows(table, infer_schema(table, "y"), training=True)
    assert rows.notes == ["target 'y': labels of a single row: 'rare'"]


CELL = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5), st.binary(max_size=8),
    st.datetimes(), st.lists(st.floats(), max_size=3), st.lists(st.text(max_size=3), max_size=3), st.decimals(),
)  # fmt: skip
TYPES = ("text", "image", "audio", "number", "category", "datetime", "embedding")


@settings(max_examples=80)
@given(st.lists(st.lists(CELL, min_size=8, max_size=8), min_size=1, max_size=6), st.sampled_from(["skip", "absent"]))
def test_any_cell_in_any_column(cells: list[list[Any]], mode: Any) -> None:
    schema = Schema(
        columns=[Column(name=name, type=name) for name in TYPES],
        modalities={name: [name] for name in TYPES},
        target=Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5]),
    )
    table = read_table([dict(zip((*TYPES, "y"), row, strict=True)) for row in cells])
    try:
        rows = read_rows(table, schema, training=False, on_bad_row=mode)
    except DataError:
        assert mode == "skip"
        return
    for row in range(len(rows)):
        for i, name in enumerate(TYPES):
            value, digest = rows.value(name, row), rows.digest(name, row)
            assert (value is not None) == (digest is not None) == bool(rows.present[row, i])
            if name in ("number", "datetime") and value is not None:
                assert np.isfinite(value[0])
            if name in ("text", "category") and value is not None:
                value[0].encode()


def test_replaced_cells_stand_in_the_place_of_others(table: Table) -> None:
    rows = read_rows(table, infer_schema(table, "y"), training=True).subset([3, 5, 7])
    image = Image.new("RGB", (2, 2), (9, 9, 9))
    others: dict[tuple[str, int], Any] = {("photo", 0): [image], ("note", 1): "another", ("sound", 2): None}
    changed = rows.replaced(others)
    modality = {column: name for name, columns in rows.schema.modalities.items() for column in columns}
    assert changed.cell("photo", 0) == [image]
    assert changed.text(modality["note"], 1) == "another"
    assert changed.value(modality["sound"], 2) is None
    at = list(rows.schema.modalities).index(modality["sound"])
    assert changed.present[:, at].tolist() == [True, True, False]
    assert rows.present.all()
    assert rows.cell("note", 1) == "this is the note number 5"
    for name in rows.schema.modalities:
        for row in range(3):
            same = not any((column, row) in others for column in rows.schema.modalities[name])
            assert (changed.digest(name, row) == rows.digest(name, row)) is same
    assert changed.replaced({("note", 1): "this is the note number 5"}).digest(modality["note"], 1) == rows.digest(
        modality["note"], 1
    )
    assert changed.subset([2]).present[0, at].item() is False


def plain(cell: Any) -> Any:
    if isinstance(cell, list):
        return [np.asarray(image).tolist() for image in cell]
    if isinstance(cell, Sound):
        return cell.rate, cell.samples.tolist()
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def test_rows_of_decoded_cells_are_the_same_rows(table: Table) -> None:
    schema = infer_schema(table, "y")
    holes = changed(changed(changed(table, "photo", {3: None}), "price", {4: "unknown"}), "note", {5: None})
    bare = pd.DataFrame([dict.fromkeys(holes.frame.columns)])
    whole = Table(pd.concat([holes.frame, bare], ignore_index=True), holes.folder, holes.name)
    rows = read_rows(whole, schema, training=False)
    same = rows_with(rows.decoded(), len(rows), schema)
    assert len(same) == len(rows) == N + 1
    assert same.present.tolist() == rows.present.tolist()
    assert not same.present[N].any()
    for row in range(len(rows)):
        for column in schema.columns:
            assert plain(same.cell(column.name, row)) == plain(rows.cell(column.name, row)), (column.name, row)
        for name in schema.modalities:
            assert same.text(name, row) == rows.text(name, row)
    assert rows.cell("note", 5) is None
    assert rows_with(rows.subset([7, 2]).decoded(), 2, schema).cell("when", 1) == rows.cell("when", 2)
