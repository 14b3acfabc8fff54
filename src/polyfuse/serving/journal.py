"""The request log: what was asked, what was answered, and what turned out to be true; one SQLite file, capped in size.

Several processes write to one log. A transaction that was committed outlives a crash of any of them; another leaves
nothing. The file is made whole, under another name, and put in place by whoever comes first.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from polyfuse.core.errors import InputError, PolyfuseError, nearest
from polyfuse.data.cells import CellError
from polyfuse.data.schema import Schema, Target
from polyfuse.data.targets import AnswerReader
from polyfuse.inference import Answers
from polyfuse.serving.logged import column_of, packed, told, truth_of, unpacked

_FORMAT = 1
_WAIT = 20.0  # seconds for another process to finish its transaction
_LARGEST = 0.1  # of the room: the largest request that is kept, so that one does not drive out all others
_AT_ONCE = 0.05  # of the rows: those that go together when there is no room
_WRITE_AHEAD = 4 << 20  # bytes of the write-ahead log that are left on disk

_TABLES = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE about (format INTEGER NOT NULL, schema TEXT NOT NULL);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT NOT NULL, row INTEGER NOT NULL, time REAL NOT NULL,
    cells TEXT NOT NULL, answer TEXT NOT NULL, truth TEXT);
CREATE INDEX by_request ON rows (request, row);
CREATE TABLE media (hash TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE uses (row INTEGER NOT NULL REFERENCES rows ON DELETE CASCADE, hash TEXT NOT NULL REFERENCES media);
CREATE INDEX uses_by_row ON uses (row);
CREATE INDEX uses_by_hash ON uses (hash);
"""

logger = logging.getLogger(__name__)


class Journal:
    """The log of one model's requests. Its methods may be called from several threads.

    Args:
        folder: where it stands; made, for nobody else to read, where there is none.
        schema: of the model that answers. The next model may write to the same log where it reads the same columns.
        most_bytes: of rows and media together, in the file. The oldest rows go first, and media that no row names.

    Raises:
        InputError: the folder cannot be written, holds something else, or the log of another kind of rows.
    """

    def __init__(self, folder: Path, schema: Schema, *, most_bytes: int) -> None:
        self._folder, self._most = folder, most_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _file(folder).exists():
                _make(folder, schema)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{folder}: no request log can be written there: {error}") from error
        self._open()
        self._check(schema)

    @classmethod
    def at(cls, folder: Path) -> Journal:
        """Return the log that stands in a folder.

        Raises:
            InputError: there is none.
        """
        journal = cls.__new__(cls)
        journal._folder, journal._most = folder, 0
        if not _file(folder).is_file():
            raise InputError(f"{folder} holds no request log; it is the folder of  polyfuse serve --log")
        journal._open()
        return journal

    def add(self, request_id: str, rows: Sequence[Mapping[str, Any]], answers: Answers) -> None:
        """Keep what was asked and answered. What cannot be kept is dropped, and the log of the program says so once.

        Args:
            request_id: of all these rows.
            rows: as received, media as bytes; columns that the schema lacks are not kept.
            answers: of these rows, in order.
        """
        try:
            self._add(request_id, rows, answers)
            self._silent = False
        except (OSError, sqlite3.Error, CellError) as error:
            if not self._silent:
                logger.warning("the request log %s drops requests: %s", self._folder, error)
            self._silent = True

    def feedback(self, request_id: str, row: int, truth: Mapping[str, Any]) -> bool:
        """Keep what turned out to be true of a row; a later word on a target replaces an earlier one, None undoes it.

        Returns:
            Whether the log holds such a row.

        Raises:
            InputError: there is no such target, or no such label.
            PolyfuseError: the log cannot be written.
        """
        read = self._read_truth(truth)
        try:
            with self._transaction() as db:
                found = db.execute(
                    "SELECT id, truth FROM rows WHERE request = ? AND row = ? ORDER BY id DESC LIMIT 1",
                    (request_id, row),
                ).fetchone()
                if found is None:
                    return False
                known = {**json.loads(found[1] or "{}"), **read}
                kept = {name: answer for name, answer in known.items() if answer is not None}
                db.execute("UPDATE rows SET truth = ? WHERE id = ?", (json.dumps(kept) if kept else None, found[0]))
            return True
        except sqlite3.Error as error:
            raise PolyfuseError(f"the request log {self._folder} cannot be written: {error}") from error

    def table(self, *, labelled: bool = False, since: float | None = None) -> pd.DataFrame:
        """Return the rows as a table: the schema's columns, media as bytes, and the targets, missing where unknown.

        Beside them stand `request_id`, `row` (its place in the request), `time` (UTC), `answer:TARGET`, and `suspicion`
        where a screen was asked; a column of the schema with such a name goes first.

        Args:
            labelled: only rows of which some target is known.
            since: only rows that are not older, in seconds since 1970.

        Raises:
            InputError: the log is damaged.
        """
        where = "time >= ?" + (" AND truth IS NOT NULL" if labelled else "")
        media: dict[str, bytes | None] = {}

        def fetch(name: str) -> bytes | None:
            if name not in media:
                found = self._db.execute("SELECT data FROM media WHERE hash = ?", (name,)).fetchone()
                media[name] = None if found is None else found[0]
            return media[name]

        try:
            # One transaction: what another process drops meanwhile is still there.
            with self._transaction("BEGIN") as db:
                found = db.execute(
                    f"SELECT request, row, time, cells, answer, truth FROM rows WHERE {where} ORDER BY id",
                    (since or 0.0,),
                ).fetchall()
                rows = [unpacked_row(json.loads(line[3]), fetch) for line in found]
        except (sqlite3.Error, ValueError) as error:
            raise InputError(f"the request log {self._folder} is damaged: {error}") from error
        return self._framed(found, rows)

    def count(self, *, since: float | None = None) -> dict[str, Any]:
        """Return the number of rows and of labelled ones, when the first and the last came, and the bytes of all."""
        rows, labelled, first, last = self._db.execute(
            "SELECT count(*), count(truth), min(time), max(time) FROM rows WHERE time >= ?", (since or 0.0,)
        ).fetchone()
        return {"rows": rows, "labelled": labelled, "first": first, "last": last, "bytes": self._bytes()}

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._db.close()

    def _open(self) -> None:
        self._lock, self._silent = threading.RLock(), False
        try:
            self._db = _connect(_file(self._folder))
            format, schema = self._db.execute("SELECT format, schema FROM about").fetchone()
            if format > _FORMAT:
                raise ValueError(f"format {format}, and this version reads up to {_FORMAT}: upgrade polyfuse")
            self.schema = Schema.model_validate_json(schema)
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise InputError(f"{_file(self._folder)} is no request log that can be read: {error}") from error

    def _check(self, schema: Schema) -> None:
        """Check that the log's rows are of a kind with those of a schema; take over its levels.

        Raises:
            InputError: they are not.
        """
        if _kinds(schema) != _kinds(self.schema):
            raise InputError(
                f"{self._folder} is the request log of a model with other columns or targets; give another folder"
            )
        self.schema = schema
        with self._transaction() as db:
            db.execute("UPDATE about SET schema = ?", (schema.model_dump_json(),))

    def _add(self, request_id: str, rows: Sequence[Mapping[str, Any]], answers: Answers) -> None:
        columns = [column.name for column in self.schema.columns]
        lines: list[tuple[str, set[str], str]] = []
        media: dict[str, bytes] = {}
        for row, answer in zip(rows, told(answers), strict=True):
            own: dict[str, bytes] = {}
            cells = {name: packed(row[name], own) for name in columns if row.get(name) is not None}
            lines.append((_json(cells), set(own), _json(answer)))
            media |= own
        size = sum(map(len, media.values())) + sum(len(cells) + len(answer) for cells, _, answer in lines)
        if size > _LARGEST * self._most:
            raise CellError(f"a request of {size:,} bytes is more than a tenth of the room ({self._most:,})")
        now = time.time()
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO media VALUES (?, ?)", media.items())
            for place, (text, names, said) in enumerate(lines):
                made = db.execute(
                    "INSERT INTO rows (request, row, time, cells, answer) VALUES (?, ?, ?, ?, ?)",
                    (request_id, place, now, text, said),
                )
                db.executemany("INSERT INTO uses VALUES (?, ?)", [(made.lastrowid, name) for name in names])
            dropped = self._make_room(db)
        if dropped:
            self._db.execute("PRAGMA incremental_vacuum").fetchall()

    def _make_room(self, db: sqlite3.Connection) -> bool:
        """Drop the oldest rows until the others have room; return whether any was dropped."""
        dropped = False
        while self._bytes() > self._most:
            rows = db.execute("SELECT count(*) FROM rows").fetchone()[0]
            if rows == 0:
                break
            some = max(1, int(_AT_ONCE * rows))
            db.execute("DELETE FROM rows WHERE id IN (SELECT id FROM rows ORDER BY id LIMIT ?)", (some,))
            db.execute("DELETE FROM media WHERE hash NOT IN (SELECT hash FROM uses)")
            dropped = True
        return dropped

    def _bytes(self) -> int:
        """Return how much of the file is in use."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _read_truth(self, truth: Mapping[str, Any]) -> dict[str, Any]:
        parts = {part.name: part for part in self.schema.target.each()}
        if not truth:
            raise InputError(f"feedback names no target; give {' or '.join(map(repr, parts))}")
        for name in truth:
            if name not in parts:
                raise InputError(f"feedback: there is no target {name!r}; {nearest(name, parts)}")
        return {name: _answer(parts[name], cell) for name, cell in truth.items()}

    def _framed(self, found: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        answers = [json.loads(line[4]) for line in found]
        truths = [json.loads(line[5] or "{}") for line in found]
        columns: dict[str, pd.Series] = {
            "request_id": pd.Series([line[0] for line in found], dtype=object),
            "row": pd.Series([line[1] for line in found], dtype="int64"),
            "time": pd.to_datetime(pd.Series([line[2] for line in found], dtype="float64"), unit="s", utc=True),
        }
        for part in self.schema.target.each():
            said = [answer["labels"].get(part.name) for answer in answers]
            columns[f"answer:{part.name}"] = truth_of(part, said)
        if any("suspicion" in answer for answer in answers):
            columns["suspicion"] = pd.Series([answer.get("suspicion") for answer in answers], dtype="float64")
        own = {column.name: column_of(column, [row.get(column.name) for row in rows]) for column in self.schema.columns}
        for part in self.schema.target.each():
            own[part.name] = truth_of(part, [truth.get(part.name) for truth in truths])
        return pd.DataFrame({**own, **{name: cells for name, cells in columns.items() if name not in own}})

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute(begin)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def unpacked_row(cells: Mapping[str, Any], media: Any) -> dict[str, Any]:
    """Return the cells of a row as they were asked."""
    return {name: unpacked(cell, media) for name, cell in cells.items()}


def _file(folder: Path) -> Path:
    return folder / "journal.db"


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA foreign_keys = ON")
    # With a write-ahead log this loses nothing when a process dies, and never damages the file when the power goes.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA journal_size_limit = {_WRITE_AHEAD}")
    return db


def _make(folder: Path, schema: Schema) -> None:
    temporary = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.touch(mode=0o600)
        with closing(_connect(temporary)) as db:
            db.executescript(_TABLES)
            db.execute("INSERT INTO about VALUES (?, ?)", (_FORMAT, schema.model_dump_json()))
        os.link(temporary, _file(folder))
    except FileExistsError:
        pass  # another process was first
    finally:
        temporary.unlink(missing_ok=True)


def _kinds(schema: Schema) -> tuple[dict[str, str], dict[str, str]]:
    columns: dict[str, str] = {column.name: column.type for column in schema.columns}
    return columns, {part.name: part.task for part in schema.target.each()}


def _answer(target: Target, cell: Any) -> Any:
    try:
        return None if cell is None else packed(AnswerReader(target).read(cell), {})
    except CellError as error:
        raise InputError(f"feedback on {target.name!r}: {error}") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
