"""Asks an application, in process."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import httpx
import pandas as pd
from fastapi import FastAPI

from polyfuse.serving.app import make_app
from polyfuse.serving.logs import Logs
from polyfuse.serving.settings import Settings


class Asked:
    """An application, the lines that it logs, and a client of it."""

    def __init__(self, predictor: Any, **settings: Any) -> None:
        self.stream = io.StringIO()
        chosen = Settings(**{"threads": 1, "page": False, **settings})
        self.app: FastAPI = make_app(predictor, chosen, logs=Logs(self.stream))

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        [answer] = self.together([(method, path, options)])
        return answer

    def together(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Ask for several things at once."""

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await asyncio.gather(
                    *(client.request(method, path, **options) for method, path, options in requests)
                )

        return asyncio.run(ask())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def close(self) -> None:
        self.app.state.engine.close()


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON says it."""
    return {name: base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell for name, cell in row.items()}


def rows_of(table: pd.DataFrame, predictor: Any) -> list[dict[str, Any]]:
    return table[[column.name for column in predictor.schema.columns]].to_dict("records")
