"""What every request passes: its id, its key, its rate, its size; and what every answer carries."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polyfuse.serving.engine import Engine
from polyfuse.serving.logs import Logs
from polyfuse.serving.metrics import Metrics
from polyfuse.serving.problems import Refused, problem_of
from polyfuse.serving.settings import Settings

#: Open to everybody, and not counted: what asks for them has no key, and asks often.
OPEN = ("/health/live", "/health/ready")

_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_MOST_CLIENTS = 10_000
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    # Pages that load something say what.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Doors:
    """Passes requests on to an application, or refuses them.

    Args:
        app: behind the doors.
        engine: tells whether the server is about to stop.
        settings: limits and keys.
        metrics: count every request.
        logs: have a line of every request.
        own: paths of the server itself, with their methods; all others are the page's.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        logs: Logs,
        own: Mapping[str, frozenset[str]],
    ) -> None:
        self._app, self._engine, self._settings, self._metrics, self._logs = app, engine, settings, metrics, logs
        self._own = own
        self._keys = [_digest(key.encode()) for key in settings.keys]
        self._buckets = Buckets(settings.rate, settings.burst) if settings.rate is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # there are none
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = _Headers(scope)
        request_id = _id(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, self._carried(request_id))
        try:
            self._check(scope, headers)
            await self._app(scope, _Bounded(receive, self._settings, headers), answer)
        except ClientDisconnect:
            pass  # in the middle of its body; nobody is there to be told
        except Exception as error:
            response = problem_of(error, request_id)
            if response.status_code == 500:
                self._logs.failure(request_id, error)
            if answer.status is None:
                await response(scope, receive, answer)
        finally:
            seconds, route = time.perf_counter() - begun, _route(scope, self._own)
            told = scope["state"].get("told", {})
            status = answer.status or 499  # the client went away before there was one
            self._metrics.request(route, scope["method"], status, seconds)
            self._logs.request(request_id, scope["method"], route or scope["path"], status, seconds, told)

    def _carried(self, request_id: str) -> list[tuple[bytes, bytes]]:
        carried = [*_HEADERS, (b"x-request-id", request_id.encode())]
        if self._engine.draining:
            carried.append((b"connection", b"close"))
        return carried

    def _check(self, scope: Scope, headers: _Headers) -> None:
        """Let a request in.

        Raises:
            Refused: it has no key, comes too often, or says that it is too large.
        """
        methods = self._own.get(scope["path"])
        if methods is not None and scope["method"] not in methods:
            raise Refused(405, "there is no such method here", {"Allow": ", ".join(sorted(methods))})
        if scope["path"] in OPEN:
            return
        key = _key(headers) if self._keys else None
        if self._keys:
            given = _digest(key or b"")
            # Every key is compared, in a time that does not depend on where they differ.
            if sum(hmac.compare_digest(given, known) for known in self._keys) == 0:
                scheme = "Bearer" if scope["path"] in self._own and scope["path"] != "/docs" else "Basic"
                raise Refused(
                    401,
                    "a key is needed: give it as  X-API-Key  or as  Authorization: Bearer",
                    {"WWW-Authenticate": f'{scheme} realm="polyfuse"'},
                )
        # Only what the server computes is counted: a page consists of a hundred files, and they come at once.
        if self._buckets is not None and (methods is not None or scope["method"] == "POST"):
            client = (scope.get("client") or ("unknown", 0))[0]
            wait = self._buckets.take(client if key is None else _digest(key).hex())
            if wait > 0:
                raise Refused(429, "too many requests; go on more slowly", {"Retry-After": str(int(wait) + 1)})
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length[:20]) > self._settings.max_body):
            raise _too_large(self._settings)


class Buckets:
    """A bucket of tokens for each client: a request takes one, and they come back at a rate.

    Args:
        rate: tokens that come back in a second.
        burst: tokens that a bucket holds.
        clock: seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token; return 0, or after how many seconds there is one."""
        now = self._clock()
        left, seen = self._left.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - seen) * self._rate)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate


class _Headers:
    """The headers of a request by lower-case name, the first of each."""

    def __init__(self, scope: Scope) -> None:
        self._found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            self._found.setdefault(name.lower(), value)

    def get(self, name: bytes) -> bytes | None:
        return self._found.get(name)


class _Bounded:
    """Receives a body, as long as it is not too large and does not take too long."""

    def __init__(self, receive: Receive, settings: Settings, headers: _Headers) -> None:
        self._receive, self._settings = receive, settings
        self._size, self._until, self._whole = 0, time.monotonic() + settings.deadline, False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self._settings.deadline:g} s") from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        if self._size > self._settings.max_body:
            raise _too_large(self._settings)
        return message


class _Answer:
    """Sends an answer, with what every answer carries."""

    def __init__(self, send: Send, carried: list[tuple[bytes, bytes]]) -> None:
        self._send, self._carried = send, carried
        self.status: int | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name.lower() for name, _ in message.get("headers", [])}
            carried = [pair for pair in self._carried if pair[0] not in own]
            message = {**message, "headers": [*message.get("headers", []), *carried]}
        await self._send(message)


def _too_large(settings: Settings) -> Refused:
    return Refused(413, f"the body has more than {settings.max_body:,} bytes", {"Connection": "close"})


def _id(given: bytes | None) -> str:
    """Return the id that a client gave, where it is well formed; else a new one."""
    said = given.decode("latin-1") if given is not None else ""
    return said if _ID.fullmatch(said) else uuid.uuid4().hex


def _key(headers: _Headers) -> bytes | None:
    """Return the key that a request brings: alone, as a bearer, or as the password that a browser asks for."""
    if (key := headers.get(b"x-api-key")) is not None:
        return key
    scheme, _, value = (headers.get(b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return None
    return None


def _digest(key: bytes) -> bytes:
    """Return something of one length, so that a comparison does not tell that of a key."""
    return hashlib.sha256(key).digest()


def _route(scope: Scope, own: Mapping[str, frozenset[str]]) -> str | None:
    """Return the path of the server that a request meant; None of any other, which a client made up."""
    return scope["path"] if scope["path"] in own else None
