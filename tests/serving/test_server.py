"""The server as a person runs it: real processes, real sockets, and an end that loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.serving.journal import Journal
from polyfuse.serving.server import serve
from polyfuse.serving.settings import Settings
from serving.client import as_json, rows_of


class Served:
    """A server that runs, and the lines that it has logged."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, list[dict[str, Any]]()
        self.ready = threading.Semaphore(0)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "ready":
                self.ready.release()

    @property
    def url(self) -> str:
        return next(str(line["url"]) for line in self.lines if line["event"] == "ready")


@contextmanager
def served(run: Path, *options: object, workers: int = 1, **environment: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "polyfuse", "serve", str(run), "--port", "0", "--no-page", *map(str, options)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=run.parent,
        start_new_session=True,
    )
    try:
        found = Served(process)
        for _ in range(workers):
            assert found.ready.acquire(timeout=120), found.lines
        yield found
    finally:
        process.kill()
        process.wait()


def under_load(found: Served, row: dict[str, Any], clients: int, until: threading.Event) -> list[httpx.Response]:
    """Ask until connections are refused; an answer that was begun and is not there is an error."""
    answers, errors = list[httpx.Response](), list[Exception]()

    def ask() -> None:
        with httpx.Client(base_url=found.url, timeout=60) as client:
            while True:
                try:
                    answers.append(client.post("/predict", json=row))
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    errors.append(error)
                    return
                if len(answers) > 20:
                    until.set()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    assert until.wait(60)
    # To every process of the server, as systemd does.
    os.killpg(found.process.pid, signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert errors == []
    return answers


def test_sigterm_under_load_loses_nothing(run: Path, predictor: pf.Predictor, table: pd.DataFrame) -> None:
    row = rows_of(table, predictor)[0]
    expected = predictor.predict_proba(row).iloc[0]
    before = set(run.rglob("*"))
    with served(run, "--threads", 1) as found:
        assert httpx.get(f"{found.url}/health/ready").json() == {"status": "ready"}
        answers = under_load(found, as_json(row), 8, threading.Event())
        assert found.process.wait(30) == 0
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        assert list(answer.json()["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-4)
    logged = [line for line in found.lines if line["event"] == "request" and line["path"] == "/predict"]
    assert {line["id"] for line in logged} == {answer.json()["request_id"] for answer in answers}
    assert found.lines[-1]["event"] == "stopped"
    assert set(run.rglob("*")) == before


def test_workers_share_a_socket_their_counters_and_a_key(
    run: Path, predictor: pf.Predictor, table: pd.DataFrame
) -> None:
    key = "a-key-from-the-environment"
    with served(run, workers=2, POLYFUSE_API_KEY=key) as found:
        assert httpx.get(f"{found.url}/metrics").status_code == 401
        for _ in range(12):  # a new connection each time, so that both workers come to be asked
            assert httpx.post(f"{found.url}/predict", json={}, headers={"X-API-Key": key}).status_code == 200
        assert len({line["pid"] for line in found.lines if line["event"] == "request"}) == 2
        text = httpx.get(f"{found.url}/metrics", headers={"X-API-Key": key}).text
        assert 'polyfuse_requests_total{method="POST",path="/predict",status="200"} 12.0' in text
        victim = next(line["pid"] for line in found.lines if line["event"] == "ready")
        os.kill(victim, signal.SIGKILL)
        assert found.ready.acquire(timeout=120), found.lines
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(60) == 0
    assert [line["event"] for line in found.lines].count("worker died") == 1


def computing(server: int) -> int:
    """Return the process that computes for a server."""
    tasks = Path(f"/proc/{server}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    (found,) = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found


def test_a_server_that_can_no_longer_compute_ends(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with served(tmp_path / "run", "--threads", 1) as found:
        os.kill(computing(found.process.pid), signal.SIGKILL)
        assert httpx.post(f"{found.url}/predict", json={}, timeout=60).status_code in (200, 500)
        assert httpx.post(f"{found.url}/predict", json={}, timeout=60).status_code == 200
        shutil.rmtree(tmp_path / "run")
        os.kill(computing(found.process.pid), signal.SIGKILL)
        while found.process.poll() is None:
            with suppress(httpx.HTTPError):
                assert httpx.post(f"{found.url}/predict", json={}, timeout=60).status_code >= 500
        assert found.process.wait(30) == 1
    events = [line["event"] for line in found.lines]
    assert events.count("computing died") == 2
    assert "no Polyfuse artifact" in next(
        line["reason"] for line in found.lines if line["event"] == "computing cannot begin"
    )
    assert events[-1] == "stopped"


def test_calls_that_cannot_be_served(run: Path, several: pf.Predictor, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be listened on"):
            serve(run, Settings(port=taken.getsockname()[1]))
    for workers in (1, 2):
        with pytest.raises(ArtifactError, match="missing"):
            serve(tmp_path / "missing", Settings(port=0, workers=workers))
    Journal(tmp_path / "log", several.schema, most_bytes=1 << 20).close()
    with pytest.raises(InputError, match="another"):
        serve(run, Settings(port=0, page=False, log=tmp_path / "log"))
