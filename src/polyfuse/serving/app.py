"""The application: an engine behind doors."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from polyfuse.core.errors import DataError, Problem, import_extra
from polyfuse.core.version import __version__
from polyfuse.serving.bodies import Bodies
from polyfuse.serving.card import Card, card_of
from polyfuse.serving.docs import docs_router
from polyfuse.serving.doors import Doors
from polyfuse.serving.engine import Answerer, Engine
from polyfuse.serving.keeping import Keeper
from polyfuse.serving.logs import Logs
from polyfuse.serving.metrics import Metrics
from polyfuse.serving.openapi import describe
from polyfuse.serving.problems import Refused, problem_of
from polyfuse.serving.routes import answering, telling
from polyfuse.serving.settings import Settings

if TYPE_CHECKING:
    from polyfuse.predictor import Predictor

_FIRST = 600.0  # seconds; a first answer imports much, and no client waits for it
#: Of FastAPI's own, which asks the environment at each request; the server has metrics and a log.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_ABOUT = "Each column may be left out: what a row lacks is absent, and the model answers from the rest."


def make_app(predictor: Predictor, settings: Settings | None = None, *, logs: Logs | None = None) -> FastAPI:
    """Return an ASGI application that answers with a predictor, in its own process.

    Its `state.engine` answers, and is closed when the application ends.

    Args:
        predictor: fitted or loaded.
        settings: limits, keys, the page, the request log.
        logs: where its lines go; standard error when left out.

    Raises:
        InputError: the request log is of another model.
        MissingExtra: the page is asked for, and gradio is not installed.
    """
    return app_of(predictor, card_of(predictor), settings or Settings(), logs or Logs())


def app_of(predictor: Answerer, card: Card, settings: Settings, logs: Logs) -> FastAPI:
    """Return the application, of a predictor or of what stands for one; see `make_app`.

    Args:
        predictor: answers.
        card: what is told about it.
        settings: of the server.
        logs: where its lines go.
    """
    metrics = Metrics()
    engine = Engine(predictor, settings, watch=metrics.batch)
    metrics.waiting = lambda: engine.waiting
    bodies = Bodies(predictor.schema, settings, screens=predictor.has_screen)
    keeper = _keeper(predictor, settings, logs)
    name = ", ".join(predictor.schema.target.names)
    app = FastAPI(
        title=f"Polyfuse: {name}",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
        lifespan=_lifespan(engine, keeper),
    )
    app.router.redirect_slashes = False
    app.state.engine, app.state.example = engine, bodies.example()
    app.include_router(answering(engine, bodies, settings, metrics, keeper))
    app.include_router(telling(engine, settings, metrics, card))
    document = describe(app, bodies, settings)
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.include_router(docs_router(document, predictor.schema, bodies))
    for kind in (HTTPException, RequestValidationError):  # of which FastAPI has an opinion; all else goes to the doors
        app.add_exception_handler(kind, _told)
    app.user_middleware.append(
        Middleware(Doors, engine=engine, settings=settings, metrics=metrics, logs=logs, own=_own(document))
    )
    if _has_page(settings):
        from polyfuse.serving.page import mount_page

        mount_page(app, predictor.schema, engine, settings)
    return app


def warm_up(app: FastAPI) -> None:
    """Answer an example, in every way there is: what is imported or made at first use is there for the first client."""
    engine: Engine = app.state.engine
    for level in {None, (engine.predictor.levels or (None,))[-1]}:
        engine.ask([app.state.example], level=level, deadline=_FIRST)
    engine.explain(app.state.example, deadline=_FIRST)


def _keeper(predictor: Answerer, settings: Settings, logs: Logs) -> Keeper | None:
    if settings.log is None:
        return None
    from polyfuse.serving.journal import Journal

    return Keeper(Journal(settings.log, predictor.schema, most_bytes=settings.log_size), logs)


def _lifespan(engine: Engine, keeper: Keeper | None) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()
        if keeper is not None:
            keeper.close()

    return lifespan


def _has_page(settings: Settings) -> bool:
    """Tell whether there is a page: where it is asked for, or where nothing was said and gradio is installed."""
    if settings.page:
        import_extra("gradio", "ui", "the page")
    if settings.page is None:
        # With a key, a page is a second way in; it is opened only where somebody says so.
        return not settings.keys and importlib.util.find_spec("gradio") is not None
    return settings.page


def _own(document: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Return the paths of the server itself, with their methods."""
    own = {path: frozenset(map(str.upper, methods)) for path, methods in document["paths"].items()}
    return own | dict.fromkeys(("/docs", "/openapi.json"), frozenset({"GET"}))


async def _told(request: Request, error: Exception) -> Response:
    """Return the answer to a request that failed."""
    if isinstance(error, HTTPException):
        error = Refused(error.status_code, str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        error = DataError([Problem(f"{one['loc'][-1]}: {one['msg']}") for one in error.errors()])
    return problem_of(error, request.state.request_id)
