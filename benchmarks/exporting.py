"""An exported model beside its artifact: the same answers, one row, and the first answer of a new process.

python benchmarks/exporting.py DATA PYTHON [cloth|avdigits]

PYTHON is that of an environment with numpy, pillow, soundfile, tokenizers and onnxruntime, and without torch: there the
runner is run. Its answers to the test rows are compared with the model's in float32 (the check of the export), and with
those of the model as it runs by itself. Everything is timed with one thread. The best of several is shown beside the
median: a machine that others use too slows down, and never speeds up.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

import polyfuse as pf
from measure import about, data_folder, empty_cache, show

STARTS, ROUNDS, TESTED = 3, 30, 300
SETS: dict[str, tuple[str, dict[str, Any], int]] = {
    "cloth": ("Recommended IND", {"columns": {"Rating": "ignore"}, "preset": "fast"}, 800),
    "avdigits": ("digit", {"columns": {"speaker": "ignore"}, "fusion": "attention", "training": {"epochs": 4}}, 800),
}
#: Prints the seconds to the first answer, those of one row afterwards, and the scores of all rows.
RUNNER = """
import time; begun = time.perf_counter()
import importlib.util, json, statistics, sys
sys.path.insert(0, sys.argv[1])
assert importlib.util.find_spec("torch") is None
from polyfuse_runner import Runner
from polyfuse_runner.tables import read_rows
from pathlib import Path
runner, file = Runner(sys.argv[1], threads=1), Path(sys.argv[2])
rows = read_rows(file)
answer = lambda i: runner.predict(rows[i % len(rows)], media_root=sys.argv[3])
"""
ARTIFACT = """
import time; begun = time.perf_counter()
import json, os, statistics, sys, torch
torch.set_num_threads(1)
import pandas as pd, polyfuse as pf
runner, file = pf.load(sys.argv[1]), sys.argv[2]
rows = pd.read_csv(file).to_dict("records")
os.chdir(sys.argv[3])
answer = lambda i: runner.predict(rows[i % len(rows)])
"""
TIMED = """
answer(0); first = time.perf_counter() - begun
seconds = []
for i in range(int(sys.argv[4])):
    start = time.perf_counter(); answer(i); seconds.append(time.perf_counter() - start)
scores = runner.scores(file, media_root=sys.argv[3]).tolist() if len(sys.argv) > 5 else None
found = {"first": first, "row": min(seconds, default=0), "p50": statistics.median(seconds or [0]), "scores": scores}
print(json.dumps(found))
"""


def timed(python: str, script: str, folder: Path, rows: Path, root: Path, *more: object) -> dict[str, Any]:
    """Run a script in a process of its own and return what it found."""
    command = [python, "-W", "ignore", "-c", script + TIMED, *map(str, (folder, rows, root, *more))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(name: str, python: str) -> None:
    target, settings, most = SETS[name]
    folder = data_folder(name).resolve()
    with tempfile.TemporaryDirectory() as temporary, empty_cache():
        run, test = Path(temporary) / "run", Path(temporary) / "test.csv"
        pd.read_csv(folder / "test.csv")[:TESTED].to_csv(test, index=False)
        frame = pd.read_csv(folder / "train.csv")[:most]
        settings = {**settings, "data": {"media_root": str(folder)}}
        predictor = pf.Predictor(target, **settings).fit(frame, out=run, progress=False)
        expected = predictor.predict_proba(test, progress=False).to_numpy()
        places = {"artifact": run}
        notes = {"artifact": ["", "", ""]}
        for kind, int8 in (("onnx", False), ("onnx, int8", True)):
            places[kind] = Path(temporary) / kind.replace(", ", "-")
            report = predictor.export(places[kind], check=test, int8=int8)
            assert report.difference is not None
            scores = timed(python, RUNNER, places[kind], test, folder, 0, "scores")["scores"]
            apart = float(abs(expected - pd.DataFrame(scores).to_numpy()).max())
            notes[kind] = [report.difference.largest, apart, report.difference.labels]
        rows = []
        for kind, place in places.items():
            script, by = (ARTIFACT, sys.executable) if kind == "artifact" else (RUNNER, python)
            runs = [timed(by, script, place, test, folder, ROUNDS if i == 0 else 0) for i in range(STARTS)]
            size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 2**20
            first = [found["first"] for found in runs]
            times = [runs[0]["row"] * 1e3, runs[0]["p50"] * 1e3, min(first), statistics.median(first)]
            rows.append([kind, *notes[kind], *times, size])
    headings = ["what", "largest difference, float32", "as the model runs", "other labels"]
    times_of = ["one row, best ms", "p50 ms", "first answer of a process, best s", "median s", "MiB"]
    print(f"{name}: {len(expected):,} test rows, fusion {predictor.recipe.fusion.as_data()}\n")
    show([*headings, *times_of], rows)


def main() -> None:
    about()
    for name in sys.argv[3:] or list(SETS):
        compare(name, sys.argv[2])


if __name__ == "__main__":
    main()
