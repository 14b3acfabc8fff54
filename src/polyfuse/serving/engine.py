"""Answers requests together: one thread computes what several asked for at once."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from polyfuse.core.errors import InputError, PolyfuseError
from polyfuse.core.threads import computing_threads, cores
from polyfuse.data.rows import Rows, joined
from polyfuse.data.schema import Schema
from polyfuse.inference import Answers
from polyfuse.serving.limits import Limits
from polyfuse.serving.memory import keep_tidy
from polyfuse.serving.settings import Settings
from polyfuse.serving.telling import Explained, Told, part_of, shares_told, tell

if TYPE_CHECKING:
    from polyfuse.explanation.shares import Shares


class Answerer(Protocol):
    """What is needed of a predictor; of what stands for one, too."""

    @property
    def schema(self) -> Schema:
        """What is known of the training table."""

    @property
    def has_screen(self) -> bool:
        """Whether rows can be screened."""

    @property
    def levels(self) -> tuple[float, float] | None:
        """Between which levels sets or intervals can be had; None where there are none."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """How the training went."""

    def read_rows(self, records: Sequence[Mapping[str, Any]]) -> Rows:
        """Read and decode rows; on any thread."""

    def answer_rows(self, rows: Rows, *, screen: bool = False, level: float | None = None) -> Answers:
        """Answer rows; on the thread that computes, as all that follows."""

    def shares(self, row: Rows) -> Shares:
        """Return what each modality gives to the scores of one row."""


class Busy(PolyfuseError):
    """More is asked for than may wait.

    Attributes:
        retry_after: seconds after which it is worth to ask again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Late(PolyfuseError):
    """The answer would come after the deadline."""


class Stopping(PolyfuseError):
    """The server stops, and takes nothing more."""


@dataclass(frozen=True)
class Answered:
    """The answer to one request.

    Attributes:
        told: of each row.
        batch: rows that were computed together.
    """

    told: list[Told]
    batch: int
    _answers: Answers
    _start: int

    @property
    def answers(self) -> Answers:
        """The same as the predictor gives it."""
        return part_of(self._answers, self._start, self._start + len(self.told))


@dataclass(eq=False)
class _Job:
    """Rows that wait; those with an equal kind may be computed together."""

    rows: Rows
    level: float | None
    explain: bool
    until: float
    future: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    def goes_with(self, other: _Job) -> bool:
        return self.level == other.level and not self.explain and not other.explain


class Engine:
    """Owns a predictor, the thread that computes with it, and the rows that wait for it.

    Rows of a request are read and decoded by threads of their own, bounded in number, and alone: what is wrong with
    them is the matter of that request. What waits is computed together, up to `batch` rows; answers are those that
    `predictor.answer` gives.

    Args:
        predictor: answers.
        settings: of the server.
        watch: told, after each batch, how many rows it had, how many requests, how many seconds it took.

    Attributes:
        predictor: as given.
        waiting: rows that wait to be computed.
        draining: whether the server is about to stop: what still comes is answered, and told that it is the last.
    """

    def __init__(
        self,
        predictor: Answerer,
        settings: Settings,
        *,
        watch: Callable[[int, int, float], None] | None = None,
    ) -> None:
        self.predictor, self.settings = predictor, settings
        self.limits = Limits(predictor.schema, settings)
        self.waiting, self.draining = 0, False
        self._watch = watch
        self._screens = predictor.has_screen
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._held = 0
        self._speed = 0.0  # rows a second, as lately seen
        self._together = False  # whether the batch before was of several requests
        self._stopping = False
        self._readers = ThreadPoolExecutor(min(4, 1 + cores()), "reader")
        self._thread = threading.Thread(target=self._compute, name="compute", daemon=True)
        self._thread.start()
        self._ended = threading.Event()
        keep_tidy(self._ended)

    @property
    def stopping(self) -> bool:
        """Whether nothing more is taken."""
        return self._stopping

    async def answer(
        self, rows: Sequence[Mapping[str, Any]], *, level: float | None = None, deadline: float | None = None
    ) -> Answered:
        """Answer the rows of one request, together with those of others.

        Args:
            rows: cells by column; media as bytes, or a list of bytes. What a row lacks is absent.
            level: share of rows whose truth sets and intervals are to hold; none are made when left out.
            deadline: seconds in which the answer is wanted; as in the settings, when left out.

        Raises:
            InputError: a row is over a limit or cannot be read.
            Busy: too much waits.
            Late: the deadline went by.
            Stopping: the server stops.
        """
        found: Answered = await self._in_time(lambda until: self._submitted(rows, level=level, until=until), deadline)
        return found

    async def explanation(self, row: Mapping[str, Any], *, deadline: float | None = None) -> Explained:
        """Answer one row, and say what each modality gives to the answer; raises as `answer` does."""
        found: Explained = await self._in_time(
            lambda until: self._submitted([row], explain=True, until=until), deadline
        )
        return found

    def ask(
        self, rows: Sequence[Mapping[str, Any]], *, level: float | None = None, deadline: float | None = None
    ) -> list[Told]:
        """Answer rows, for a caller with a thread of its own; raises as `answer` does."""
        found: Answered = self._blocking(rows, deadline, level=level)
        return found.told

    def explain(self, row: Mapping[str, Any], *, deadline: float | None = None) -> Explained:
        """Say what each modality gives to the answer of one row, for a caller with a thread of its own."""
        found: Explained = self._blocking([row], deadline, explain=True)
        return found

    def close(self) -> None:
        """Take nothing more, answer what was taken, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._readers.shutdown(wait=True)
        self._thread.join()
        self._ended.set()

    async def in_reader(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run work on one of the threads that read requests."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)
        except RuntimeError as error:
            if self._stopping:
                raise Stopping("the server stops") from error
            raise

    def _blocking(self, rows: Sequence[Mapping[str, Any]], deadline: float | None, **options: Any) -> Any:
        until = time.monotonic() + (self.settings.deadline if deadline is None else deadline)
        future = self._submitted(rows, until=until, **options)
        try:
            return future.result(timeout=until - time.monotonic())
        except TimeoutError:
            future.cancel()
            raise self._late() from None

    async def _in_time(self, submit: Callable[[float], Future[Any]], deadline: float | None) -> Any:
        seconds = self.settings.deadline if deadline is None else deadline
        until = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(await self.in_reader(submit, until))
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> Late:
        return Late("the answer did not come before the deadline; ask again later, or for fewer rows")

    def _submitted(
        self,
        given: Sequence[Mapping[str, Any]],
        *,
        level: float | None = None,
        explain: bool = False,
        until: float,
    ) -> Future[Any]:
        """Read rows, and let them wait for their answers."""
        size = self.limits.check(given)
        self._room_for(len(given), size)
        try:
            if level is not None:
                self._check(level)
            job = _Job(self.predictor.read_rows(given), level, explain, until)
        except BaseException:
            self._leave(len(given), size)
            raise
        job.future.add_done_callback(lambda _: self._leave(len(given), size))
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def _check(self, level: float) -> None:
        bounds = self.predictor.levels
        if bounds is None:
            raise InputError(f"level = {level}: this model has no sets and no intervals; see  polyfuse predict --level")
        if not bounds[0] <= level <= bounds[1]:
            raise InputError(f"level = {level}: from {bounds[0]:g} to {bounds[1]:g} can be had of this model")

    def _room_for(self, rows: int, size: int) -> None:
        with self._changed:
            if self._stopping:
                raise Stopping("the server stops")
            full = self.waiting + rows > self.settings.queue
            if full or (self._held and self._held + size > self.settings.memory):
                what = f"{self.waiting} rows wait" if full else "images and recordings under way take all the room"
                seconds = math.ceil(self.waiting / self._speed) if self._speed else 1
                raise Busy(f"the server is busy: {what}", min(60, max(1, seconds)))
            self.waiting += rows
            self._held += size

    def _leave(self, rows: int, size: int) -> None:
        with self._changed:
            self.waiting -= rows
            self._held -= size

    def _compute(self) -> None:
        with computing_threads(self.settings.compute_threads()):
            while jobs := self._next():
                begun = time.monotonic()
                self._work(jobs)
                seconds, rows = time.monotonic() - begun, sum(len(job.rows) for job in jobs)
                self._together = len(jobs) > 1
                self._speed = 0.8 * self._speed + 0.2 * rows / max(seconds, 1e-6)
                if self._watch is not None:
                    self._watch(rows, len(jobs), seconds)
                # Until the next request comes, nothing holds on to what these had decoded.
                jobs.clear()

    def _next(self) -> list[_Job]:
        """Return what is computed next; nothing when all is done."""
        with self._changed:
            while True:
                while not self._jobs and not (self._stopping and not self.waiting):
                    # While stopping, what readers are still at is waited for too.
                    self._changed.wait(0.1 if self._stopping else None)
                if not self._jobs:
                    return []
                self._gather()
                if found := self._taken():
                    return found

    def _gather(self) -> None:
        """Wait for rows of others, where they may be expected: a request that comes alone never waits."""
        until = self._jobs[0].arrived + self.settings.window_ms / 1000
        while self._together and sum(len(job.rows) for job in self._jobs) < self.settings.batch:
            left = until - time.monotonic()
            if left <= 0 or self._stopping:
                return
            self._changed.wait(left)

    def _taken(self) -> list[_Job]:
        """Take jobs that go together; those whose time is over are let go."""
        found: list[_Job] = []
        rest: list[_Job] = []
        rows = 0
        while self._jobs:
            job = self._jobs.popleft()
            if job.until <= time.monotonic():
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(self._late())
            elif not found or (found[0].goes_with(job) and rows + len(job.rows) <= self.settings.batch):
                if job.future.set_running_or_notify_cancel():
                    found.append(job)
                    rows += len(job.rows)
            else:
                rest.append(job)
        self._jobs.extend(rest)
        return found

    def _work(self, jobs: Sequence[_Job]) -> None:
        try:
            if jobs[0].explain:
                found: list[Any] = [self._explained(jobs[0])]
            else:
                found = self._answered(jobs)
        except Exception as error:
            if len(jobs) > 1:  # One of them may be to blame; the others are not to suffer from it.
                for job in jobs:
                    self._work([job])
            else:
                jobs[0].future.set_exception(error)
            return
        for job, answered in zip(jobs, found, strict=True):
            job.future.set_result(answered)

    def _answered(self, jobs: Sequence[_Job]) -> list[Answered]:
        rows = joined([job.rows for job in jobs]) if len(jobs) > 1 else jobs[0].rows
        answers, told = self._told(rows, jobs[0].level)
        found, start = [], 0
        for job in jobs:
            found.append(Answered(told[start : start + len(job.rows)], len(rows), answers, start))
            start += len(job.rows)
        return found

    def _told(self, rows: Rows, level: float | None) -> tuple[Answers, list[Told]]:
        answers = self.predictor.answer_rows(rows, screen=self._screens, level=level)
        return answers, tell(answers, rows.present, self.predictor.schema)

    def _explained(self, job: _Job) -> Explained:
        _, [told] = self._told(job.rows, None)
        return Explained(told, shares_told(told, self.predictor.shares(job.rows), self.predictor.schema.target))
