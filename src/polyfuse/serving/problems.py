"""Errors as `application/problem+json` (RFC 9457): what is wrong and what to do, never a trace."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from polyfuse.core.errors import DataError, InputError
from polyfuse.serving.bodies import Malformed
from polyfuse.serving.engine import Busy, Late, Stopping

MEDIA_TYPE = "application/problem+json"


class Refused(Exception):
    """A request that goes no further.

    Attributes:
        status: of HTTP.
        detail: what is wrong and what to do.
        headers: that the answer has.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.detail, self.headers = status, detail, dict(headers or {})
        super().__init__(detail)


def problem(
    status: int,
    detail: str,
    request_id: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error as the answer to a request."""
    title = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": request_id}
    return Response(to_json({**body, "errors": errors or []}), status, dict(headers or {}), MEDIA_TYPE)


def problem_of(error: Exception, request_id: str) -> Response:
    """Return what is told of an error; of one that nobody thought of, nothing but the id to look for in the log."""
    if isinstance(error, Refused):
        return problem(error.status, error.detail, request_id, headers=error.headers)
    if isinstance(error, Malformed):
        return problem(400, str(error), request_id)
    if isinstance(error, Busy):
        return problem(429, str(error), request_id, headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, Late):
        return problem(504, str(error), request_id)
    if isinstance(error, Stopping):
        return problem(503, str(error), request_id, headers={"Retry-After": "5"})
    if isinstance(error, DataError):
        return problem(422, _counted(error), request_id, errors=[_fault(one) for one in error.problems])
    if isinstance(error, InputError):
        return problem(422, str(error), request_id)
    return problem(500, "the server failed; its log tells more under this request id", request_id)


def _counted(error: DataError) -> str:
    count = len(error.problems)
    return f"{count} thing{'s are' if count != 1 else ' is'} wrong with the request"


def _fault(one: Any) -> dict[str, Any]:
    return {"message": one.message, "column": one.column, "row": one.rows[0] if one.rows else None}
