"""How long the encoders will take, measured on a few rows; and how many rows there is time for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from polyfuse.core import processes
from polyfuse.core.contract import Encoder
from polyfuse.data.rows import Rows
from polyfuse.data.splits import split
from polyfuse.fitting.job import Job

_SAMPLE = 4096
_SHARE = 0.5  # of the time limit that encoders may take
_LEAST_ROWS = 100
_FEW_ROWS = 200  # that are encoded in no time


def encoding_seconds(job: Job, encoders: Mapping[str, Encoder]) -> float:
    """Return about how long encoders at rest need for all rows. encoders: by modality, those with a backbone.

    Each encoder is tried on a few values; what the cache holds already costs nothing.
    """
    rows = job.rows
    if len(rows) < _FEW_ROWS:
        return 0.0
    chosen = np.random.default_rng(0).permutation(len(rows))[:_SAMPLE]
    some = rows.subset(np.sort(chosen).tolist())
    seconds = [
        job.cache.estimate(
            encoder,
            some,
            name,
            tokens=False,
            device=job.accelerator.device,
            way=encoder.way or "auto",
            progress=job.progress,
        )
        for name, encoder in encoders.items()
    ]
    return processes.agreed(sum(seconds) * len(rows) / len(some))


def in_time(job: Job, seconds: float) -> Job:
    """Return the job with as many rows as there is time to encode. seconds: that encoders need for all rows."""
    return replace(job, rows=rows_in_time(job, seconds), sized=True)


def rows_in_time(job: Job, seconds: float) -> Rows:
    """Return the rows that there is time for: all, or a sample alike in its answers.

    Args:
        job: with its time limit.
        seconds: that the encoders need for all rows.
    """
    rows, allowed = job.rows, processes.agreed(_SHARE * job.remaining())
    if math.isinf(allowed) or seconds <= allowed:
        return rows
    count = min(len(rows), max(_LEAST_ROWS, round(len(rows) * max(allowed, 0.0) / seconds)))
    if count >= 0.95 * len(rows):
        return rows
    _, chosen = split(rows.answers, job.plan.schema.target.asked, share=count / len(rows), seed=0, groups=job.groups)
    some = rows.subset(chosen.tolist())
    some.notes = [*rows.notes, f"{len(some):,} of {len(rows):,} rows were used: there was no time to encode more"]
    job.progress.say(some.notes[-1])
    return some
