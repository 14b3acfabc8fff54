"""From the body of a request to rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from polyfuse.serving.bodies import Bodies, Malformed
from polyfuse.serving.engine import Engine
from polyfuse.serving.problems import Refused
from polyfuse.serving.settings import Settings

JSON, FORM = "application/json", "multipart/form-data"
_MORE_FIELDS = 64


class _InMemory(MultiPartParser):
    """Reads a form without a file on disk: the whole body is bounded, and in memory already."""

    spool_max_size = 0  # of a file that never rolls over


async def rows_of(request: Request, engine: Engine, bodies: Bodies, settings: Settings, *, several: bool) -> Any:
    """Return the rows of a request: of a JSON body, or the one row of a form.

    Raises:
        Refused: the body is of another type, or too large.
        Malformed: it is not what it says to be.
        DataError: with everything that is wrong with it.
    """
    kind = content_type(request)
    if kind == JSON:
        return await engine.in_reader(lambda body: bodies.read(body, several=several), await request.body())
    if kind == FORM and not several:
        fields = await _fields(request, len(bodies.cells) + _MORE_FIELDS, settings.max_body)
        return [await engine.in_reader(bodies.read_form, fields)]
    wanted = JSON if several else f"{JSON} or {FORM}"
    raise Refused(415, f"the body is {kind or 'of no type'}; send {wanted}, and say so in  Content-Type")


def content_type(request: Request) -> str:
    """Return the type of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()[:100]


async def _fields(request: Request, most: int, size: int) -> list[tuple[str, str | bytes]]:
    """Return the fields of a form, a file as bytes; what the client calls the file is not looked at."""
    body = await request.body()

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = _InMemory(request.headers, stream(), max_files=most, max_fields=most, max_part_size=size)
        form = await parser.parse()
    except MultiPartException as error:
        raise Malformed(f"the form is broken: {error.message}") from None
    except (KeyError, ValueError, UnicodeError):
        raise Malformed("the form is broken: it has no boundary, or its headers cannot be read") from None
    found: list[tuple[str, str | bytes]] = []
    for name, value in form.multi_items():
        found.append((name, value if isinstance(value, str) else await value.read()))
    await form.close()
    return found
