"""What of gradio can be reached, and with what: its page, its files, uploads, and one function.

Gradio's own server knows some sixty addresses, and functions that read a path or fetch a URL which a request names.
None of that is wanted here: what is not named below is not found, and what a request says is checked before gradio
reads it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]

_OPEN = re.compile(r"/|/theme\.css|/favicon\.ico|/(assets|static)/[\w./@+-]+")
_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_PROGRESS = "/gradio_api/upload_progress"
_RUN = "/gradio_api/run/predict"
_AGE = 3600.0  # seconds after which an upload is forgotten
_INLINE = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_NOTHING = "default-src 'none'; sandbox"


def policy(scripts: Sequence[bytes] = ()) -> str:
    """Return the content security policy of the page: everything from here, and of inline scripts only these."""
    digests = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts)
    allowed = "".join(f" 'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self'{allowed}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
        " media-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self'; worker-src 'self' blob:;"
        " frame-ancestors 'none'; base-uri 'self'; form-action 'none'"
    )


def inside(name: str, folder: Path) -> Path | None:
    """Return the file of an upload; None where the name leads elsewhere, or to nothing."""
    try:
        path = Path(name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):
        return None


class Door:
    """Stands before gradio's server.

    Args:
        app: of gradio.
        folder: where uploads are.
        media: of each input of the function, whether it is a file; the last input is a list of names, the others text.
        names: that the last input may hold.
        room: bytes that uploads may take together; the oldest go first.
        most: bytes of a request.
    """

    def __init__(
        self, app: App, folder: Path, *, media: Sequence[bool], names: Sequence[str], room: int, most: int
    ) -> None:
        self._app, self._folder = app, folder
        self._media, self._names, self._room, self._most = list(media), set(names), room, most

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _request(self, scope: Any, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        reads = method in ("GET", "HEAD")
        if reads and path == "/":
            # As it would be without: what may be asked of gradio's front page is another page, or another state of it.
            await self._app({**scope, "query_string": b""}, receive, _with_policy(send))
        elif reads and _OPEN.fullmatch(path) and ".." not in path:
            await self._app(scope, receive, send)
        elif reads and path.startswith(_FILE) and inside(unquote(path[len(_FILE) :]), self._folder) is not None:
            await self._app(scope, receive, _with_headers(send, _NOTHING))
        elif method == "GET" and path == _PROGRESS:
            # Progress is known to the worker that takes the upload only, and this may be another one.
            await _answer(send, 200, b'data: {"msg": "done"}\n\n', "text/event-stream")
        elif method == "POST" and path == _UPLOAD:
            await self._upload(scope, receive, send)
        elif method == "POST" and path == _RUN:
            await self._run(scope, receive, send)
        else:
            await _refuse(send, 404, "Not Found", "there is nothing here; the page is at /, the API at /docs")

    async def _upload(self, scope: Any, receive: Receive, send: Send) -> None:
        make_room(self._folder, self._room - self._most)
        try:
            await self._app({**scope, "query_string": b""}, receive, _without_failures(send))
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
            # What gradio's reader of forms stumbles over; a disk that is full is another thing.
            await _refuse(send, 400, "Bad Request", "this is no form with files that can be read")

    async def _run(self, scope: Any, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > self._most:
                await _refuse(send, 413, "Content Too Large", f"a request may have at most {self._most:,} bytes")
                return
            if not message.get("more_body", False):
                break
        checked = self.checked(body)
        if checked is None:
            await _refuse(send, 422, "Unprocessable Content", "this is not what the page sends; the API is at /docs")
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(checked)).encode()))

        async def again() -> Message:
            return {"type": "http.request", "body": checked, "more_body": False}

        await self._app({**scope, "headers": headers, "query_string": b""}, again, send)

    def checked(self, body: bytes) -> bytes | None:
        """Return what gradio is to read: the inputs alone, each of its kind; None where one is not."""
        try:
            said = json.loads(body)
            *values, gone = said["data"]
            cells = [self._cell(value, media) for value, media in zip(values, self._media, strict=True)]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not isinstance(gone, list) or not all(isinstance(name, str) and name in self._names for name in gone):
            return None
        return json.dumps({"data": [*cells, gone], "fn_index": 0}).encode()

    def _cell(self, value: Any, media: bool) -> Any:
        """Return one input.

        Raises:
            ValueError: it is of another kind, or names a file that was not uploaded.
        """
        if value is None or (not media and isinstance(value, str)):
            return value
        path = inside(value["path"], self._folder) if media and isinstance(value, dict) else None
        if path is None:
            raise ValueError("no text, and no upload")
        return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def make_room(folder: Path, most: int) -> None:
    """Remove uploads that are old, and the oldest of the others until they have at most so many bytes."""
    found = []
    for entry in folder.iterdir():
        try:
            files = [entry] if entry.is_file() else list(entry.iterdir())
            found.append((entry.stat().st_mtime, sum(file.stat().st_size for file in files), entry))
        except OSError:  # another worker was first
            continue
    total, old = sum(size for _, size, _ in found), time.time() - _AGE
    for moment, size, entry in sorted(found):
        if moment >= old and total <= most:
            break
        total -= size
        if entry.is_file():
            entry.unlink(missing_ok=True)
        else:
            shutil.rmtree(entry, ignore_errors=True)


def _without_failures(send: Send) -> Send:
    """Leave out an answer that tells of an exception, which is raised then too."""
    failed = False

    async def sent(message: Message) -> None:
        nonlocal failed
        failed = failed or message.get("status", 0) >= 500
        if not failed:
            await send(message)

    return sent


def _with_headers(send: Send, policy: str) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*_other(message["headers"]), (b"content-security-policy", policy.encode())]
        await send(message)

    return sent


def _with_policy(send: Send) -> Send:
    """Hold the page back until it is whole, so that its policy can name its scripts."""
    start: Message = {}
    body: list[bytes] = []

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            body.append(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            whole = b"".join(body)
            own = policy(_INLINE.findall(whole))
            start["headers"] = [*_other(start["headers"]), (b"content-security-policy", own.encode())]
            await send(start)
            await send({"type": "http.response.body", "body": whole})

    return sent


def _other(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if pair[0].lower() != b"content-security-policy"]


async def _refuse(send: Send, status: int, title: str, detail: str) -> None:
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    await _answer(send, status, json.dumps(problem).encode(), "application/problem+json")


async def _answer(send: Send, status: int, body: bytes, type: str) -> None:
    headers = [(b"content-type", type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
