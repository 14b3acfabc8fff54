"""How fast a frozen text encoder runs over clothing reviews, in each way, beside a plain loop over batches of 32.

python benchmarks/encoding.py DATA [ROWS]     (2,000 rows when left out)

All ways take turns in each of three rounds, and the best round of each counts: what else the machine does falls on all
of them. The number of threads is torch's own; OMP_NUM_THREADS sets it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import get_args

import pandas as pd
import torch

from measure import about, data_folder, show
from polyfuse.core.compute import Precision, Way, autocast, has_bf16
from polyfuse.core.types import Features
from polyfuse.data.batches import by_length, pick
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.training.encoding import WINDOW, budget, encoded, grouped, units
from polyfuse.training.exported import can_export
from polyfuse.training.trial import tried

CPU = torch.device("cpu")
ROUNDS = 3
TEXTS = ["Title", "Review Text"]
TARGET = "Recommended IND"


def reviews(count: int) -> tuple[Rows, TransformerEncoder, list[int]]:
    """Return a table of reviews, MiniLM, and the rows that have a text."""
    frame = pd.read_csv(data_folder("cloth") / "train.csv")[[*TEXTS, TARGET]].iloc[:count]
    table = read_table(frame)
    schema = infer_schema(table, TARGET, types=dict.fromkeys(TEXTS, "text"), modalities={"text": TEXTS})
    rows = read_rows(table, schema, training=True)
    encoder = TransformerEncoder(schema.of("text")).eval()
    encoder.requires_grad_(False)
    return rows, encoder, rows.present[:, 0].nonzero().squeeze(1).tolist()


def loop(encoder: TransformerEncoder, rows: Rows, chosen: Sequence[int], precision: Precision) -> dict[int, Features]:
    """Encode in batches of 32 rows of like length out of 256, all threads on each batch."""
    found = {}
    for start in range(0, len(chosen), 256):
        window = chosen[start : start + 256]
        prepared = encoder.prepare([rows.value("text", row) for row in window])
        for group in by_length({"text": prepared}, len(window), 32):
            with torch.inference_mode(), autocast(CPU, precision):
                features = encoder(**pick(prepared, group))
            found |= {window[at]: features.rows(torch.tensor([i])) for i, at in enumerate(group.tolist())}
    return found


def passed(encoder: TransformerEncoder, rows: Rows, chosen: Sequence[int], way: Way) -> dict[int, Features]:
    """Encode as the feature cache does."""
    return {
        row: part.features.rows(torch.tensor([i]))
        for part in encoded(encoder, rows, "text", chosen, CPU, way)
        for i, row in enumerate(part.rows)
    }


def cosines(found: dict[int, Features], reference: dict[int, Features]) -> tuple[float, float]:
    """Return the least cosine of pooled vectors, and of tokens."""
    pooled, tokens = [], []
    for row, features in reference.items():
        length = int(features.mask.sum())
        pooled.append(torch.cosine_similarity(found[row].pooled.double(), features.pooled.double()).min())
        pair = (found[row].tokens[0, :length].double(), features.tokens[0, :length].double())
        tokens.append(torch.cosine_similarity(*pair, dim=-1).min())
    return float(torch.stack(pooled).min()), float(torch.stack(tokens).min())


def padding(encoder: TransformerEncoder, rows: Rows, chosen: Sequence[int]) -> None:
    """Print what share of all tokens is padding."""
    lengths = units(encoder.prepare([rows.value("text", row) for row in chosen]))

    def share(window: int, group: Callable[[torch.Tensor], list[torch.Tensor]]) -> float:
        padded = 0
        for part in lengths.split(window):
            padded += sum(len(some) * int(part[some].max()) for some in group(part))
        return 1 - int(lengths.sum()) / padded

    def thirty_two(part: torch.Tensor) -> list[torch.Tensor]:
        return list(part.argsort(stable=True).split(32))

    most = budget(CPU)
    table = [
        ["32 rows, as they come", share(32, lambda part: [torch.arange(len(part))])],
        ["32 rows of like length out of 256", share(256, thirty_two)],
        [f"{most} tokens of like length out of 256", share(256, lambda part: grouped(part, most))],
        [f"{most} tokens of like length out of {WINDOW}", share(WINDOW, lambda part: grouped(part, most))],
    ]
    show(["batches", "share of padding"], table)


def main() -> None:
    rows, encoder, chosen = reviews(int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
    about()
    found = tried(
        encoder, [rows.value("text", row) or () for row in chosen[:: max(1, len(chosen) // 32)]], CPU, count=1
    )
    print(f"chosen by the trial: {found.sentence('text')}\n")
    padding(encoder, rows, chosen)
    ways = [way for way in get_args(Way) if (way != "onnx" or can_export()) and (way != "bf16" or has_bf16(CPU))]
    runs: dict[str, Callable[[], dict[int, Features]]] = {
        "float32, plain loop": lambda: loop(encoder, rows, chosen, "float32"),
        "bf16, plain loop": lambda: loop(encoder, rows, chosen, "bf16"),
        **{way: lambda way=way: passed(encoder, rows, chosen, way) for way in ways},
    }
    seconds: dict[str, float] = {}
    least: dict[str, tuple[float, float]] = {}
    reference: dict[int, Features] = {}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun = time.perf_counter()
            features = run()
            needed = time.perf_counter() - begun
            seconds[name] = min(needed, seconds.get(name, needed))
            reference = reference or features
            least[name] = least.get(name) or cosines(features, reference)
            del features
    first = seconds["float32, plain loop"]
    show(
        ["way", "seconds", "texts a second", "times as fast", "least cosine, pooled", "least cosine, tokens"],
        [
            [name, needed, len(chosen) / needed, first / needed, *(f"{cosine:.5f}" for cosine in least[name])]
            for name, needed in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
