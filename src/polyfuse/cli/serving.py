"""The command that serves a model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyfuse.cli.options import Run

_MIB = 1 << 20


def serve(
    run: Run,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one; the log says which.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Processes, each with a model of its own.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="That compute, in each worker.", show_default="cores / workers", min=1)
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows of several requests computed together.", min=1)] = 32,
    window: Annotated[
        float, typer.Option(help="Milliseconds a batch waits for others, while others come.", min=0)
    ] = 2.0,
    queue: Annotated[int, typer.Option(help="Rows that may wait; beyond, 429 with Retry-After.", min=1)] = 512,
    deadline: Annotated[float, typer.Option(help="Seconds for an answer; beyond, 504.", min=0.001)] = 30.0,
    max_body: Annotated[float, typer.Option(help="MiB of a request.", min=0.001)] = 32.0,
    max_rows: Annotated[int, typer.Option(help="Rows of a request.", min=1)] = 256,
    max_megapixels: Annotated[float, typer.Option(help="Of an image.", min=0.001)] = 25.0,
    max_seconds: Annotated[float, typer.Option(help="Of a recording.", min=0.001)] = 300.0,
    max_points: Annotated[int, typer.Option(help="Of a point cloud.", min=1)] = 1_000_000,
    max_text: Annotated[int, typer.Option(help="Characters of a text.", min=1)] = 100_000,
    memory: Annotated[int, typer.Option(help="MiB for decoded media of all requests under way.", min=1)] = 1024,
    key_file: Annotated[
        Path | None,
        typer.Option(help="Ask for one of the keys in this file, one on each line, or for POLYFUSE_API_KEY."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second that a client may go on with; else 429.", min=0.001)
    ] = None,
    burst: Annotated[int, typer.Option(help="With --rate: requests that it may make at once.", min=1)] = 20,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Take the word of this proxy on who the client is; may be repeated.", metavar="ADDRESS"),
    ] = None,
    page: Annotated[
        bool | None,
        typer.Option("--page/--no-page", help="A page at /.", show_default="where gradio is installed, without a key"),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Keep requests and answers in this folder, for drift, refit and feedback.")
    ] = None,
    log_size: Annotated[int, typer.Option(help="MiB that they may take.", min=1)] = 1024,
) -> None:
    """Answer over HTTP: one row, several, what each modality gives; with docs, health and metrics.

    Requests that come at once are computed together. SIGTERM and Ctrl-C end it: what was accepted is answered first.
    The log is one JSON object on each line of standard error.

    Example:  polyfuse serve runs/price --port 8000
    """
    from polyfuse.serving.server import serve as run_server
    from polyfuse.serving.settings import Settings, with_keys

    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        threads=threads,
        window_ms=window,
        batch=batch,
        queue=queue,
        deadline=deadline,
        max_body=round(max_body * _MIB),
        max_pixels=round(max_megapixels * 1_000_000),
        max_seconds=max_seconds,
        max_points=max_points,
        max_letters=max_text,
        max_rows=max_rows,
        memory=memory * _MIB,
        rate=rate,
        burst=burst,
        proxies=tuple(proxy or ()),
        page=page,
        log=log,
        log_size=log_size * _MIB,
    )
    raise typer.Exit(run_server(run, with_keys(settings, key_file)))
