"""A predictor in another process answers as it does in this one, and neither process outlives or fails the other."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.core.errors import ArtifactError, InputError, PolyfuseError
from polyfuse.serving.apart import Apart, Crashed
from polyfuse.serving.card import card_of
from polyfuse.serving.engine import Engine
from polyfuse.serving.logs import Logs
from polyfuse.serving.memory import resident
from polyfuse.serving.settings import Settings
from serving.models import records


@pytest.fixture
def lines() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def apart(run: Path, lines: io.StringIO) -> Iterator[Apart]:
    with Apart(run, 1, Logs(lines)) as made:
        yield made


def process_of(apart: Apart) -> int:
    found = apart._process.pid
    assert found is not None
    return found


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_answers_as_the_predictor(apart: Apart, run: Path, table: pd.DataFrame) -> None:
    predictor = pf.load(run)
    some = records(table, predictor)[:9]
    some[2]["photo"], some[3] = None, {}
    here, there = predictor.read_rows(some), apart.read_rows(some)
    expected = predictor.answer_rows(here, screen=True, level=0.8)
    found = apart.answer_rows(there, screen=True, level=0.8)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.nothing_present.tolist() == [i == 3 for i in range(9)]
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.within is not None
    assert expected.within is not None
    assert found.within["set"].tolist() == expected.within["set"].tolist()
    assert found.screened is not None
    assert expected.screened is not None
    np.testing.assert_allclose(found.screened["suspicion"], expected.screened["suspicion"], atol=1e-4)
    one = predictor.read_rows(some[:1])
    shares, others = apart.shares(one), predictor.shares(one)
    for name, gives in others.gives.items():
        np.testing.assert_allclose(shares.gives[name], gives, atol=1e-5)
    assert (apart.schema, apart.has_screen, apart.levels) == (predictor.schema, True, predictor.levels)
    assert (apart.card, apart.metrics) == (card_of(predictor), predictor.metrics)


def test_what_goes_wrong_there_is_told_here(apart: Apart, table: pd.DataFrame) -> None:
    rows = apart.read_rows(records(table, apart)[:2])
    with pytest.raises(InputError, match="level") as wrong:
        apart.answer_rows(rows, level=0.99999)
    assert "check_level" in "".join(wrong.value.__notes__)  # where it happened
    with pytest.raises(PolyfuseError, match="argument") as broken:
        apart._asked("answer_rows", rows, wrong=True)
    assert not isinstance(broken.value, InputError)  # which would be the client's fault
    assert len(apart.answer_rows(rows).labels) == 2


def test_an_artifact_that_is_not_there(tmp_path: Path) -> None:
    with Apart(tmp_path / "missing", 1, Logs(io.StringIO())) as apart, pytest.raises(ArtifactError, match="missing"):
        _ = apart.schema


def test_a_process_that_dies_is_begun_anew(apart: Apart, table: pd.DataFrame, lines: io.StringIO) -> None:
    rows, found = apart.read_rows(records(table, apart)[:1]), list[Exception]()
    first, both = process_of(apart), resident()
    expected = apart.answer_rows(rows).scores

    def ask() -> None:
        try:
            apart.answer_rows(rows)
        except Crashed as error:
            found.append(error)

    os.kill(first, signal.SIGSTOP)  # so that it dies in the middle of its work
    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    os.kill(first, signal.SIGKILL)
    asking.join(20)
    assert "exit code -9" in str(found[0])
    assert resident() < both - (50 << 20)  # it had been counted
    np.testing.assert_allclose(apart.answer_rows(rows).scores, expected, atol=1e-5)
    assert process_of(apart) != first
    [line] = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (line["event"], line["exitcode"]) == ("computing died", -9)


def test_requests_that_wait_while_it_dies_are_answered(
    apart: Apart, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, some = Engine(apart, Settings(threads=1)), records(table, apart)[:4]
    ends: dict[int, object] = {}

    def ask(i: int) -> None:
        try:
            ends[i] = len(engine.ask(some[i : i + 1], deadline=60))
        except Crashed as error:
            ends[i] = error

    engine.ask(some[:1])
    handed, received = threading.Event(), apart._received

    def noted() -> object:
        handed.set()
        return received()

    monkeypatch.setattr(apart, "_received", noted)
    os.kill(process_of(apart), signal.SIGSTOP)
    asking = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for i, thread in enumerate(asking):
        thread.start()
        while engine.waiting <= i:
            time.sleep(0.01)
        assert handed.wait(60)  # the first is computed alone
    os.kill(process_of(apart), signal.SIGKILL)
    for thread in asking:
        thread.join(60)
    engine.close()
    # Whether the first, which was computed alone, is to blame, nobody knows; the others had nothing to do with it.
    assert isinstance(ends.pop(0), Crashed)
    assert ends == {1: 1, 2: 1, 3: 1}


def test_signals_do_not_end_it_and_the_end_of_the_pipe_does(run: Path, table: pd.DataFrame) -> None:
    with Apart(run, 1, Logs(io.StringIO())) as apart:
        process = process_of(apart)
        for sent in (signal.SIGTERM, signal.SIGINT):
            os.kill(process, sent)
        assert len(apart.answer_rows(apart.read_rows(records(table, apart)[:3])).labels) == 3
        assert process_of(apart) == process
        assert is_there(process)
        apart._link.close()
        for _ in range(100):
            if not is_there(process):
                break
            time.sleep(0.1)
        assert not is_there(process)
