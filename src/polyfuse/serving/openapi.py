"""The OpenAPI document: types of this model's own columns, and every way in which a request may be refused."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from polyfuse.serving.bodies import Bodies, ProblemBody
from polyfuse.serving.problems import MEDIA_TYPE
from polyfuse.serving.settings import Settings

_COMPONENTS = "#/components/schemas/"
_FORM = {"text": "string", "category": "string", "datetime": "string", "embedding": "string", "number": "number"}


def refusals(settings: Settings, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what is documented of refusals; of a key too, where one is asked for."""
    every = sorted({*statuses, *([401] if settings.keys else [])})
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_COMPONENTS}ProblemBody"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in every}


def body_of(name: str, bodies: Bodies, *, form: bool = True) -> dict[str, Any]:
    """Return what is documented of a body.

    Args:
        name: of its model.
        bodies: knows the columns.
        form: whether it may be a form, too.
    """
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"{_COMPONENTS}{name}"}}}
    if form:
        properties = {cell.column.name: _field(cell.column.type) for cell in bodies.cells.values()}
        shape = {"type": "object", "properties": properties, "additionalProperties": False}
        content["multipart/form-data"] = {"schema": shape}
    return {"requestBody": {"required": True, "content": content}}


def _field(type: str) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    return {"type": _FORM[type]} if type in _FORM else file


def describe(app: FastAPI, bodies: Bodies, settings: Settings) -> dict[str, Any]:
    """Return the document.

    Args:
        app: its endpoints.
        bodies: what comes in.
        settings: whether a key is asked for.
    """
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    models = [(kind, "validation") for kind in (bodies.row, bodies.rows, bodies.feedback, ProblemBody)]
    _, found = models_json_schema(models, by_alias=True, ref_template=_COMPONENTS + "{model}")  # type: ignore[arg-type]
    document.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
    if settings.keys:
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path.startswith("/health/") else [{"key": []}, {"bearer": []}]
    return document
