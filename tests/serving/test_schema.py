"""The server holds to its own OpenAPI: schemathesis derives requests from it, right ones and wrong ones."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.types import ASGIApp, Receive, Scope, Send

import polyfuse as pf
from polyfuse.data.points import to_npy
from polyfuse.serving.cells import tiny_png, tiny_wav
from serving.client import Asked

EXAMPLES = 12


@pytest.fixture(scope="module")
def asked(predictor: pf.Predictor) -> Iterator[Asked]:
    made = Asked(predictor, max_letters=200, max_rows=20)
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def _media() -> None:
    """Tell what an image, a recording and a file of points are, which no schema can."""
    clouds = st.integers(1, 20).map(lambda count: to_npy(np.eye(count, 3, dtype=np.float32)))
    pictures = st.builds(tiny_png, st.integers(1, 20))
    for name, made in (("image", pictures), ("audio", st.just(tiny_wav())), ("points", clouds)):
        schemathesis.openapi.format(name, made.map(lambda data: base64.b64encode(data).decode()))


def _endless(app: ASGIApp) -> ASGIApp:
    """Return an application that does not end with each request, as schemathesis would have it."""

    async def passed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})

    return passed


PATHS = ["/predict", "/predict/batch", "/explain", "/health/live", "/health/ready", "/metrics", "/model"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", PATHS)
def test_the_server_holds_to_its_document(asked: Asked, path: str, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", _endless(asked.app))
    method = "GET" if path not in PATHS[:3] else "POST"
    if mode is GenerationMode.NEGATIVE and method == "GET":
        pytest.skip("there is nothing to be wrong")
    kinds = set()

    @given(case=document[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def holds(case: schemathesis.Case) -> None:
        if case.media_type == "multipart/form-data":
            return  # its files are any bytes to the schema; see test_app.py
        # Not every text is an image, whatever the schema calls it.
        answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
        kinds.add(answer.status_code // 100)
        assert answer.status_code < 500

    holds()
    # What is right is answered; what is wrong is refused, unless it is wrong where nobody looks, as in a made-up query.
    assert (2 if mode is GenerationMode.POSITIVE else 4) in kinds


def test_every_path_is_held_to(asked: Asked) -> None:
    assert set(asked("GET", "/openapi.json").json()["paths"]) == set(PATHS)
