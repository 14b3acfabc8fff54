"""Two threads beside other programs: how long a small and a large step take, and what waiting briefly changes.

python benchmarks/beside.py [PROGRAMS]     (0, 1 and 2 programs that keep a core busy)

Each figure is the median of 30 steps in a process of its own: training of `concat` on the Features of 256 rows, and a
forward pass of a transformer of MiniLM's size over 32 texts of 48 tokens. "usual" is OpenMP as torch brings it; "brief"
as `import polyfuse` sets it (GOMP_SPINCOUNT=1000). All in turns, three times; the median of the three is shown.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from measure import about, show

# A policy that is given, if only an empty one, is the user's word, and is left.
WAYS: dict[str, dict[str, str]] = {"usual": {"OMP_WAIT_POLICY": ""}, "brief": {}}
STEPS, TURNS, THREADS = 30, 3, 2


def step() -> list[float]:
    """Return the milliseconds of a step of training and of a forward pass."""
    import torch

    from polyfuse.core.types import Features
    from polyfuse.fusion import FUSIONS

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    mask, present = torch.ones(256, 1, dtype=torch.bool), torch.ones(256, 2, dtype=torch.bool)
    some = {name: torch.randn(256, 1, width) for name, width in (("text", 384), ("table", 128))}
    features = {name: Features(tokens, mask, tokens[:, 0]) for name, tokens in some.items()}
    fusion = FUSIONS.build("concat", {}, {name: tokens.shape[2] for name, tokens in some.items()})
    optimizer = torch.optim.AdamW(fusion.parameters(), fused=True)
    layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()
    texts = torch.randn(32, 48, 384)
    small, large = [], []
    for _ in range(STEPS):
        begun = time.perf_counter()
        fusion(features, present).pooled.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        small.append(time.perf_counter() - begun)
    for _ in range(STEPS):
        begun = time.perf_counter()
        with torch.inference_mode():
            encoder(texts)
        large.append(time.perf_counter() - begun)
    return [1000 * statistics.median(small), 1000 * statistics.median(large)]


def measured(way: str) -> list[float]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    command = [sys.executable, __file__, "--step"]
    found = subprocess.run(command, env={**environment, **WAYS[way]}, capture_output=True, text=True, check=True)
    return [float(value) for value in found.stdout.split()]


def main() -> None:
    about()
    lines = []
    for programs in [int(given) for given in sys.argv[1:]] or [0, 1, 2]:
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
        try:
            found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
            for _ in range(TURNS):
                for way, known in found.items():
                    known.append(measured(way))
        finally:
            for process in busy:
                process.kill()
        for place, what in enumerate(("a step on Features", "32 texts")):
            usual, brief = (statistics.median(turn[place] for turn in found[way]) for way in WAYS)
            lines.append([programs, what, usual, brief, usual / brief])
    show(["other programs", "what", "usual, ms", "brief, ms", "times"], lines)


if __name__ == "__main__":
    if "--step" in sys.argv:
        print(*step())
    else:
        main()
