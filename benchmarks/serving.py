"""A server under 32 clients, beside the bare model on the same rows.

python benchmarks/serving.py RUN ROWS [--seconds 60] [--threads 1] [--batch 32] [--clients 32] [--workers 1]

RUN is an artifact and ROWS a table for it, such as those that `polyfuse demo` leaves. The server is a process of its
own, and so are the clients together, each with one connection that asks for one row after the other. Every answer is
held against the predictor's own for the same row; where an encoder runs in bf16, batches of another composition give
other last digits, so that the difference within the predictor itself, a row alone and among others, is printed beside.
The bare model answers the same rows, decoding included, in batches of the server's size with as many threads, before
and after, while the server rests. Asked for: no answer lost, none other than the predictor's, and 0.85 of the bare
throughput. On a machine that others use, the seconds of the processors for each row say more than those of the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import polyfuse as pf
from measure import about, show
from polyfuse.core.threads import computing_threads
from polyfuse.data.cells import is_missing
from polyfuse.data.reading import read_table

TOLERANCE = 5e-3


def rows_of(predictor: pf.Predictor, path: Path) -> list[dict[str, Any]]:
    """Return rows as a request holds them once it is read: media as bytes, nothing where a cell is missing."""
    frame = read_table(path).frame
    names = [column.name for column in predictor.schema.columns]

    def cell(value: Any) -> Any:
        if isinstance(value, dict):
            value = value["bytes"]
        return None if is_missing(value) else value.tolist() if isinstance(value, np.ndarray) else value

    return [{name: cell(value) for name, value in row.items()} for row in frame[names].to_dict("records")]


def request_of(row: dict[str, Any]) -> bytes:
    """Return a row as the bytes of a request."""
    said = {name: base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell for name, cell in row.items()}
    body = json.dumps(said).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def clients(port: int, requests: list[bytes], count: int, seconds: float, result: Any) -> None:
    """Be all clients; send (row, status, seconds, body) of every request."""

    async def client(first: int, found: list[tuple[int, int, float, bytes]], until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        at = first
        while time.perf_counter() < until:
            begun = time.perf_counter()
            writer.write(requests[at])
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length"))
            body = await reader.readexactly(length)
            found.append((at, int(head[0].split()[1]), time.perf_counter() - begun, body))
            at = (at + count) % len(requests)
        writer.close()

    async def everybody() -> list[tuple[int, int, float, bytes]]:
        found: list[tuple[int, int, float, bytes]] = []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(i % len(requests), found, until) for i in range(count)))
        return found

    result.send(asyncio.run(everybody()))


def bare(predictor: pf.Predictor, rows: list[dict[str, Any]], batch: int, threads: int, seconds: float) -> Any:
    """Return rows a second of the predictor alone, and its processor milliseconds for each."""
    with computing_threads(threads):
        predictor.answer(rows[:batch])
        begun, cpu, at, done = time.perf_counter(), time.process_time(), 0, 0
        while time.perf_counter() - begun < seconds:
            some = [rows[(at + i) % len(rows)] for i in range(batch)]
            predictor.answer(some, screen=predictor.has_screen)
            at, done = at + batch, done + batch
        return np.array([done / (time.perf_counter() - begun), 1000 * (time.process_time() - cpu) / done])


def served(
    run: Path, options: list[str], cwd: Path | None = None, **environment: str
) -> tuple[subprocess.Popen[str], int]:
    """Start a server; return it and its port."""
    command = [sys.executable, "-m", "polyfuse", "serve", str(run.absolute()), "--port", "0", "--no-page", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, **environment})
    assert process.stderr is not None
    for line in process.stderr:
        if not line.startswith("{"):
            sys.exit(f"the server did not start: {line}")
        said = json.loads(line)
        if said["event"] == "ready":
            port = int(said["url"].rpartition(":")[2])
            # Its log is read on, or it would wait for room in the pipe.
            subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            return process, port
    sys.exit("the server did not start")


def compared(predictor: pf.Predictor, rows: list[dict[str, Any]], answers: list[Any]) -> tuple[int, float, float]:
    """Return how many answers are other than the predictor's, and the largest difference of a score.

    The last is the same between a row alone and among others, in the predictor itself.
    """
    together = predictor.answer(rows)
    alone = [predictor.answer(row) for row in rows[:50]]
    whole = together.scores.to_numpy()
    own = max(float(np.abs(one.scores.to_numpy()[0] - whole[i]).max()) for i, one in enumerate(alone))
    labels, other, largest = together.labels.tolist(), 0, 0.0
    for at, status, _, body in answers:
        said = json.loads(body)
        scores = list(said["probabilities"].values()) if "probabilities" in said else [said["answer"]]
        apart = float(np.abs(np.asarray(scores) - whole[at]).max())
        largest = max(largest, apart)
        # Two labels that are equally likely but for the last digits are both right.
        top = np.sort(whole[at])[::-1]
        tied = len(top) > 1 and top[0] - top[1] <= 2 * own
        other += status != 200 or apart > max(TOLERANCE, 2 * own) or (said["answer"] != labels[at] and not tied)
    return other, largest, own


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    about()
    predictor = pf.load(given.run)
    rows = rows_of(predictor, given.rows)
    options = ["--threads", str(given.threads), "--batch", str(given.batch), "--workers", str(given.workers)]
    server, port = served(given.run, options)
    try:
        before = bare(predictor, rows, given.batch, given.threads, given.seconds / 4)
        here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
        asking = multiprocessing.get_context("spawn").Process(
            target=clients, args=(port, [request_of(row) for row in rows], given.clients, given.seconds, there)
        )
        cpu = processor_seconds(server.pid)
        asking.start()
        answers = here.recv()
        asking.join()
        cpu = processor_seconds(server.pid) - cpu
        after = bare(predictor, rows, given.batch, given.threads, given.seconds / 4)
    finally:
        server.terminate()
        code = server.wait(60)
    statuses = [status for _, status, _, _ in answers]
    other, largest, own = compared(predictor, rows, answers)
    p50, p95, p99 = (1000 * float(np.quantile([seconds for _, _, seconds, _ in answers], q)) for q in (0.5, 0.95, 0.99))
    (alone, each), reached = (before + after) / 2, len(answers) / given.seconds
    show(
        ["requests", "not 200", "other than the predictor's", "largest difference", "a row alone and among others"],
        [[len(answers), sum(status != 200 for status in statuses), other, largest, own]],
    )
    show(
        [
            "clients",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "served rows/s",
            "bare rows/s",
            "ratio",
            "CPU ms/row",
            "bare",
            "exit code",
        ],
        [[given.clients, p50, p95, p99, reached, alone, reached / alone, 1000 * cpu / len(answers), each, code]],
    )
    if given.seconds and (other or len(answers) == 0):
        sys.exit("answers differ, or are lost")


def family(process: int) -> list[int]:
    """Return a process and all that it has begun, on Linux."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [process, *(one for task in tasks for child in task.read_text().split() for one in family(int(child)))]


def processor_seconds(process: int) -> float:
    """Return the processor seconds of a process and of those that it has begun so far, on Linux."""

    def of(one: int) -> float:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    return sum(map(of, family(process)))


if __name__ == "__main__":
    main()
