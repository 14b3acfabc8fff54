"""The request log keeps what it was given, within its room, whoever else writes to it and whatever ends the process."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import date
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from polyfuse.cli.app import app
from polyfuse.core.errors import InputError, PolyfuseError
from polyfuse.data.reading import read_table
from polyfuse.data.rows import read_rows
from polyfuse.data.schema import Column, ColumnType, Schema, Target
from polyfuse.inference import Answers
from polyfuse.serving.journal import Journal
from shapes import npy

TYPES: tuple[ColumnType, ...] = ("text", "image", "audio", "number", "category", "datetime", "embedding", "points")
KEY = Target(name="key", task="classification", levels=[0, 1, 2], frequencies=[0.3, 0.3, 0.4])


def schema_of(*targets: Target, types: tuple[ColumnType, ...] = TYPES) -> Schema:
    columns = [
        Column(name=f"a {type}", type=type, size=2 if type in ("embedding", "points") else None) for type in types
    ]
    return Schema(columns=columns, modalities={c.name: [c.name] for c in columns}, target=Target.of(targets or (KEY,)))


SCHEMA = schema_of()


def answers(rows: int, label: Any = 1, name: str = "key", suspicion: float | None = None) -> Answers:
    labels = pd.Series([label] * rows, name=name)
    marks = None if suspicion is None else pd.DataFrame({"suspicion": [suspicion] * rows, "suspicious": True})
    return Answers(labels, pd.DataFrame({1: [1.0] * rows}), pd.Series([False] * rows), screened=marks)


def picture(side: int = 8, seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


ROW: dict[str, Any] = {
    "a text": "a warm coat",
    "a image": picture(),
    "a audio": b"RIFF",
    "a number": 3,
    "a category": True,
    "a datetime": "2026-11-30",
    "a embedding": [0.5, -1.0],
    "a points": npy(np.float32([[0.5, -1.0], [2.0, 3.0]])),
}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "log", SCHEMA, most_bytes=64 << 20)
    yield made
    made.close()


def test_a_row_comes_back_as_it_was_asked(journal: Journal) -> None:
    journal.add("r-1", [ROW, {"a text": None, "unknown": 1}], answers(2, suspicion=0.25))
    table = journal.table()
    assert table.loc[0, list(ROW)].tolist() == [*list(ROW.values())[:4], "True", *list(ROW.values())[5:]]
    assert table.loc[1, list(ROW)].isna().all()
    assert table["request_id"].tolist() == ["r-1", "r-1"]
    assert table["row"].tolist() == [0, 1]
    assert table["answer:key"].tolist() == [1, 1]
    assert table["suspicion"].tolist() == [0.25, 0.25]
    assert abs(table["time"][0].timestamp() - time.time()) < 60
    assert table["key"].isna().all()
    assert "unknown" not in table


def test_a_list_of_points_comes_back_as_a_file(journal: Journal) -> None:
    journal.add("r-1", [{"a points": [[0.5, -1], [2.0, 3.0]]}, {"a points": [[0.5, "x"]]}], answers(2))
    first, second = journal.table()["a points"].tolist()
    assert np.array_equal(np.load(io.BytesIO(first), allow_pickle=False), [[0.5, -1.0], [2.0, 3.0]])
    assert second is None


def test_media_are_kept_once(journal: Journal, tmp_path: Path) -> None:
    large = picture(300)
    for i in range(5):
        journal.add(f"r-{i}", [{"a image": large}] * 2, answers(2))
    db = sqlite3.connect(tmp_path / "log" / "journal.db")
    assert db.execute("SELECT count(*) FROM media").fetchone() == (1,)
    db.close()
    assert journal.count()["bytes"] < 2 * len(large)
    assert journal.table()["a image"].tolist() == [large] * 10


def test_feedback_becomes_the_target(journal: Journal) -> None:
    journal.add("r", [ROW] * 3, answers(3))
    assert journal.feedback("r", 1, {"key": "2"})  # read as tables are: a word for the label 2
    assert not journal.feedback("r", 3, {"key": 2})
    assert not journal.feedback("other", 0, {"key": 2})
    assert journal.table()["key"].tolist() == [pd.NA, 2, pd.NA]
    labelled = journal.table(labelled=True)
    assert labelled["row"].tolist() == [1]
    assert labelled["key"].tolist() == [2]
    assert journal.feedback("r", 1, {"key": 0})
    assert journal.table(labelled=True)["key"].tolist() == [0]
    assert journal.feedback("r", 1, {"key": None})
    assert journal.table(labelled=True).empty
    for wrong, told in (({"kye": 1}, "did you mean 'key'"), ({"key": 7}, "not among those"), ({}, "names no target")):
        with pytest.raises(InputError, match=told):
            journal.feedback("r", 1, wrong)


def test_feedback_of_a_repeated_request_is_of_the_last(journal: Journal) -> None:
    journal.add("same", [{"a text": "first"}], answers(1))
    journal.add("same", [{"a text": "second"}], answers(1))
    journal.feedback("same", 0, {"key": 1})
    assert journal.table(labelled=True)["a text"].tolist() == ["second"]


def test_targets_of_every_task_come_back_in_their_kinds(tmp_path: Path) -> None:
    targets = [
        Target(name="grade", task="classification", levels=["a", "b"]),
        Target(name="code", task="classification", levels=[1, 2]),
        Target(name="flag", task="classification", levels=[False, True]),
        Target(name="tags", task="multilabel", levels=["x", "y"]),
        Target(name="price", task="regression"),
    ]
    schema = schema_of(*targets, types=("text",))
    journal = Journal(tmp_path / "log", schema, most_bytes=1 << 24)
    labels = pd.DataFrame({"grade": ["a"], "code": [1], "flag": [True], "tags": [["x"]], "price": [np.float32(1.5)]})
    told = Answers(labels, pd.DataFrame(index=labels.index), pd.Series([False]))
    for request in ("known", "partly", "unknown"):
        journal.add(request, [{"a text": "t"}], told)
    journal.feedback("known", 0, {"grade": "b", "code": 2, "flag": False, "tags": ["y", "x"]})
    journal.feedback("known", 0, {"price": 2})
    journal.feedback("partly", 0, {"tags": []})
    path = tmp_path / "new.parquet"
    journal.table(labelled=True).to_parquet(path)
    journal.close()
    table = read_table(path)
    assert table.frame["answer:price"].tolist() == [1.5, 1.5]
    rows = read_rows(table, schema, training=False, answers=True)
    assert rows.answers == [("b", 2, False, ["x", "y"], 2.0), (None, None, None, [], None)]


def test_parquet_is_read_back(journal: Journal, tmp_path: Path) -> None:
    tone = io.BytesIO()
    import soundfile

    soundfile.write(tone, np.zeros(800, np.float32), 8000, format="WAV")
    row = {**ROW, "a audio": tone.getvalue()}
    journal.add("r", [row, {}, {**row, "a image": [picture(seed=1), picture(seed=2)]}], answers(3))
    journal.feedback("r", 2, {"key": 0})
    arguments = ["log", str(tmp_path / "log"), "--out", str(tmp_path / "new.parquet"), "--since", "1h", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["written"] == 3
    rows = read_rows(read_table(tmp_path / "new.parquet"), SCHEMA, training=False)
    expected = read_rows(read_table([row, {**dict.fromkeys(row)}, row]), SCHEMA, training=False)
    assert rows.present.tolist() == expected.present.tolist()
    for name in ("a text", "a number", "a category", "a datetime"):
        assert [rows.cell(name, i) for i in range(3)] == [expected.cell(name, i) for i in range(3)]
    assert np.array_equal(rows.cell("a audio", 0).samples, expected.cell("a audio", 0).samples)
    assert [len(rows.cell("a image", i)) for i in (0, 2)] == [1, 2]
    assert rows.cell("a image", 0)[0].tobytes() == expected.cell("a image", 0)[0].tobytes()
    done = CliRunner().invoke(
        app, ["log", str(tmp_path / "log"), "--out", str(tmp_path / "some.parquet"), "--labelled"]
    )
    assert done.exit_code == 0
    assert pd.read_parquet(tmp_path / "some.parquet")["row"].tolist() == [2]


def test_the_command_says_what_is_wrong(journal: Journal, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    for arguments, told in (
        ([str(tmp_path)], "no request log"),
        ([log, "--out", "new.csv"], ".parquet"),
        ([log, "--since", "yesterday"], "7d"),
    ):
        done = CliRunner().invoke(app, ["log", *arguments])
        assert isinstance(done.exception, InputError)
        assert told in str(done.exception)
    journal.add("r", [ROW], answers(1))
    assert CliRunner().invoke(app, ["log", log]).stdout.startswith("1 rows, 0 labelled")
    assert CliRunner().invoke(app, ["log", log, "--since", "2999-01-01"]).stdout.startswith("0 rows")


cells = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(10**400), 10**400),
        st.floats(),
        st.text(),
        st.sampled_from(["\ud800", "\x00", "[1, 2]", "nan", "1e999"]),
        st.binary(max_size=64),
        st.dates(),
        st.floats(width=32).map(np.float32),
        st.lists(st.floats(width=32), max_size=3).map(lambda cell: np.asarray(cell, np.float32)),
        st.builds(lambda data: {"bytes": data, "path": None}, st.binary(max_size=8)),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(rows=st.lists(st.dictionaries(st.sampled_from(list(ROW)), cells), min_size=1, max_size=4))
@settings(max_examples=40)
def test_wild_cells_are_kept_and_written(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("wild")
    journal = Journal(folder / "log", SCHEMA, most_bytes=64 << 20)
    journal.add("r", rows, answers(len(rows)))
    table = journal.table()
    journal.close()
    assert len(table) == len(rows)
    table.to_parquet(folder / "new.parquet")
    assert len(read_table(folder / "new.parquet").frame) == len(rows)
    for place, row in enumerate(rows):
        cell = row.get("a image")
        if isinstance(cell, bytes):
            kept = table["a image"][place]
            assert kept in (cell, [cell])
        if isinstance(row.get("a number"), bool | date):
            continue
        if isinstance(row.get("a number"), int | float):
            assert table["a number"][place] == pytest.approx(float_of(row["a number"]), nan_ok=True)


def float_of(cell: float) -> float:
    try:
        found = float(cell)
    except OverflowError:
        return float("nan")
    return found if np.isfinite(found) else float("nan")


def test_the_oldest_rows_go_first_and_their_media(tmp_path: Path) -> None:
    room = 1 << 20
    journal = Journal(tmp_path / "log", SCHEMA, most_bytes=room)
    for i in range(120):
        journal.add(f"r-{i}", [{"a image": os.urandom(30_000), "a number": i}], answers(1))
    table = journal.table()
    kept = table["a number"].tolist()
    assert 20 <= len(kept) < 40
    assert kept == [float(i) for i in range(120 - len(kept), 120)]
    assert table["a image"].notna().all()
    assert journal.count()["bytes"] <= room
    journal.close()
    assert sum(file.stat().st_size for file in (tmp_path / "log").iterdir()) <= 1.1 * room
    db = sqlite3.connect(tmp_path / "log" / "journal.db")
    assert db.execute("SELECT count(*) FROM media").fetchone() == (len(kept),)
    db.close()


def test_one_request_does_not_drive_out_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "log", SCHEMA, most_bytes=1 << 20)
    journal.add("small", [ROW], answers(1))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            journal.add("large", [{"a audio": os.urandom(200_000)}], answers(1))
    assert len(caplog.records) == 1
    assert "tenth" in caplog.text
    assert journal.table()["request_id"].tolist() == ["small"]
    journal.close()


def test_a_full_disk_is_said_once_and_does_not_reach_the_caller(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.add("first", [ROW], answers(1))
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            journal.add("large", [{"a audio": os.urandom(200_000)}], answers(1))
        assert [record.getMessage() for record in caplog.records if "full" in record.getMessage()] == [
            caplog.messages[0]
        ]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
        journal.add("last", [{"a audio": os.urandom(200_000)}], answers(1))
    assert len(caplog.records) == 1
    assert journal.table()["request_id"].tolist() == ["first", "last"]


def test_feedback_that_cannot_be_kept_is_an_error(journal: Journal) -> None:
    journal.add("r", [ROW], answers(1))
    journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(PolyfuseError, match="cannot be written"):
        journal.feedback("r", 0, {"key": 1})


def _write(folder: Path, name: str, count: int, together: Barrier) -> None:
    journal = Journal(folder, SCHEMA, most_bytes=2 << 20)
    for i in range(count):
        if i % 10 == 0:  # one that is far behind would push out all that the other wrote
            together.wait(60)
        # Half of the media are those of the other process, so that each drops what the other is about to name.
        journal.add(f"{name}-{i}", [{"a image": bytes([i % 256]) * 20_000, "a number": i}], answers(1))
        assert journal.feedback(f"{name}-{i}", 0, {"key": 2})
    journal.close()


def test_two_processes_write_to_one_log(tmp_path: Path) -> None:
    folder, spawn = tmp_path / "log", multiprocessing.get_context("fork")
    together = spawn.Barrier(2)
    writers = [spawn.Process(target=_write, args=(folder, name, 150, together)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    journal = Journal(folder, SCHEMA, most_bytes=2 << 20)
    table = journal.table()
    assert set(table["request_id"].str[0]) == {"a", "b"}
    assert table["a image"].notna().all()
    assert (table["key"] == 2).all()
    for name in "ab":
        own = table["a number"][table["request_id"].str.startswith(name)].tolist()
        assert own == [float(i) for i in range(150 - len(own), 150)]  # none lost but the oldest
    journal.close()
    assert not list(folder.glob("*.tmp"))


def test_what_was_committed_outlives_the_process(tmp_path: Path) -> None:
    folder, fork = tmp_path / "log", multiprocessing.get_context("fork")
    ready, inside = fork.Queue(), fork.Process

    def write() -> None:
        journal = Journal(folder, SCHEMA, most_bytes=1 << 24)
        journal.add("kept", [ROW], answers(1))
        journal._db.execute("BEGIN IMMEDIATE")
        journal._db.execute("DELETE FROM rows")
        ready.put(True)
        time.sleep(60)

    writer = inside(target=write)
    writer.start()
    assert ready.get(timeout=30)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(30)
    journal = Journal(folder, SCHEMA, most_bytes=1 << 24)
    journal.add("later", [ROW], answers(1))
    assert journal.table()["request_id"].tolist() == ["kept", "later"]
    journal.close()


def test_only_a_model_of_the_same_rows_writes_to_a_log(journal: Journal, tmp_path: Path) -> None:
    wider = schema_of(KEY.model_copy(update={"levels": [0, 1, 2, 3]}))
    later = Journal(tmp_path / "log", wider, most_bytes=1 << 24)
    assert Journal.at(tmp_path / "log").schema == wider
    later.add("r", [ROW], answers(1))
    assert later.feedback("r", 0, {"key": 3})
    later.close()
    for other in (schema_of(types=("text",)), schema_of(Target(name="price", task="regression"))):
        with pytest.raises(InputError, match="other columns or targets"):
            Journal(tmp_path / "log", other, most_bytes=1 << 24)


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database" * 100)
    with pytest.raises(InputError, match="no request log that can be read"):
        Journal(tmp_path, SCHEMA, most_bytes=1 << 24)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no request log can be written"):
        Journal(tmp_path / "file", SCHEMA, most_bytes=1 << 24)


def test_a_log_is_for_nobody_else_to_read(journal: Journal, tmp_path: Path) -> None:
    journal.add("r", [ROW], answers(1))
    assert {file.stat().st_mode & 0o077 for file in [tmp_path / "log", *(tmp_path / "log").iterdir()]} == {0}


def test_columns_that_are_named_as_the_log_names_its_own(tmp_path: Path) -> None:
    schema = Schema(columns=[Column(name="time", type="number")], modalities={"time": ["time"]}, target=KEY)
    journal = Journal(tmp_path / "log", schema, most_bytes=1 << 24)
    journal.add("r", [{"time": 4.0}], answers(1))
    assert journal.table()["time"].tolist() == [4.0]
    journal.close()
