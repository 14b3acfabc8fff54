"""`polyfuse drift`: its exit codes, and what it prints where."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from cli_runner import polyfuse
from polyfuse.cli import main


def called(*arguments: str, monkeypatch: pytest.MonkeyPatch, place: Path) -> int:
    """Run a command inside this process, and return its exit code."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["polyfuse", *arguments])
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def table(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed)
    y = drawn.integers(0, 2, rows)
    return pd.DataFrame({"a": drawn.normal(size=rows) + y + shift, "b": drawn.normal(size=rows), "y": y})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift")
    pf.Predictor("y", fusion="linear").fit(table(300, 0), out=folder / "run", progress=False)
    table(200, 1).to_csv(folder / "same.csv", index=False)
    table(200, 2, shift=1.0).to_csv(folder / "moved.csv", index=False)
    return folder


def test_drift_ends_with_3_and_writes_both_documents(place: Path) -> None:
    out, err = polyfuse("drift", "run", "moved.csv", "--html", "drift.html", "--json", cwd=place, code=3)
    document = json.loads(out)
    assert document["found"] is True
    assert document["shifts"][0]["name"] in ("a", "table", "y")
    assert "wrote drift.html" in err
    assert "Drift was found" in (place / "drift.html").read_text()


def test_no_drift_ends_with_0(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("drift", "run", "same.csv", monkeypatch=monkeypatch, place=place) == 0
    assert capsys.readouterr().out.startswith("No drift was found")


def test_what_the_options_say_is_done(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--reference", "moved.csv", "--rows", "100", "--alpha", "0.01", "--ignore", "b", "--seed", "3", "--json"]
    assert called("drift", "run", "moved.csv", *options, monkeypatch=monkeypatch, place=place) == 0
    document = json.loads(capsys.readouterr().out)
    found = (document[key] for key in ("rows", "given", "reference", "alpha", "seed"))
    assert tuple(found) == (100, 200, 200, 0.01, 3)
    assert not any(shift["name"] == "b" for shift in document["shifts"])


@pytest.mark.parametrize(
    ("options", "told"), [(["--ignore", "c"], "the model reads no column 'c'"), (["--html", "."], "is a folder")]
)
def test_a_bad_call_ends_with_2(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    assert called("drift", "run", "same.csv", *options, monkeypatch=monkeypatch, place=place) == 2
    assert told in capsys.readouterr().err
