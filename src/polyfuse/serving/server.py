"""The server as processes: one or several workers on one socket, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse.core.errors import InputError, import_extra
from polyfuse.serving.logs import Logs, libraries_heard
from polyfuse.serving.metrics import SHARED
from polyfuse.serving.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_LINGER = 2.0  # seconds in which connections that are open may bring their last request
_PATIENCE = 5.0  # seconds beyond the deadline after which a worker that does not end is ended
_BACKLOG = 2048
_FAILED = 3  # exit code of a worker that could not start
_STOPS = (signal.SIGTERM, signal.SIGINT)


def serve(run: Path, settings: Settings) -> int:
    """Serve an artifact until SIGTERM or SIGINT; what was accepted by then is answered. Return the exit code.

    Args:
        run: the artifact.
        settings: of the server.

    Raises:
        InputError: the artifact cannot be read, or the address is taken.
        MissingExtra: what serving needs is not installed; it comes with the extra `serve`.
    """
    for module in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        import_extra(module, "serve", "serving")
    if settings.workers == 1:
        with _bound(settings) as listening:
            return work(run, settings, listening)
    from polyfuse.artifact import summary
    from polyfuse.serving.page import UPLOADS

    summary(run)  # what cannot be read is found before there are processes
    with tempfile.TemporaryDirectory(prefix="polyfuse-serve-") as shared, _bound(settings) as listening:
        # One worker counts what another tells, and reads what another took.
        for variable in (SHARED, UPLOADS):
            os.environ[variable] = str(Path(shared) / variable.lower())
            Path(os.environ[variable]).mkdir()
        try:
            return _Workers(run, settings, listening).supervise()
        finally:
            del os.environ[SHARED], os.environ[UPLOADS]


def work(run: Path, settings: Settings, listening: socket.socket) -> int:
    """Answer on a socket that listens, from this process; another computes. Return the exit code."""
    from polyfuse.serving.apart import Apart

    logs = Logs()
    with libraries_heard(logs), Apart(run, settings.compute_threads(), logs) as predictor:
        # While this is imported, the other process imports and reads what it needs.
        from polyfuse.serving.app import app_of, warm_up

        app = app_of(predictor, predictor.card, settings, logs)
        warm_up(app)
        _server(app, settings, logs).run([listening])
        logs.write("info", "stopped")
        return int(predictor.broken)


def _server(app: Any, settings: Settings, logs: Logs) -> Any:
    """Return uvicorn's server, which ends in two steps: last requests first, connections then."""
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc]
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Unlike uvicorn's own, it does not raise the signal again: an ordered end is a success.
            before = {}
            if threading.current_thread() is threading.main_thread():
                before = {sig: signal.signal(sig, self.handle_exit) for sig in _STOPS}
            try:
                yield
            finally:
                for sig, handler in before.items():
                    signal.signal(sig, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            place = self.servers[0].sockets[0].getsockname()
            logs.write("info", "ready", url=_url(*place[:2]), threads=settings.compute_threads())

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # A connection that is kept open may bring a request at any moment: each is told to close after its next
            # answer, so that none is cut off between a request and its answer.
            app.state.engine.draining = True
            for server in self.servers:
                server.close()
            until = time.monotonic() + _LINGER
            while self.server_state.connections and time.monotonic() < until:
                await asyncio.sleep(0.02)
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=list(settings.proxies),
            ws="none",
            lifespan="on",
            backlog=_BACKLOG,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(settings.deadline + _PATIENCE),
        )
    )


class _Workers:
    """Processes that share a socket: one that dies is replaced, all are ended together."""

    def __init__(self, run: Path, settings: Settings, listening: socket.socket) -> None:
        self._given = run, settings, listening
        self._settings = settings
        self._stop = threading.Event()
        self._logs = Logs()
        self._context = multiprocessing.get_context("spawn")

    def supervise(self) -> int:
        """Run the workers until a signal. Return the exit code."""
        before = {sig: signal.signal(sig, lambda *_: self._stop.set()) for sig in _STOPS}
        try:
            workers = [self._begin() for _ in range(self._settings.workers)]
            code = 0
            while not self._stop.wait(0.2):
                for i, worker in enumerate(workers):
                    if worker.exitcode is None:
                        continue
                    if worker.exitcode == _FAILED:  # another would fail in the same way
                        code = 1
                        self._stop.set()
                        break
                    self._logs.write("error", "worker died", worker=worker.pid, exitcode=worker.exitcode)
                    self._forget(worker)
                    workers[i] = self._begin()
            return self._end(workers) or code
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def _begin(self) -> SpawnProcess:
        worker = self._context.Process(target=_worker, args=self._given, name="polyfuse-worker")
        worker.start()
        return worker

    def _end(self, workers: list[SpawnProcess]) -> int:
        # Else the kernel would go on to accept what nobody answers.
        self._given[2].close()
        for worker in workers:
            if worker.exitcode is None and worker.pid is not None:
                os.kill(worker.pid, signal.SIGTERM)
        until = time.monotonic() + self._settings.deadline + _LINGER + 2 * _PATIENCE
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
            if worker.exitcode is None:
                self._logs.write("error", "worker killed", worker=worker.pid, reason="it did not end")
                worker.kill()
                worker.join()
        # One that was still loading had nothing to lose.
        return 0 if all(worker.exitcode in (0, _FAILED, -signal.SIGTERM) for worker in workers) else 1

    @staticmethod
    def _forget(worker: SpawnProcess) -> None:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _worker(run: Path, settings: Settings, listening: socket.socket) -> None:
    """Be one of several workers."""
    # Ctrl-C reaches every process of a terminal; while this one loads, the first of them sees to the end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = work(run, settings, listening)
    except Exception as error:
        Logs().failure("start", error)
        print(f"error: {error}", file=sys.stderr)
        code = _FAILED
    sys.exit(code)


@contextlib.contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """Give the socket.

    Raises:
        InputError: the address is taken, or is none of this machine.
    """
    try:
        kind = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(kind[0], kind[1])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(kind[4])
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        raise InputError(f"{place} cannot be listened on: {error.strerror or error}; choose another --port") from error
    with listening:
        listening.set_inheritable(True)
        yield listening


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
