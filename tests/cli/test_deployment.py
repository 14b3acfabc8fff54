"""What is written down for deployment is true of the commands that there are."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import typer.main
import yaml

from polyfuse.cli.app import app
from polyfuse.data.cells import moment

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
WRITTEN = [
    ROOT / "Dockerfile",
    ROOT / "compose.yaml",
    ROOT / "docs" / "deploy.md",
    *sorted(DEPLOY.iterdir()),
]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    return {name for option in COMMANDS[command].params for name in (*option.opts, *option.secondary_opts)}


def calls(text: str) -> list[list[str]]:
    """Return every call of a command of ours, in words: of a shell, or in YAML's or JSON's brackets."""
    text = re.sub(r"\\\n\s*", " ", text)
    shell = re.findall(r"polyfuse ((?:fit|serve|log|drift|refit|predict) [^\n`|>]*)", text)
    lists = re.findall(r"\[(\"?serve\"?,[^\]]*)\]", text)
    return [
        *(shlex.split(call, comments=True) for call in shell),
        *([w.strip(' "') for w in c.split(",")] for c in lists),
    ]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_every_option_that_is_named_exists(path: Path) -> None:
    for command, *words in calls(path.read_text(encoding="utf-8")):
        named = {found[0] for word in words if (found := re.match(r"--[a-z-]+", word))}
        assert named <= options_of(command), f"{command}: {named - options_of(command)}"


def test_calls_are_found() -> None:
    assert sum(len(calls(path.read_text(encoding="utf-8"))) for path in WRITTEN) >= 12
    assert calls('CMD ["serve", "/runs", "--host", "0.0.0.0"]') == [["serve", "/runs", "--host", "0.0.0.0"]]


def test_options_in_prose_are_those_of_serve() -> None:
    prose = re.sub(r"```.*?```", "", (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`(--[a-z-]+)[ `]", prose)) - {"--stop-timeout"}
    assert len(named) >= 8
    assert named <= options_of("serve"), named - options_of("serve")


def test_yaml_is_yaml() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert set(compose["services"]) == {"polyfuse", "prometheus"}
    [job] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["polyfuse:8000"]
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8"), re.DOTALL)
    found = [document for block in blocks for document in yaml.safe_load_all(block)]
    assert [document["kind"] for document in found if "kind" in document] == ["Deployment", "Service"]
    [pod] = found[0]["spec"]["template"]["spec"]["containers"]
    # A request may take its deadline, and a worker some seconds beyond: what ends it must wait as long.
    from polyfuse.serving import server
    from polyfuse.serving.settings import Settings

    needed = Settings().deadline + server._LINGER + 2 * server._PATIENCE
    assert found[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > needed + 5
    assert pod["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert int(compose["services"]["polyfuse"]["stop_grace_period"].rstrip("s")) > needed
    unit = (DEPLOY / "polyfuse.service").read_text(encoding="utf-8")
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > needed


def test_rules_name_what_is_measured() -> None:
    from polyfuse.serving.metrics import Metrics

    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bpolyfuse_[a-z_]+(?=[{\[])", text))
    metrics = Metrics()
    metrics.request("/predict", "POST", 200, 0.1)
    there = set(re.findall(r"^(polyfuse_\w+)[{ ]", metrics.text()[0].decode(), re.MULTILINE))
    assert len(named) == 4
    assert named <= there


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_units_are_units(tmp_path: Path) -> None:
    for unit in DEPLOY.glob("polyfuse*.*"):
        text = unit.read_text(encoding="utf-8")
        # The programs are not here, and these are.
        text = re.sub(r"/opt/polyfuse/\S+", "/bin/true", text)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 3
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")


FAKE = """#!/usr/bin/env bash
# Ends as the real commands do, and tells what it was asked.
echo "$@" >>"$CALLS"
case "$1" in
  log)
    [[ "$*" == *--labelled* ]] && ROWS=$LABELLED
    printf '{\\n  "rows": 9,\\n  "written": %s\\n}\\n' "$ROWS" ;;
  drift) echo '{}'; exit "$DRIFT" ;;
  refit)
    [[ $REFIT == 0 ]] && { mkdir "$5"; ln --symbolic --force --no-dereference "$5" "$7"; }
    exit "$REFIT" ;;
esac
"""


@pytest.mark.parametrize(
    ("ends", "code", "asked"),
    [
        ({"ROWS": "10"}, 0, ["log"]),
        ({"DRIFT": "0"}, 0, ["log", "drift"]),
        ({"DRIFT": "2"}, 2, ["log", "drift"]),
        ({"LABELLED": "10"}, 3, ["log", "drift", "log"]),
        ({"REFIT": "3"}, 3, ["log", "drift", "log", "refit"]),
        ({"REFIT": "1"}, 1, ["log", "drift", "log", "refit"]),
        ({}, 0, ["log", "drift", "log", "refit"]),
    ],
)
def test_a_round_goes_as_far_as_it_should(ends: dict[str, str], code: int, asked: list[str], tmp_path: Path) -> None:
    runs, commands = tmp_path / "runs", tmp_path / "bin"
    made = time.time() - 20 * 86400  # later than what is learned from, not than what is looked at
    for name in ("20200101-000000", "20200102-000000", "mine"):
        (runs / name).mkdir(parents=True)
        (runs / name / "artifact.json").touch()
        os.utime(runs / name / "artifact.json", (made, made))
    (runs / "current").symlink_to(runs / "20200102-000000")
    commands.mkdir()
    (commands / "polyfuse").write_text(FAKE)
    (commands / "polyfuse").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "POLYFUSE_RUNS": str(runs),
        "POLYFUSE_LOG": str(tmp_path / "log"),
        "POLYFUSE_LEAST": "50",
        "POLYFUSE_KEEP": "1",
        "CALLS": str(tmp_path / "calls"),
        **{"ROWS": "100", "LABELLED": "60", "DRIFT": "3", "REFIT": "0", **ends},
    }
    done = subprocess.run([DEPLOY / "refresh.sh"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    lines = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[0] for line in lines] == asked
    for line in lines:
        command, *words = line.split()
        assert {word for word in words if word.startswith("--")} <= options_of(command)
    begins = [moment(line.split()[line.split().index("--since") + 1]) for line in lines if line.startswith("log")]
    for begin, expected in zip(begins, (time.time() - 7 * 86400, made), strict=False):
        assert begin == pytest.approx(expected, abs=120)
    promoted = code == 0 and asked[-1] == "refit"
    assert (runs / "promoted").exists() == promoted
    left = sorted(path.name for path in runs.iterdir() if path.is_dir() and not path.is_symlink())
    if promoted:
        assert (runs / "current").resolve().name == (runs / "promoted").read_text().strip().split("/")[-1]
        assert left[0] == "20200102-000000"  # the one before it stays, for the way back
        assert left[-1] == "mine"
        assert len(left) == 3
    else:
        assert left == ["20200101-000000", "20200102-000000", "mine"]
