"""The command line as a person uses it: real processes, real files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

import polyfuse as pf
from cli_runner import polyfuse


def table(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    place = rng.choice(["north", "south", "east"], rows)
    y = np.where(x + (place == "north") + rng.normal(0, 0.3, rows) > 0.4, "yes", "no")
    return pd.DataFrame({"id": [f"c-{i:05d}" for i in range(rows)], "x": x, "place": place, "y": y})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    table().to_csv(made / "train.csv", index=False)
    table(50, seed=1).to_csv(made / "test.csv", index=False)
    return made


QUICK = ("--set", "training.epochs=3", "--set", "fusion=concat")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    out, told = polyfuse("fit", "train.csv", "--target", "y", "--out", "runs/y", *QUICK, cwd=folder)
    assert "accuracy" in out
    for expected in ("y: classification (2 labels), 200 rows", "x (number)", "place (category)", "fusion:", "id ("):
        assert expected in " ".join(told.split()), told
    assert told.index("place (category)") < told.index("rows in")
    return folder / "runs" / "y"


def test_fit_leaves_the_artifact_alone(run: Path) -> None:
    assert [path.name for path in run.parent.iterdir()] == ["y"]
    assert list((run / "logs").rglob("events.out.tfevents*"))


def test_predict_prints_or_writes(run: Path, folder: Path) -> None:
    out, _ = polyfuse("predict", run, "test.csv", cwd=folder)
    lines = out.strip().splitlines()
    assert lines[0] == "y,nothing_present"
    assert len(lines) == 51
    expected = pf.load(run).predict(folder / "test.csv").tolist()
    for ending in ("csv", "tsv", "jsonl", "parquet"):
        polyfuse("predict", run, "test.csv", "--proba", "--out", f"p.{ending}", cwd=folder)
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet}.get(ending)
        found = (
            pd.read_csv(folder / "p.tsv", sep="\t")
            if ending == "tsv"
            else pd.read_json(folder / "p.jsonl", lines=True)
            if read is None
            else read(folder / f"p.{ending}")
        )
        assert found.columns.tolist() == ["y", "p:no", "p:yes", "nothing_present"]
        assert found["y"].tolist() == expected
    out, _ = polyfuse("predict", run, "test.csv", "--json", cwd=folder)
    assert [row["y"] for row in json.loads(out)["predictions"]] == expected


def test_predictions_of_rows_with_the_same_label(run: Path, folder: Path) -> None:
    twice = pd.concat([table(5, seed=2)] * 2)
    twice.to_parquet(folder / "twice.parquet")
    out, _ = polyfuse("predict", run, "twice.parquet", "--proba", cwd=folder)
    lines = out.strip().splitlines()
    assert len(lines) == 11
    assert lines[1:6] == lines[6:]


def test_sets_and_intervals_stand_beside_the_answers(run: Path, folder: Path) -> None:
    pytest.importorskip("mapie")
    out, _ = polyfuse("predict", run, "test.csv", "--level", 0.8, "--json", "--out", "sets.csv", cwd=folder)
    frame = pd.read_csv(folder / "sets.csv")
    assert frame.columns.tolist() == ["y", "set", "nothing_present"]
    said = [line["set"] for line in json.loads(out)["predictions"]]
    assert [json.loads(cell) for cell in frame["set"]] == said
    assert said == pf.load(run).predict_sets(folder / "test.csv", level=0.8).tolist()
    assert {label for some in said for label in some} == {"no", "yes"}
    _, told = polyfuse("predict", run, "test.csv", "--level", 0.99, cwd=folder, code=2)
    assert "it needs 100 rows with answers, and 30 are kept" in " ".join(told.split())


def test_evaluate(run: Path, folder: Path) -> None:
    out, _ = polyfuse("evaluate", run, "test.csv", "--html", "report.html", cwd=folder)
    assert "roc_auc" in out
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    document = json.loads(polyfuse("evaluate", run, "test.csv", "--json", cwd=folder)[0])
    answers = pf.load(run).predict(folder / "test.csv")
    truth = pd.read_csv(folder / "test.csv")["y"]
    assert document["metrics"]["accuracy"]["value"] == pytest.approx((answers.to_numpy() == truth.to_numpy()).mean())


def test_a_recipe_is_printed_edited_and_followed(folder: Path) -> None:
    out, _ = polyfuse("recipe", "train.csv", "--target", "y", cwd=folder)
    document = yaml.safe_load(out)
    assert document["target"] == "y"
    assert document["modalities"]["table"]["columns"] == ["x", "place"]
    edited = out.replace("epochs: 12", "epochs: 2").replace("fusion: auto", "fusion: {name: deep, dim: 32}")
    assert edited != out
    (folder / "r.yaml").write_text(edited, encoding="utf-8")
    polyfuse("fit", "train.csv", "--recipe", "r.yaml", "--out", "runs/edited", cwd=folder)
    kept = yaml.safe_load((folder / "runs" / "edited" / "recipe.yaml").read_text(encoding="utf-8"))
    assert kept["fusion"] == {"name": "deep", "dim": 32}
    assert kept["training"]["epochs"] == 2
    as_json = json.loads(polyfuse("recipe", "train.csv", "-t", "y", "--json", cwd=folder)[0])
    assert as_json == document


def test_info(run: Path, folder: Path) -> None:
    from polyfuse.encoders import ENCODERS
    from polyfuse.fusion import FUSIONS

    out, _ = polyfuse("info", cwd=folder)
    for name in (*ENCODERS, *FUSIONS):
        assert name in out
    document = json.loads(polyfuse("info", "--json", cwd=folder)[0])
    assert set(document["components"]["fusion"]) == set(FUSIONS)
    assert document["components"]["tuning"]["lora"]["options"]["rank"] == 8
    assert "classification" in polyfuse("info", run, cwd=folder)[0]
    about = json.loads(polyfuse("info", run, "--json", cwd=folder)[0])
    assert about["recipe"]["target"] == "y"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fit",), "Missing argument"),
        (("fit", "nothing.csv", "--target", "y"), "nothing.csv"),
        (("fit", "train.csv"), "target is missing"),
        (("fit", "train.csv", "--target", "why"), "why"),
        (("fit", "train.csv", "--target", "y", "--set", "fusoin=concat"), "did you mean 'fusion'"),
        (("fit", "train.csv", "--target", "y", "--set", "fusion"), "KEY=VALUE"),
        (("fit", "train.csv", "--target", "y", "--set", "training.epochs=many"), "training.epochs"),
        (("fit", "train.csv", "--target", "y", "--time-limit", "soon"), "time_limit"),
        (("fit", "train.csv", "--target", "y", "--recipe", "nothing.yaml"), "nothing.yaml"),
        (("fit", "train.csv", "--target", "y", "--out", "train.csv"), "is a file"),
        (("fit", ".", "--target", "y"), "is a folder"),
        (("predict", "runs/nothing", "test.csv"), "no Polyfuse artifact"),
        (("predict", "runs/y", "nothing.csv"), "nothing.csv"),
        (("predict", "runs/y", "test.csv", "--out", "p.pkl"), ".parquet"),
        (("predict", "runs/y", "test.csv", "--out", "no/such/p.csv"), "no file can be written"),
        (("predict", "runs/y", "test.csv", "--without", "images"), "no modality"),
        (("evaluate", "runs/y", "train.csv", "--jsno"), "jsno"),
        (("info", "runs/nothing"), "no Polyfuse artifact"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_wrong_calls_end_with_2_and_leave_nothing(
    run: Path, folder: Path, arguments: tuple[str, ...], expected: str
) -> None:
    before = sorted(path for path in folder.rglob("*"))
    out, told = polyfuse(*arguments, cwd=folder, code=2)
    assert expected in told
    assert out == ""
    assert sorted(path for path in folder.rglob("*")) == before


def test_an_artifact_is_not_replaced_unasked(run: Path, folder: Path) -> None:
    _, told = polyfuse("fit", "train.csv", "--target", "y", "--out", "runs/y", *QUICK, cwd=folder, code=2)
    assert "overwrite" in told
    polyfuse("fit", "train.csv", "--target", "y", "--out", "runs/z", *QUICK, cwd=folder)
    polyfuse("fit", "train.csv", "--target", "y", "--out", "runs/z", *QUICK, "--overwrite", cwd=folder)


LONG = (
    *("--set", "fusion=concat", "--set", "training.epochs=25"),
    *("--set", "training.patience=25", "--set", "training.checkpoint_every=5"),
)


def started(folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "polyfuse", "fit", "train.csv", "--target", "y", "--out", f"runs/{name}"]
    # More rows in a batch would make it over too soon to be killed.
    options = [*LONG, "--set", "training.batch_size=8"]
    return subprocess.Popen([*command, *options], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_a_killed_run_goes_on_to_the_same_weights(folder: Path) -> None:
    whole = started(folder, "whole")
    killed = started(folder, "killed")
    wait_for(folder / "runs" / "killed.training" / "checkpoint.safetensors", killed)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not (folder / "runs" / "killed").exists()
    again = ("fit", "train.csv", "--target", "y", "--out", "runs/killed", *LONG, "--set", "training.batch_size=8")
    _, told = polyfuse(*again, cwd=folder, code=2)
    assert "resume" in told
    polyfuse(*again, "--resume", cwd=folder)
    _, told = whole.communicate(timeout=240)
    assert whole.returncode == 0, told
    weights = [load_file(folder / "runs" / name / "weights.safetensors") for name in ("whole", "killed")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert tensor.equal(weights[1][name]), name


def test_ctrl_c_leaves_a_usable_artifact(folder: Path) -> None:
    process = started(folder, "stopped")
    wait_for(folder / "runs" / "stopped.training" / "checkpoint.safetensors", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "interrupted" in told
    assert len(pf.load(folder / "runs" / "stopped").predict(folder / "test.csv")) == 50


def test_help_teaches_and_needs_no_torch(folder: Path) -> None:
    out, _ = polyfuse("--help", cwd=folder)
    for command in ("fit", "tune", "predict", "evaluate", "recipe", "info", "demo"):
        assert command in out
        assert "Example" in polyfuse(command, "--help", cwd=folder)[0] or command == "demo"
    code = "import sys; from typer.testing import CliRunner; from polyfuse.cli.app import app;"
    code += "assert CliRunner().invoke(app, ['--help']).exit_code == 0; import polyfuse; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
