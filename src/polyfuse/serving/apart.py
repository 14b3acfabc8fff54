"""A predictor in a process of its own: what reads requests and what computes do not take turns at one interpreter."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse.core.errors import ArtifactError, InputError, MissingExtra, PolyfuseError
from polyfuse.serving.logs import Logs, libraries_heard
from polyfuse.serving.memory import keep_tidy

# What takes long to import waits until the process is begun, so that both import at once.
if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from polyfuse.data.rows import Rows
    from polyfuse.data.schema import Schema
    from polyfuse.explanation.shares import Shares
    from polyfuse.inference import Answers
    from polyfuse.serving.card import Card

_KINDS = (ArtifactError, MissingExtra, InputError)  # that a caller tells apart
_LOST = "the process that computes cannot be begun anew"
_PATIENCE = 5.0  # seconds in which a process that has nothing left to do is to end


class Crashed(PolyfuseError):
    """The process that computes ended in the middle of its work."""


@dataclass(frozen=True)
class _Known:
    """What is known of a predictor without its weights."""

    schema: Schema
    has_screen: bool
    levels: tuple[float, float] | None
    metrics: Mapping[str, Any]
    card: Card


@dataclass(frozen=True)
class _Failed:
    """What went wrong, as another process can be told."""

    kind: type[PolyfuseError]
    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Failed:
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), PolyfuseError)
        where = "".join(traceback.format_tb(error.__traceback__))
        return cls(kind, str(error), f"{type(error).__name__}, in the process that computes:\n{where}")

    def error(self) -> PolyfuseError:
        error = self.kind(self.message)
        error.add_note(self.trace)
        return error


class Apart:
    """Stands for a predictor that another process reads and computes with; one thread at a time may ask it.

    A process that dies is begun anew with the next question; where it cannot be, this process is told to end, for
    whoever looks after it to see. What is known of the predictor is there once it is read: who asks earlier waits.

    Args:
        run: the artifact.
        threads: that compute.
        logs: have a line of a process that died.

    Attributes:
        broken: whether a process that died could not be begun anew.
    """

    broken = False

    def __init__(self, run: Path, threads: int, logs: Logs) -> None:
        # A link may lead elsewhere by the time that a process is begun anew.
        self._given, self._logs = (run.resolve(), threads), logs
        self._begin()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()  # which is what the process ends by
        self._process.join(_PATIENCE)
        self._process.kill()

    @property
    def schema(self) -> Schema:
        """What is known of the training table.

        Raises:
            PolyfuseError: the artifact cannot be read; as `polyfuse.load` raises it.
        """
        return self._known.schema

    @property
    def has_screen(self) -> bool:
        """Whether rows can be screened."""
        return self._known.has_screen

    @property
    def levels(self) -> tuple[float, float] | None:
        """Between which levels sets or intervals can be had."""
        return self._known.levels

    @property
    def metrics(self) -> Mapping[str, Any]:
        """How the training went, and the report on the validation rows."""
        return self._known.metrics

    @property
    def card(self) -> Card:
        """What is told about the model."""
        return self._known.card

    def read_rows(self, records: Sequence[Mapping[str, Any]]) -> Rows:
        """Read rows and decode them, in this process; raises as that of a predictor does."""
        from polyfuse.data.rows import rows_of
        from polyfuse.serving.limits import NOWHERE

        return rows_of(records, self.schema, NOWHERE)

    def answer_rows(self, rows: Rows, *, screen: bool = False, level: float | None = None) -> Answers:
        """Answer rows as a predictor does.

        Raises:
            Crashed: the process ended; it is not known why.
            PolyfuseError: as that of a predictor does.
        """
        answers: Answers = self._asked("answer_rows", rows, screen=screen, level=level)
        return answers

    def shares(self, row: Rows) -> Shares:
        """Return what each modality gives to the scores of one row; raises as `answer_rows` does."""
        shares: Shares = self._asked("shares", row)
        return shares

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._link, there = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=_compute, args=(there, *self._given), name="polyfuse-compute", daemon=True
        )
        with _signals_held():
            self._process.start()
        there.close()  # else its end would not be seen

    @cached_property
    def _known(self) -> _Known:
        known: _Known = self._received()
        return known

    def _asked(self, what: str, rows: Rows, **options: Any) -> Any:
        if self.broken:  # what still waits is not to wait for another try
            raise Crashed(_LOST)
        if not self._process.is_alive():
            self._logs.write("error", "computing died", exitcode=self._process.exitcode)
            self._begin()
            try:
                self._received()  # what is known of it, as before
            except PolyfuseError as error:
                self.broken = True
                self._logs.write("error", "computing cannot begin", reason=str(error))
                os.kill(os.getpid(), signal.SIGTERM)
                # Which is no client's fault, nor any of their business.
                raise Crashed(_LOST) from error
        try:
            self._link.send((what, rows.decoded(), len(rows), options))
        except OSError as error:
            raise self._crashed() from error
        return self._received()

    def _received(self) -> Any:
        try:
            found = self._link.recv()
        except (EOFError, OSError) as error:
            raise self._crashed() from error
        if isinstance(found, _Failed):
            raise found.error()
        return found

    def _crashed(self) -> Crashed:
        self._process.join(_PATIENCE)
        return Crashed(
            f"the process that computes has ended (exit code {self._process.exitcode}); where it is -9, the system had"
            " no memory left: serve with a lower --batch, or give it more"
        )


def _compute(link: Connection, run: Path, threads: int) -> None:
    """Answer what comes over a pipe, until that is closed."""
    from polyfuse.core.threads import computing_threads
    from polyfuse.data.rows import rows_with
    from polyfuse.predictor import load
    from polyfuse.serving.card import card_of

    keep_tidy(threading.Event())
    with libraries_heard(Logs()), computing_threads(threads):
        try:
            predictor = load(run)
        except Exception as error:
            link.send(_Failed.of(error))
            return
        schema, has_screen, levels = predictor.schema, predictor.has_screen, predictor.levels
        # It ends where nobody asks or hears any more.
        with suppress(EOFError, OSError):
            link.send(_Known(schema, has_screen, levels, predictor.metrics, card_of(predictor)))
            while True:
                what, cells, count, options = link.recv()
                try:
                    found = getattr(predictor, what)(rows_with(cells, count, schema), **options)
                except Exception as error:
                    found = _Failed.of(error)
                link.send(found)
                del cells, found  # until the next question comes, nothing holds on to them


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep SIGINT and SIGTERM from what is begun in the block: it ends when this process has its last answer."""
    resource_tracker.ensure_running()  # which lets them through again when it is begun
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
