"""What is counted, for Prometheus. With several workers all of them are counted together, in files that they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polyfuse.core.errors import import_extra
from polyfuse.serving.memory import resident

if TYPE_CHECKING:
    from polyfuse.serving.telling import Told

#: Names the folder of the shared files; set before the first worker starts.
SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts requests, rows and batches.

    Args:
        waiting: tells how many rows wait.

    Raises:
        MissingExtra: prometheus-client is not installed; it comes with the extra `serve`.
    """

    def __init__(self, waiting: Callable[[], int] = int) -> None:
        client: Any = import_extra("prometheus_client", "serve", "serving")
        self._client, self.waiting = client, waiting
        self._registry = client.CollectorRegistry()
        own = {"registry": self._registry}
        labels = ["path", "method", "status"]
        self._requests = client.Counter("polyfuse_requests", "Requests that were answered.", labels, **own)
        self._seconds = client.Histogram(
            "polyfuse_request_seconds", "Seconds from the first byte to the answer.", ["path"], buckets=_SECONDS, **own
        )
        self._batches = client.Histogram("polyfuse_batch_rows", "Rows computed together.", buckets=_ROWS, **own)
        self._computing = client.Counter("polyfuse_computing_seconds", "Seconds spent computing.", **own)
        self._rows = client.Counter("polyfuse_rows", "Rows that were answered.", **own)
        self._suspicious = client.Counter("polyfuse_suspicious_rows", "Rows that the screen flagged.", **own)
        gauge: dict[str, Any] = {**own, "multiprocess_mode": "livesum"}
        self._waiting = client.Gauge("polyfuse_waiting_rows", "Rows that wait to be computed.", **gauge)
        self._memory = client.Gauge("polyfuse_memory_bytes", "Resident memory of the workers.", **gauge)

    def request(self, path: str | None, method: str, status: int, seconds: float) -> None:
        """Count a request. path: of the server; None of any other, which are counted as one."""
        named = path or "other"
        # What clients make up is not to become a series of its own.
        known = method if method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"
        self._requests.labels(named, known, str(status)).inc()
        self._seconds.labels(named).observe(seconds)

    def told(self, told: list[Told]) -> None:
        """Count the rows of an answer."""
        self._rows.inc(len(told))
        self._suspicious.inc(sum(bool(one.suspicious) for one in told))

    def batch(self, rows: int, requests: int, seconds: float) -> None:
        """Count what was computed together."""
        self._batches.observe(rows)
        self._computing.inc(seconds)
        self._look()

    def text(self) -> tuple[bytes, str]:
        """Return everything in Prometheus' text format, and its content type."""
        self._look()
        registry = self._registry
        if SHARED in os.environ:
            from prometheus_client import multiprocess

            registry = self._client.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return self._client.generate_latest(registry), self._client.CONTENT_TYPE_LATEST

    def _look(self) -> None:
        self._waiting.set(self.waiting())
        self._memory.set(resident())
