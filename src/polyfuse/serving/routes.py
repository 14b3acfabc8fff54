"""The endpoints."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from polyfuse.serving.bodies import Bodies
from polyfuse.serving.card import Card
from polyfuse.serving.engine import Engine
from polyfuse.serving.keeping import Keeper
from polyfuse.serving.metrics import Metrics
from polyfuse.serving.openapi import body_of, refusals
from polyfuse.serving.problems import Refused
from polyfuse.serving.requests import JSON, content_type, rows_of
from polyfuse.serving.settings import Settings

_POST = (400, 408, 413, 415, 422, 429, 500, 503, 504)


def answering(engine: Engine, bodies: Bodies, settings: Settings, metrics: Metrics, keeper: Keeper | None) -> APIRouter:
    """Return the endpoints that answer rows.

    Args:
        engine: answers.
        bodies: types of requests and answers.
        settings: of the server.
        metrics: count rows.
        keeper: of the request log, where there is one.
    """
    router = APIRouter(tags=["answers"], redirect_slashes=False)
    bounds = engine.predictor.levels
    about = "Add the labels, or the interval, that hold the truth in this share of rows, e.g. 0.9."
    query: Any = Query(None, include_in_schema=False)
    if bounds is not None:
        query = Query(None, description=about, ge=bounds[0], le=bounds[1])
    refused = refusals(settings, *_POST)

    async def answered(request: Request, level: float | None, *, several: bool) -> Any:
        rows = await rows_of(request, engine, bodies, settings, several=several)
        found = await engine.answer(rows, level=level)
        metrics.told(found.told)
        request.state.told = {"rows": len(rows), "batch": found.batch}
        if keeper is not None:
            keeper.keep(request.state.request_id, rows, found)
        return found.told

    def reply(request: Request, body: dict[str, Any]) -> Response:
        return Response(to_json({"request_id": request.state.request_id, **body}), media_type=JSON)

    @router.post(
        "/predict",
        summary="Answer one row",
        responses={200: {"model": bodies.answer}, **refused},
        openapi_extra=body_of("Row", bodies),
    )
    async def predict(request: Request, level: float | None = query) -> Response:
        """Answer one row, given as JSON or as a form with files. Every column may be left out."""
        [told] = await answered(request, level, several=False)
        return reply(request, bodies.told(told))

    @router.post(
        "/predict/batch",
        summary="Answer several rows",
        responses={200: {"model": bodies.answers}, **refused},
        openapi_extra=body_of("Rows", bodies, form=False),
    )
    async def predict_batch(request: Request, level: float | None = query) -> Response:
        """Answer several rows, in their order."""
        found = await answered(request, level, several=True)
        return reply(request, {"answers": [bodies.told(told) for told in found]})

    @router.post(
        "/explain",
        summary="Answer one row, and say what each modality gives",
        responses={200: {"model": bodies.explained}, **refused},
        openapi_extra=body_of("Row", bodies),
    )
    async def explain(request: Request) -> Response:
        """Answer one row, and say what each of its modalities gives to the answer: their Shapley values."""
        [row] = await rows_of(request, engine, bodies, settings, several=False)
        found = await engine.explanation(row)
        request.state.told = {"rows": 1}
        return reply(request, bodies.explanation(found))

    if keeper is not None:

        @router.post(
            "/feedback",
            summary="Say what turned out to be true",
            responses={200: {"description": "Kept."}, **refused, **refusals(settings, 404)},
            openapi_extra=body_of("Feedback", bodies, form=False),
        )
        async def feedback(request: Request) -> Response:
            """Keep the true answer to a row that was asked earlier, for  polyfuse drift  and  polyfuse refit."""
            if content_type(request) != JSON:
                raise Refused(415, f"send {JSON}, and say so in  Content-Type")
            given = await engine.in_reader(bodies.parsed, bodies.feedback, await request.body())
            if not await keeper.feedback(given["request_id"], given.get("row", 0), given["truth"]):
                raise Refused(404, "the request log holds no such row; it may have been dropped for newer ones")
            return reply(request, {"kept": True})

    return router


def telling(engine: Engine, settings: Settings, metrics: Metrics, card: Card) -> APIRouter:
    """Return the endpoints that tell of the server and its model."""
    router = APIRouter(redirect_slashes=False)

    @router.get("/health/live", tags=["health"], summary="Whether the process runs")
    async def live() -> dict[str, str]:
        """Answer as long as the process does anything at all."""
        return {"status": "live"}

    @router.get(
        "/health/ready", tags=["health"], summary="Whether to send requests here", responses=refusals(settings, 503)
    )
    async def ready() -> dict[str, str]:
        """Say whether the model is loaded and the server is not about to stop."""
        if engine.draining or engine.stopping:
            raise Refused(503, "the server stops", {"Retry-After": "5"})
        return {"status": "ready"}

    kept = refusals(settings, 429) if settings.rate is not None else {}

    @router.get(
        "/metrics", tags=["health"], summary="Counters, for Prometheus", response_class=Response, responses=kept
    )
    def measured() -> Response:
        """Return counters of requests, rows and batches in Prometheus' text format."""
        text, kind = metrics.text()
        return Response(text, headers={"Content-Type": kind})

    @router.get("/model", tags=["model"], summary="What is served", responses=kept)
    async def model() -> Card:
        """Return what the model reads and answers, and how good it was on its validation rows."""
        return card

    return router
