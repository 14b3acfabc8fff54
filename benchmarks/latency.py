"""One row, and the first answer of a new process, beside the least that they could cost.

python benchmarks/latency.py DATA

One row: `predict` of a text + table model beside the bare encoder's tokenisation and forward on the same texts. Cold
start: a process that loads the saved model and answers once, beside one that imports torch and transformers, and reads
the same encoder's weights. The two take turns, and medians are compared. Asked for: at most 1.3 and 1.5 times.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModel, AutoTokenizer

import polyfuse as pf
from measure import about, data_folder, empty_cache, show
from polyfuse.core.compute import Precision, autocast

TARGET = "Recommended IND"
ROUNDS, STARTS = 150, 7

BARE = """
import sys, torch
from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1]).eval()
"""
COLD = """
import sys, polyfuse as pf
pf.load(sys.argv[1]).predict({"Title": "Lovely", "Review Text": "It fits well and is warm.", "Age": 40})
"""


def turns(first: Callable[[int], object], second: Callable[[int], object], rounds: int) -> tuple[float, float]:
    """Return the median seconds of two calls that take turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for call, found in zip((first, second), seconds, strict=True):
            begun = time.perf_counter()
            call(i)
            found.append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def encoder_folder(run: Path) -> Path:
    """Return the folder of the saved encoder in an artifact."""
    return next(
        path.parent for path in sorted(run.rglob("model.safetensors")) if (path.parent / "config.json").exists()
    )


def one_row(run: Path, test: pd.DataFrame) -> list[list[object]]:
    """Compare the answer to one row with the bare encoder's work on its text."""
    predictor, saved = pf.load(run), encoder_folder(run)
    tokenizer, model = AutoTokenizer.from_pretrained(saved), AutoModel.from_pretrained(saved).eval()
    precision: Precision = "bf16" if predictor.model.encoder("text").way == "bf16" else "float32"
    texts = (test["Title"].fillna("") + "\n" + test["Review Text"].fillna("")).tolist()
    records = test.to_dict("records")

    @torch.inference_mode()
    def bare(i: int) -> object:
        with autocast(torch.device("cpu"), precision):
            return model(**tokenizer(texts[i], return_tensors="pt", truncation=True, max_length=160))

    ways: dict[str, Callable[[int], object]] = {
        "one row, a DataFrame": lambda i: predictor.predict(test.iloc[i : i + 1]),
        "one row, a dict": lambda i: predictor.predict(records[i]),
    }
    found = []
    for name, answer in ways.items():
        ours, least = turns(answer, bare, ROUNDS)
        found.append([f"{run.name}: {name}", ours * 1e3, least * 1e3, ours / least])
    return found


def cold_start(run: Path) -> list[object]:
    """Compare a process that loads a model and answers with one that only reads the encoder's weights."""

    def start(script: str, argument: Path) -> object:
        return subprocess.run([sys.executable, "-c", script, str(argument)], check=True, capture_output=True)

    saved = encoder_folder(run)
    cold, bare = turns(lambda _: start(COLD, run), lambda _: start(BARE, saved), STARTS)
    return [f"{run.name}: cold start", cold * 1e3, bare * 1e3, cold / bare]


def main() -> None:
    folder = data_folder("cloth")
    about()
    train, test = (pd.read_csv(folder / f"{part}.csv") for part in ("train", "test"))
    settings = {"fast": {"preset": "fast"}, "concat": {"fusion": "concat"}}
    rows = []
    with tempfile.TemporaryDirectory() as temporary, empty_cache():
        for name, some in settings.items():
            run = Path(temporary) / name
            pf.Predictor(TARGET, columns={"Rating": "ignore"}, **some).fit(train[:1500], out=run, progress=False)
            rows += [*one_row(run, test), cold_start(run)]
    show(["what", "ms", "least, ms", "times"], rows)


if __name__ == "__main__":
    main()
